//! S9: the timelines of primaries never go back.

use crate::world::World;

impl World {
    /// A server began to take writes.
    pub(crate) fn check_writable(&mut self, node: usize) {
        self.check_permits(node);
        self.check_fenced(node);
        let timeline = self.timeline(node);
        if !self.permitted(node) {
            // Thawed in the middle of a promotion: the fence is on its way.
            return;
        }
        let highest = self.check.highest_timeline;
        if timeline < highest && !self.check.failover_by_hand && !self.check.paused && !self.check.clock_hell {
            let what = format!("{} is primary on timeline {timeline}, after {highest}", self.nodes[node].name);
            self.check.fail(self.now, "S9", what);
        }
        self.check.highest_timeline = highest.max(timeline);
    }

    /// What no transition shows.
    pub(crate) fn every_second(&mut self) {
        for node in 0..self.nodes.len() {
            self.check_fenced(node);
            self.check_awake(node);
            self.check_standby(node);
        }
    }
}
