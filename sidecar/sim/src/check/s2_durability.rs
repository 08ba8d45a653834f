//! S2: in `quorum`, every acknowledged commit is in every later primary. In `async` what is lost is counted.

use matriarch_ha::event::Kind;

use crate::model::wal::{BranchId, Pos};
use crate::plan::Durability;
use crate::world::World;

fn at(list: &mut Vec<u64>, branch: BranchId) -> &mut u64 {
    let index = branch as usize;
    if list.len() <= index {
        list.resize(index + 1, 0);
    }
    &mut list[index]
}

impl World {
    /// The effective rule at this moment: the setting that is loaded, or the state under which only this member could win.
    fn protects(&self, node: usize) -> bool {
        if self.check.durability == Durability::Async || self.check.suspended || self.following {
            return false;
        }
        let n = &self.nodes[node];
        let ours = self
            .api
            .get(Kind::Lock, "x-sync")
            .is_ok_and(|sync| sync.annotations.get("leader").is_some_and(|leader| *leader == n.name));
        ours || n.server.waits
    }

    pub(crate) fn check_acknowledged(&mut self, node: usize, pos: Pos) {
        let protected = self.protects(node);
        self.check_overtaken(node, pos, protected);
        self.check_fenced(node);
        let lists = [Some(&mut self.check.acknowledged), protected.then_some(&mut self.check.protected)];
        for list in lists.into_iter().flatten() {
            let highest = at(list, pos.branch);
            *highest = (*highest).max(pos.lsn);
        }
    }

    /// Commits that the log which ends at `pos` lacks: the positions on their branches.
    pub(crate) fn missing(&self, protected: bool, pos: Pos) -> Vec<Pos> {
        let list = if protected { &self.check.protected } else { &self.check.acknowledged };
        self.wal
            .ids()
            .filter_map(|branch| {
                let lsn = *list.get(branch as usize)?;
                let commit = Pos { branch, lsn };
                (lsn > 0 && !self.wal.contains(pos, commit)).then_some(commit)
            })
            .collect()
    }

    /// Another disk than this member's has all of these commits.
    pub(crate) fn elsewhere(&self, node: usize, commits: &[Pos]) -> bool {
        self.nodes.iter().enumerate().any(|(other, n)| {
            let flushed = Pos { lsn: n.disk.flushed, ..n.disk.written };
            other != node && n.disk.intact() && commits.iter().all(|commit| self.wal.contains(flushed, *commit))
        })
    }

    /// `/sync` was written by `node`. Where it names nobody any more, a switch to async is complete: somebody else has what was
    /// acknowledged before, and from now on it is as safe as any commit in async.
    pub(crate) fn check_given_up(&mut self, node: usize) {
        let acknowledged = self.missing(true, Pos::default());
        if acknowledged.is_empty() || self.sync_state().leader.is_some() {
            return;
        }
        if !self.elsewhere(node, &acknowledged) && !self.check.failover_by_hand {
            let what =
                format!("{} ends the votes while nobody else has all that was acknowledged", self.nodes[node].name);
            self.check.fail(self.now, "S2", what);
        }
        self.check.protected.clear();
    }

    /// A promotion forked a new branch.
    pub(crate) fn check_fork(&mut self, node: usize, branch: BranchId, fork: Pos) {
        // Thawed in the middle of a promotion, its time over: the fence is on its way, and nothing may rest on this branch.
        // Or its clock stood still: then it believes in its permit, and only the lock tells.
        let overtaken = self.check.clock_hell && !self.holds_lock(node);
        if overtaken || (!self.permitted(node) && !self.check.paused && !self.check.clock_hell) {
            self.check.overdue.push(branch);
            return;
        }
        self.check_claimed(node);
        let lost = self.missing(true, fork);
        if let Some(commit) = lost.first()
            && !self.check.failover_by_hand
        {
            let what = format!(
                "{} became primary on timeline {} at {} without the acknowledged commit at {} of timeline {}",
                self.nodes[node].name,
                self.wal.timeline(branch),
                fork.lsn,
                commit.lsn,
                self.wal.timeline(commit.branch)
            );
            self.check.fail(self.now, "S2", what);
        }
        if !self.missing(false, fork).is_empty() {
            self.stats.async_lost += 1;
        }
        // What was lost is lost once; it is not looked for again.
        for commit in self.missing(false, fork) {
            *at(&mut self.check.acknowledged, commit.branch) = 0;
        }
    }
}
