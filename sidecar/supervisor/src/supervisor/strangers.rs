//! Servers of somebody else's: found, taken up, and what counts as left of a server.

use std::collections::BTreeSet;
use std::io;

use matriarch_ha::fence::Role;
use matriarch_supervisor::protocol::{Notice, Postmaster, StartRole};

use super::{Running, Supervisor};
use crate::child::Kind;
use crate::{processes, sys};

impl Supervisor {
    /// Finds a server that a person started, and the end of one that was found.
    pub(super) fn watch(&mut self, now: u64) {
        match &mut self.running {
            Some(running) if !running.adopted => {
                self.watch.learn(running.pid(), now);
            }
            Some(running) if running.ended.is_none() && self.watch.due(now, true) => {
                if processes::start_ticks(running.pid()) != Some(running.postmaster.start_ticks) {
                    running.ended = Some((None, None));
                    if !self.none_left() {
                        let step = self.stopping.orphaned(true, now);
                        self.step(step);
                    }
                }
            }
            None if self.termination.is_none() && self.children.is_empty() && self.watch.due(now, false) => {
                if let Some(pid) = self.watch.find() {
                    self.adopt(pid, now);
                }
            }
            Some(_) | None => {}
        }
    }

    /// Whether there is anything to be looked for. (Tools run servers of their own for a moment.)
    pub(super) fn watches(&self) -> bool {
        match &self.running {
            Some(running) if running.adopted => running.ended.is_none(),
            Some(running) => running.executed && running.ended.is_none() && self.watch.folder().is_none(),
            None => self.termination.is_none() && self.children.is_empty() && self.watch.folder().is_some(),
        }
    }

    pub(super) fn adopt(&mut self, pid: i32, now: u64) {
        let (Some(start_ticks), Some(data_dir)) = (processes::start_ticks(pid), self.watch.folder()) else { return };
        let postmaster = Postmaster {
            pid: u32::try_from(pid).unwrap_or(0),
            start_ticks,
            // It is one, or may become one at any moment.
            role: StartRole::Primary,
            started_us: now,
        };
        self.log.line(&format!("postmaster {pid} was started by somebody else: the agent is told, and decides"));
        self.running = Some(Running {
            data_dir: data_dir.to_owned(),
            postmaster: postmaster.clone(),
            starter: None,
            executed: true,
            refusal: None,
            ended: None,
            stoppers: Vec::new(),
            adopted: true,
        });
        self.latch_adopted();
        self.notice(Notice::Adopted(postmaster));
    }

    /// A server of somebody else's falls under the fence as soon as there is a permit: before, the agent has not said that it may be.
    pub(super) fn latch_adopted(&mut self) {
        if self.running.as_ref().is_some_and(|running| running.adopted) && !self.fence.latched() {
            // Refused where the permit is over: then it is the agent's to stop it.
            let _ = self.fence.starting(Role::Primary, sys::now_us());
        }
    }

    /// The processes of tools and file operations: what is below them is theirs, all else is the postmaster's.
    pub(super) fn apart(&self) -> BTreeSet<i32> {
        self.children.values().filter(|child| child.kind != Kind::Postmaster).map(|child| child.pid).collect()
    }

    /// What is left of the postmaster: every descendant that is not of a tool or a file operation.
    pub(super) fn left(&self) -> io::Result<Vec<i32>> {
        if self.running.as_ref().is_some_and(|running| running.adopted) {
            return Ok(self.watch.processes());
        }
        let me = i32::try_from(std::process::id()).unwrap_or(1);
        Ok(processes::below(&processes::parents()?, me, &self.apart()))
    }

    /// Orphans are our children (subreaper), so a process of the postmaster's that is left is seen here, at least as a
    /// zombie. What cannot be seen is taken for running.
    pub(super) fn none_left(&self) -> bool {
        self.left().is_ok_and(|left| left.is_empty())
    }
}
