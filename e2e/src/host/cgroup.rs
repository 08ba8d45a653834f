//! cgroups, v1 (every controller its own tree) and v2 (one tree). Whatever runs below a cluster's cgroup is the
//! cluster's: that is how pods, shims and crashed half-starts are found again without trusting a pid file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::process::{Process, command_line};

/// The root of every hierarchy: one of v2, or one for each v1 controller (systemd's name-only one included).
pub fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").is_file() {
        return vec![root.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        // v1 mounts "cpu,cpuacct" with links from "cpu". A v2 tree without controllers may hang beside ("unified"), and runc
        // uses it, too.
        if path.join("cgroup.procs").is_file() && !path.is_symlink() {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The files through which a process joins `group` in every hierarchy.
pub fn procs_files(group: &Path) -> Vec<PathBuf> {
    hierarchies().iter().map(|root| root.join(group).join("cgroup.procs")).collect()
}

/// Creates `group` in every hierarchy, ready to hold processes and children (v1 cpusets are born empty).
pub fn create(group: &Path) -> Result<()> {
    for root in hierarchies() {
        let mut path = root.clone();
        for part in group.components() {
            let parent = path.clone();
            path.push(part);
            let all = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default(); // v2 only
            if !all.trim().is_empty() {
                let enable = all.split_whitespace().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
                fs::write(parent.join("cgroup.subtree_control"), enable)
                    .with_context(|| format!("unable to enable controllers in {}", parent.display()))?;
            }
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                let own = fs::read_to_string(path.join(file));
                if own.is_ok_and(|text| text.trim().is_empty()) && !inherited.trim().is_empty() {
                    fs::write(path.join(file), inherited.trim())
                        .with_context(|| format!("{}/{file}", path.display()))?;
                }
            }
        }
    }
    Ok(())
}

/// Every process in `group` and below it, in any hierarchy.
pub fn processes(group: &Path) -> BTreeSet<u32> {
    let mut pids = BTreeSet::new();
    for root in hierarchies() {
        for folder in tree(&root.join(group)) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    pids
}

/// Whether `group` exists.
pub fn exists(group: &Path) -> bool {
    pids_root().join(group).is_dir()
}

/// Freezes or thaws everything in `group` and below it, and waits until it is so.
pub fn freeze(group: &Path, frozen: bool) -> Result<()> {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").is_file();
    let (file, value) = match (v2, frozen) {
        (true, _) => (Path::new("/sys/fs/cgroup").join(group).join("cgroup.freeze"), if frozen { "1" } else { "0" }),
        (false, _) => (
            Path::new("/sys/fs/cgroup/freezer").join(group).join("freezer.state"),
            if frozen { "FROZEN" } else { "THAWED" },
        ),
    };
    fs::write(&file, value).with_context(|| file.display().to_string())?;
    let begin = Instant::now();
    while !v2 && fs::read_to_string(&file)?.trim() != value {
        if begin.elapsed() > Duration::from_secs(5) {
            bail!("{} is not {value} after 5 s", file.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Kills everything in `group` and below it, and removes the folders. Fine when there is nothing.
pub fn destroy(group: &Path) -> Result<()> {
    for folder in tree(&Path::new("/sys/fs/cgroup/freezer").join(group)) {
        let _ = fs::write(folder.join("freezer.state"), "THAWED"); // a frozen process does not die; absent is fine
    }
    let begin = Instant::now();
    loop {
        let alive: Vec<Process> = processes(group).into_iter().filter_map(Process::of).collect();
        if alive.is_empty() {
            break;
        }
        for process in &alive {
            process.signal(Signal::KILL)?;
        }
        if begin.elapsed() > Duration::from_secs(20) {
            let names: Vec<String> = alive.iter().map(|p| format!("{} {}", p.pid, command_line(p.pid))).collect();
            bail!("still alive 20 s after SIGKILL: {}", names.join("; "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for root in hierarchies() {
        for folder in tree(&root.join(group)) {
            remove(&folder)?;
        }
        if let Some(parent) = group.parent().filter(|parent| parent.components().next().is_some()) {
            let _ = fs::remove_dir(root.join(parent)); // busy as long as another cluster is in it
        }
    }
    Ok(())
}

/// Removes one empty group; a dying process or a zombie may keep it busy for a moment.
fn remove(folder: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if begin.elapsed() > Duration::from_secs(5) => {
                return Err(error).with_context(|| format!("unable to remove {}", folder.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn pids_root() -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/pids");
    if v1.is_dir() { v1.to_owned() } else { PathBuf::from("/sys/fs/cgroup") }
}

/// `path` and all folders below it, children first; empty when it does not exist.
fn tree(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(tree(&entry.path()));
        }
    }
    all.push(path.to_owned());
    all
}
