//! Servers that a person starts beside us, by `pg_ctl restart` above all. They are found in /proc, which is memory and does not
//! hang, by the folder that every process of PostgreSQL works in; and taken up, so that the agent decides about them and the
//! fence holds for them as for any other.
//!
//! They are not our children (in a container they become so), so their end is looked for as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::processes;

/// Between two looks while nothing runs.
const LOOK_US: u64 = 1_000_000;
/// Between two looks at where our own server works.
const LEARN_US: u64 = 50_000;
/// Between two looks at whether one that was taken up still lives.
const ALIVE_US: u64 = 100_000;

/// Looks for servers in the data directory that we know.
#[derive(Debug)]
pub struct Watch {
    /// With every link resolved, as /proc tells it; known from the beginning, or from the first server that we started.
    folder: Option<PathBuf>,
    at: u64,
}

impl Watch {
    /// Looks there from the beginning: an agent before us, Patroni, may have left its server.
    pub fn of(folder: Option<PathBuf>) -> Self {
        Self { folder, at: 0 }
    }

    /// Learns from our own server where it works, as soon as it works there.
    pub fn learn(&mut self, pid: i32, now: u64) {
        if self.folder.is_some() || now < self.at {
            return;
        }
        self.at = now.saturating_add(LEARN_US);
        // A process that has not changed into its folder yet works in ours.
        let (its, ours) = (fs::read_link(format!("/proc/{pid}/cwd")).ok(), fs::read_link("/proc/self/cwd").ok());
        self.folder = its.filter(|its| Some(its) != ours.as_ref());
        if self.folder.is_some() {
            self.at = 0;
        }
    }

    /// Whether it is time for another look.
    pub fn due(&mut self, now: u64, adopted: bool) -> bool {
        if self.folder.is_none() || now < self.at {
            return false;
        }
        self.at = now.saturating_add(if adopted { ALIVE_US } else { LOOK_US });
        true
    }

    /// When there is something to be looked at again.
    pub fn next_timer(&self) -> u64 {
        self.at
    }

    /// Where servers are looked for.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// A postmaster that works there.
    pub fn find(&self) -> Option<i32> {
        let all = servers(self.folder.as_deref()?);
        let parents = processes::parents().ok()?;
        let first = all.iter().find(|pid| parents.get(pid).is_none_or(|parent| !all.contains(parent)))?;
        // Not one that a person talks to alone, or a tool has started for its recovery.
        let line = fs::read(format!("/proc/{first}/cmdline")).unwrap_or_default();
        if line.starts_with(b"postgres: ") {
            // One that its postmaster has left behind.
            return None;
        }
        let alone = line.split(|byte| *byte == 0).any(|argument| argument == b"--single" || argument == b"--boot");
        (!alone).then_some(*first)
    }

    /// All of its processes.
    pub fn processes(&self) -> Vec<i32> {
        self.folder.as_deref().map(servers).unwrap_or_default().into_iter().collect()
    }
}

/// PostgreSQL's processes that work in a folder.
fn servers(folder: &Path) -> BTreeSet<i32> {
    let is_server = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder)
            && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
    };
    processes::parents().unwrap_or_default().into_keys().filter(is_server).collect()
}
