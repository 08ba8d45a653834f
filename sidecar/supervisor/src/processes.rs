//! What /proc tells of processes. It is memory, not disk: reading it does not hang.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

/// Every process that is visible, with its parent.
pub fn parents() -> io::Result<BTreeMap<i32, i32>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ended since the folder was read is skipped.
        if let Some(parent) = field(pid, 4) {
            found.insert(pid, parent);
        }
    }
    Ok(found)
}

/// The processes below `root` that are not below (or one of) `apart`.
pub fn below(parents: &BTreeMap<i32, i32>, root: i32, apart: &BTreeSet<i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        found.extend(
            parents
                .iter()
                .filter(|(pid, of)| **of == parent && !apart.contains(pid) && **pid != root)
                .map(|(pid, _)| *pid),
        );
    }
    found.remove(0);
    found
}

/// A process's start, in clock ticks since boot.
pub fn start_ticks(pid: i32) -> Option<u64> {
    field(pid, 22)
}

/// Whether a process has a handler of its own for `signal`: one without would be ended by it.
pub fn catches(pid: i32, signal: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        })
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// A field of /proc/pid/stat, numbered as in proc(5). The second, the name, may hold spaces and brackets.
fn field<T: std::str::FromStr>(pid: i32, number: usize) -> Option<T> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tree_without_the_tools() {
        let parents = BTreeMap::from([(1, 0), (10, 1), (11, 10), (12, 11), (20, 1), (21, 20), (30, 1), (99, 0)]);
        let mut found = below(&parents, 1, &BTreeSet::from([20]));
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12, 30]);
        assert!(below(&parents, 99, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn reads_its_own_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(start_ticks(me).unwrap() > 0);
        assert!(parents().unwrap().contains_key(&me));
        assert!(!catches(me, 10));
    }
}
