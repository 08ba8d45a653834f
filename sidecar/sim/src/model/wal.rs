//! The truth about write-ahead logs: a tree of branches. PostgreSQL sees only timeline numbers and positions, so two branches
//! may carry the same number, and a server that mixes them up does so here as well.

use matriarch_ha::types::Lsn;

/// A branch of the log.
pub(crate) type BranchId = u32;

/// Up to where a log goes: the end of a record on a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pos {
    pub(crate) branch: BranchId,
    pub(crate) lsn: u64,
}

#[derive(Debug, Clone)]
struct Branch {
    timeline: u32,
    parent: Option<Pos>,
    system: u64,
}

/// All branches that ever were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wal {
    branches: Vec<Branch>,
}

impl Wal {
    /// A new cluster by initdb.
    pub(crate) fn root(&mut self, system: u64) -> BranchId {
        self.push(Branch { timeline: 1, parent: None, system })
    }

    /// A promotion at `at`.
    pub(crate) fn fork(&mut self, at: Pos, timeline: u32) -> BranchId {
        let system = self.branch(at.branch).map_or(0, |b| b.system);
        self.push(Branch { timeline, parent: Some(at), system })
    }

    fn push(&mut self, branch: Branch) -> BranchId {
        self.branches.push(branch);
        u32::try_from(self.branches.len()).unwrap_or(0)
    }

    /// Branch 0 is none.
    fn branch(&self, id: BranchId) -> Option<&Branch> {
        (id as usize).checked_sub(1).and_then(|index| self.branches.get(index))
    }

    pub(crate) fn ids(&self) -> std::ops::RangeInclusive<BranchId> {
        1..=u32::try_from(self.branches.len()).unwrap_or(0)
    }

    pub(crate) fn timeline(&self, id: BranchId) -> u32 {
        self.branch(id).map_or(0, |b| b.timeline)
    }

    pub(crate) fn system(&self, id: BranchId) -> u64 {
        self.branch(id).map_or(0, |b| b.system)
    }

    pub(crate) fn parent(&self, id: BranchId) -> Option<Pos> {
        self.branch(id).and_then(|b| b.parent)
    }

    /// The history file of a branch; none for timeline 1.
    pub(crate) fn history(&self, of: BranchId) -> Option<String> {
        let mut lines = Vec::new();
        let mut id = of;
        while let Some(fork) = self.parent(id) {
            lines.push(format!("{}\t{}\tno recovery target specified\n", self.timeline(fork.branch), Lsn(fork.lsn)));
            id = fork.branch;
        }
        lines.reverse();
        (!lines.is_empty()).then(|| lines.concat())
    }

    /// Everything up to `part` is in the log that ends at `whole`.
    pub(crate) fn contains(&self, whole: Pos, part: Pos) -> bool {
        let mut at = whole;
        loop {
            if at.branch == part.branch {
                return part.lsn <= at.lsn;
            }
            match self.parent(at.branch) {
                Some(fork) => at = Pos { branch: fork.branch, lsn: fork.lsn.min(at.lsn) },
                None => return false,
            }
        }
    }

    /// The last position that both logs have; none: they have nothing in common.
    pub(crate) fn common(&self, a: Pos, b: Pos) -> Option<Pos> {
        let mut at = a;
        loop {
            let mut other = b;
            loop {
                if other.branch == at.branch {
                    return Some(Pos { branch: at.branch, lsn: at.lsn.min(other.lsn) });
                }
                match self.parent(other.branch) {
                    Some(fork) => other = Pos { branch: fork.branch, lsn: fork.lsn.min(other.lsn) },
                    None => break,
                }
            }
            let fork = self.parent(at.branch)?;
            at = Pos { branch: fork.branch, lsn: fork.lsn.min(at.lsn) };
        }
    }

    /// Where the timeline with this number ends in the history of a branch, by number as PostgreSQL looks for it: none when it
    /// is not there; without a limit for the branch's own.
    pub(crate) fn switchpoint(&self, of: BranchId, timeline: u32) -> Option<u64> {
        let mut id = of;
        if self.timeline(id) == timeline {
            return Some(u64::MAX);
        }
        while let Some(fork) = self.parent(id) {
            if self.timeline(fork.branch) == timeline {
                return Some(fork.lsn);
            }
            id = fork.branch;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_contains_its_ancestors_up_to_the_fork() {
        let mut wal = Wal::default();
        let root = wal.root(7);
        let second = wal.fork(Pos { branch: root, lsn: 100 }, 2);
        let rival = wal.fork(Pos { branch: root, lsn: 120 }, 2);
        let at = |branch, lsn| Pos { branch, lsn };
        assert!(wal.contains(at(second, 150), at(root, 100)));
        assert!(!wal.contains(at(second, 150), at(root, 101)));
        assert!(!wal.contains(at(second, 150), at(rival, 121)));
        assert_eq!(wal.common(at(second, 150), at(rival, 130)), Some(at(root, 100)));
        assert_eq!(wal.switchpoint(second, 1), Some(100));
        assert_eq!(wal.switchpoint(rival, 2), Some(u64::MAX));
        assert_eq!(wal.switchpoint(root, 2), None);
    }
}
