//! `down`: removes whatever a cluster made, also after a crash or half an `up`. Looks at the machine, not at pid files:
//! cgroups tell the processes, paths the mounts and loop devices, names the network namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::layout::{Layout, cgroup_of, check_name, existing, folder_of, netns_prefix, sysctls};
use super::network;
use crate::host::{cgroup, mounts, sysctl};

/// Removes the cluster. Fine when there is none.
pub fn down(name: &str) -> Result<()> {
    check_name(name)?;
    let folder = folder_of(name);
    let layout = Layout::load(name).ok();
    let shims = shim_sockets(name);
    cgroup::destroy(&cgroup_of(name))?;
    mounts::unmount_below(&folder)?;
    mounts::detach_loops_below(&folder)?;
    network::destroy(name, layout.as_ref().map(Layout::host_link).as_deref())?;
    for socket in shims {
        let _ = fs::remove_file(socket); // the shim may have removed it itself
    }
    remove_network_results(&folder);
    remove_folder(&folder)?;
    if existing().is_empty() {
        sysctl::restore(&sysctls())?;
    }
    Ok(())
}

/// What is left of a cluster on this machine; empty after `down`.
pub fn leftovers(name: &str) -> Result<Vec<String>> {
    let folder = folder_of(name);
    let mut left = Vec::new();
    for pid in cgroup::processes(&cgroup_of(name)) {
        left.push(format!("process {pid} {}", crate::host::process::command_line(pid)));
    }
    for root in cgroup::hierarchies() {
        let path = root.join(cgroup_of(name));
        if path.exists() {
            left.push(format!("cgroup {}", path.display()));
        }
    }
    left.extend(mounts::below(&folder)?.iter().map(|point| format!("mount {}", point.display())));
    let loops = mounts::loops()?.into_iter().filter(|(_, file)| file.starts_with(&folder));
    left.extend(loops.map(|(device, _)| format!("loop device {device}")));
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let netns = entry.file_name().to_string_lossy().into_owned();
        if netns.starts_with(&netns_prefix(name)) {
            left.push(format!("network namespace {netns}"));
        }
    }
    if folder.exists() {
        left.push(format!("folder {}", folder.display()));
    }
    Ok(left)
}

/// The sockets of the cluster's shims: containerd keeps them in one folder for all, named by a hash. Each shim's own
/// folder has a file that says which is its.
fn shim_sockets(name: &str) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    let entries = fs::read_dir(folder_of(name)).into_iter().flatten().flatten();
    for node in entries.map(|entry| entry.path()).filter(|path| path.join("containerd").is_dir()) {
        let tasks = node.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            if let Ok(address) = fs::read_to_string(task.path().join("address")) {
                sockets.push(PathBuf::from(address.trim().trim_start_matches("unix://")));
            }
        }
    }
    sockets
}

/// The network plugins' library keeps one file for each attached pod, which names the pod's network namespace.
fn remove_network_results(folder: &Path) {
    let below = format!("{}/", folder.display());
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        if fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&below)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    if !mounts::below(folder)?.is_empty() {
        bail!("something is still mounted below {}", folder.display());
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unable to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
