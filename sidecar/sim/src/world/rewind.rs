//! A rewind as the agent does it: the comparison of histories, and pg_rewind where it is needed.

use matriarch_ha::divergence::{Divergence, Local, compare};
use matriarch_ha::effect::Upstream;
use matriarch_ha::event::TaskError;
use matriarch_ha::types::{Lsn, Timeline};

use super::node::Pm;
use super::tasks::{Step, failed};
use super::{MS, World};
use crate::model::disk::{Disk, Health, RECORD, State};
use crate::model::wal::Pos;

impl World {
    pub(super) fn rewind(&mut self, node: usize, step: u32, from: &Upstream) -> Step {
        let source = self.source(node, from);
        match step {
            1 => {
                let n = &self.nodes[node];
                if n.server.pm != Pm::Down || !n.disk.intact() {
                    return failed("not to be rewound");
                }
                self.takes(node, 20, 1_500)
            }
            2 => self.compared(node, source),
            // What pg_rewind needs to know of its source only a primary tells.
            3 if source.is_some_and(|source| !self.nodes[source].server.primary) => failed("the source is no primary"),
            3 => self.source_ready(node, source).unwrap_or_else(|| self.rewind_begins(node, source)),
            _ => {
                let begun_on = self.nodes[node].task.as_ref().map_or(0, |run| run.source);
                let same = source.filter(|s| self.nodes[*s].server.incarnation == begun_on);
                let Some(source) = same else { return failed("the connection to the source was lost") };
                self.rewind_ends(node, source);
                Step::Done(Ok(()))
            }
        }
    }

    /// A crashed standby replays what it has. Then its end is compared with the source's history, which needs no checkpoint.
    fn compared(&mut self, node: usize, source: Option<usize>) -> Step {
        let disk = &mut self.nodes[node].disk;
        if disk.state == State::InArchiveRecovery {
            disk.flushed = disk.written.lsn;
            disk.replayed = disk.written.lsn;
            disk.restartpoint(&self.wal);
            disk.state = State::ShutDownInRecovery;
        }
        let Some(source) = source else { return failed("the source is no primary") };
        let (ours, theirs) = (self.nodes[node].disk.written.branch, self.nodes[source].disk.written.branch);
        if self.wal.system(ours) != self.wal.system(theirs) {
            return failed("source and target clusters are from different systems");
        }
        if self.divergence(node, source) == Divergence::None {
            self.nodes[node].disk.standby_signal = true;
            return Step::Done(Ok(()));
        }
        Step::Again(5 * MS)
    }

    /// The same comparison beside a running standby.
    pub(super) fn parted(&mut self, node: usize, step: u32, from: &Upstream) -> Step {
        if step == 1 {
            return self.takes(node, 5, 300);
        }
        let Some(source) = self.source(node, from) else { return failed("the source does not answer") };
        match self.divergence(node, source) {
            Divergence::Diverged(why) => Step::Done(Err(TaskError::Hopeless(why))),
            Divergence::None | Divergence::Unknown(_) => Step::Done(Ok(())),
        }
    }

    fn divergence(&self, node: usize, source: usize) -> Divergence {
        let leader = self.nodes[source].disk.written.branch;
        let disk = &self.nodes[node].disk;
        compare(&self.local(disk), Timeline(self.wal.timeline(leader)), self.wal.history(leader).as_deref())
    }

    /// What a directory tells of its end.
    fn local(&self, disk: &Disk) -> Local {
        let standby = matches!(disk.state, State::InArchiveRecovery | State::ShutDownInRecovery);
        let own = self.wal.timeline(disk.written.branch);
        let (timeline, lsn) = if standby { (own, disk.replayed) } else { (disk.control_timeline, disk.checkpoint) };
        let end = (disk.state == State::ShutDown).then_some(Lsn(disk.checkpoint + RECORD));
        let mut branch = disk.written.branch;
        while self.wal.timeline(branch) != timeline
            && let Some(fork) = self.wal.parent(branch)
        {
            branch = fork.branch;
        }
        Local { timeline: Timeline(timeline), lsn: Lsn(lsn), end, standby, history: self.wal.history(branch) }
    }

    fn rewind_begins(&mut self, node: usize, source: Option<usize>) -> Step {
        let Some(source) = source else { return failed("the source is no primary") };
        let divergence = self.divergence(node, source);
        // pg_rewind itself recovers a crashed primary, which ends with a checkpoint on its own timeline.
        let disk = &mut self.nodes[node].disk;
        if disk.state == State::InProduction {
            disk.standby_signal = false;
            disk.write_checkpoint(&self.wal, State::ShutDown);
        }
        let (ours, theirs) = (&self.nodes[node].disk, &self.nodes[source].disk);
        if ours.control_timeline == theirs.control_timeline {
            // "No rewind required": it compares numbers. The agent knows better.
            let why = match divergence {
                Divergence::Diverged(why) | Divergence::Unknown(why) => why,
                Divergence::None => String::new(),
            };
            self.nodes[node].disk.health = Health::Broken;
            return Step::Done(Err(TaskError::Hopeless(why)));
        }
        self.wipe(node, "rewind");
        self.nodes[node].disk.health = Health::Broken;
        let server = self.nodes[source].server.incarnation;
        if let Some(run) = &mut self.nodes[node].task {
            run.source = server;
        }
        self.takes(node, 50, 3_000)
    }

    fn rewind_ends(&mut self, node: usize, source: usize) {
        let (ours, theirs) = (self.nodes[node].disk.written, self.nodes[source].disk.written);
        let theirs = Pos { lsn: self.nodes[source].disk.flushed, ..theirs };
        let common = self.wal.common(ours, theirs).unwrap_or(theirs);
        let (known, timeline) = (self.nodes[source].disk.known_timeline, self.nodes[source].disk.control_timeline);
        let disk = &mut self.nodes[node].disk;
        disk.health = Health::Intact;
        disk.written = common;
        disk.flushed = common.lsn;
        disk.replayed = common.lsn;
        disk.consistent = theirs.lsn;
        disk.state = State::InArchiveRecovery;
        disk.standby_signal = true;
        disk.control_timeline = timeline;
        disk.known_timeline = disk.known_timeline.max(known);
    }
}
