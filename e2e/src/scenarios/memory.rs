//! How much memory the agents and supervisors take, as the host sees it.

use std::fs;

use anyhow::{Context as _, Result};
use matriarch_crds::names::{AGENT_CONTAINER, POSTGRES_CONTAINER};

use super::herd::Herd;

/// Memory of one process, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    /// Its share of what it maps.
    pub pss: u64,
    /// All that it maps.
    pub rss: u64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |kib: u64| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024);
        write!(f, "PSS {} MiB, RSS {} MiB", mib(self.pss), mib(self.rss))
    }
}

/// The largest agent and the largest supervisor of a cluster.
pub async fn largest(herd: &Herd) -> Result<(Memory, Memory)> {
    let (mut agent, mut supervisor) = (Memory::default(), Memory::default());
    for member in herd.members().await? {
        let processes = herd.namespace.cluster.pod_processes(&herd.namespace.name, &member.name).await?;
        for (container, largest) in [(AGENT_CONTAINER, &mut agent), (POSTGRES_CONTAINER, &mut supervisor)] {
            // Process 1 of each container comes first.
            let first = processes.get(container).and_then(|all| all.first());
            let pid = first.with_context(|| format!("{} has no {container}", member.name))?.process.pid;
            *largest = read(pid)?.max(*largest);
        }
    }
    Ok((agent, supervisor))
}

/// Of one process, by its pid on the host.
pub fn read(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    Ok(parse(&fs::read_to_string(&path).with_context(|| path)?))
}

fn parse(text: &str) -> Memory {
    let kib = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    };
    Memory { pss: kib("Pss:"), rss: kib("Rss:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_are_understood() {
        let text = "5581 - 7ffe [rollup]\nRss:               11324 kB\nPss:                9216 kB\nPss_Dirty:  1 kB\n";
        assert_eq!(parse(text), Memory { pss: 9216, rss: 11324 });
        assert_eq!(parse(text).to_string(), "PSS 9.0 MiB, RSS 11.0 MiB");
    }
}
