//! The cluster's processes: started detached, recorded in `processes/NAME.json`, found again by any later command.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::host::process::{Process, Spec, read_record, write_record};

/// A started process and how to start it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Daemon {
    /// How.
    pub spec: Spec,
    /// Which.
    pub process: Process,
}

/// Starts a process and records it.
pub fn start(layout: &Layout, spec: Spec) -> Result<Daemon> {
    let folder = layout.folder().join("processes");
    fs::create_dir_all(&folder)?;
    let process = spec.start()?;
    let daemon = Daemon { spec, process };
    write_record(&record_of(layout, &daemon.spec.name), &daemon)?;
    Ok(daemon)
}

/// A recorded process: `apiserver`, `etcd`, `controller-manager`, `scheduler`, `coredns`, `kubelet-node-1`,
/// `containerd-node-1`, `kube-proxy-node-1`.
pub fn find(layout: &Layout, name: &str) -> Result<Daemon> {
    read_record(&record_of(layout, name)).with_context(|| format!("no process {name:?} was started"))
}

/// SIGKILLs a recorded process and waits until it is gone.
pub fn stop(layout: &Layout, name: &str) -> Result<()> {
    find(layout, name)?.process.kill()
}

/// Starts a recorded process again with the same arguments; nothing happens when it runs.
pub fn restart(layout: &Layout, name: &str) -> Result<Daemon> {
    let daemon = find(layout, name)?;
    if daemon.process.is_alive() {
        return Ok(daemon);
    }
    start(layout, daemon.spec)
}

/// An error that names the processes that have ended and the ends of their logs; fine when all run.
pub fn check(layout: &Layout) -> Result<()> {
    for entry in fs::read_dir(layout.folder().join("processes"))?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            let daemon: Daemon = read_record(&entry.path())?;
            if !daemon.process.is_alive() {
                let log = fs::read_to_string(&daemon.spec.log).unwrap_or_default();
                let mut end: Vec<&str> = log.lines().rev().take(15).collect();
                end.reverse();
                bail!("{} has ended:\n{}", daemon.spec.name, end.join("\n"));
            }
        }
    }
    Ok(())
}

fn record_of(layout: &Layout, name: &str) -> PathBuf {
    layout.folder().join("processes").join(format!("{name}.json"))
}
