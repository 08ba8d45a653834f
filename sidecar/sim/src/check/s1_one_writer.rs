//! S1: never two writable primaries. S1a: the permits of two members are never valid at the same true time. S1b: whoever is
//! writable has a permit, or had one within K of the time in which it ran. S1c: no commit is acknowledged that a branch made
//! before does not contain.

use matriarch_ha::fence::{K_US, Permit};

use crate::model::wal::Pos;
use crate::world::{Pm, World};

impl World {
    pub(crate) fn permitted(&self, node: usize) -> bool {
        let n = &self.nodes[node];
        // With its shutdown checkpoint written, a primary cannot write any more, whatever it may.
        let ended = n.server.pm == Pm::Stopping(true);
        if !n.up || !n.supervisor.up || !n.supervisor.fence.latched() || ended {
            return false;
        }
        match n.supervisor.fence.granted() {
            Permit::Never => false,
            Permit::Until(at) => n.clock.boot(self.now).0 < at,
            Permit::Lifted => false,
        }
    }

    /// S1a, whenever a permit grows or a latch is set.
    pub(crate) fn check_permits(&mut self, node: usize) {
        if self.check.clock_hell || self.check.paused || !self.permitted(node) {
            return;
        }
        if let Some(other) = (0..self.nodes.len()).find(|other| *other != node && self.permitted(*other)) {
            let what =
                format!("{} ({node}) and {} ({other}) may both write", self.nodes[node].name, self.nodes[other].name);
            self.check.fail(self.now, "S1a", what);
        }
    }

    /// S1b.
    pub(crate) fn check_fenced(&mut self, node: usize) {
        let n = &self.nodes[node];
        if !n.writable() || n.outside || self.check.clock_hell {
            return;
        }
        let boot = n.clock.boot(self.now).0;
        let ended = match n.supervisor.fence.granted() {
            Permit::Lifted => return,
            Permit::Until(at) if boot < at => return,
            Permit::Until(at) => boot - at,
            Permit::Never => u64::MAX,
        };
        let running = self.now - n.thawed_at;
        // K is a time of the holder's own clock; a little is left for its drift.
        if ended > K_US + K_US / 500 && running > K_US {
            let what = format!("{} is writable {} ms after its permit", n.name, ended / 1000);
            self.check.fail(self.now, "S1b", what);
        }
    }

    /// S1c.
    pub(crate) fn check_overtaken(&mut self, node: usize, pos: Pos, protected: bool) {
        let n = &self.nodes[node];
        if (self.check.clock_hell || self.check.paused || self.now - n.thawed_at <= K_US) && !protected {
            return;
        }
        let end = |branch| Pos { branch, lsn: u64::MAX };
        let overtaken = self.wal.ids().find(|branch| {
            *branch > pos.branch && self.check.rightful(*branch) && !self.wal.contains(end(*branch), pos)
        });
        if let Some(branch) = overtaken {
            let what = format!(
                "{} acknowledges {} on timeline {} although timeline {} was made without it",
                n.name,
                pos.lsn,
                self.wal.timeline(pos.branch),
                self.wal.timeline(branch)
            );
            self.check.fail(self.now, "S1c", what);
        }
    }
}
