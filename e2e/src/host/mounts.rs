//! Mounts and loop devices below a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};

/// Every mount point at or below `folder`, newest first.
pub fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(folder))
        .collect();
    found.reverse();
    Ok(found)
}

/// Whether the file system that is mounted at `point` is mounted elsewhere as well.
pub fn is_shared(point: &Path) -> Result<bool> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts: Vec<(&str, PathBuf)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            Some((fields.next()?, PathBuf::from(unescape(fields.nth(1)?))))
        })
        .collect();
    let device = mounts.iter().find(|(_, at)| at == point).map(|(device, _)| *device);
    Ok(mounts.iter().filter(|(other, _)| Some(*other) == device).count() > 1)
}

/// Unmounts everything at or below `folder`. Detaches lazily: what a dying process still holds goes with it.
pub fn unmount_below(folder: &Path) -> Result<()> {
    for point in below(folder)? {
        match unmount(&point, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unable to unmount {}", point.display())),
        }
    }
    Ok(())
}

/// Detaches the loop devices whose backing file lies below `folder` (a clean unmount has done it already).
pub fn detach_loops_below(folder: &Path) -> Result<()> {
    for (device, file) in loops()? {
        if file.starts_with(folder) {
            super::run::run(&["losetup", "--detach", &device])?;
        }
    }
    Ok(())
}

/// Device and backing file of every loop device in use.
pub fn loops() -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")?.flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            let file = file.trim().trim_end_matches(" (deleted)");
            found.push((format!("/dev/{}", entry.file_name().to_string_lossy()), PathBuf::from(file)));
        }
    }
    Ok(found)
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
