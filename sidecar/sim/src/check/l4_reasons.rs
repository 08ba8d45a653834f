//! L4: whatever a member does or waits for, it says why, and it has a timer that looks at it again.

use crate::world::{S, World};

/// Longest time to the first verdict of an agent that runs.
const FIRST: u64 = 5 * S;
/// A timer that is so much overdue was lost.
const OVERDUE: u64 = 2 * S;
/// No timer is set further ahead.
const LONGEST: u64 = 60 * S;

impl World {
    /// A verdict was given.
    pub(crate) fn check_reason(&mut self, node: usize, rule: &str, reason: &str) {
        if reason.trim().is_empty() {
            let what = format!("{} gives no reason for {rule}", self.nodes[node].name);
            self.check.fail(self.now, "L4", what);
        }
    }

    /// Once a second, of every agent that runs undisturbed.
    pub(crate) fn check_awake(&mut self, node: usize) {
        let n = &self.nodes[node];
        let disturbed = n.agent.stopped > 0 || n.agent.slow_ms > 0 || n.frozen > 0 || !n.up || self.check.clock_hell;
        if n.agent.core.is_none() || disturbed || self.now < n.agent.since.max(n.thawed_at) + FIRST {
            return;
        }
        let why = if n.agent.rule.is_empty() {
            "has said nothing since it started"
        } else if n.agent.wakes + OVERDUE < self.now && self.now > n.agent.busy_until + FIRST {
            "has no timer"
        } else if n.agent.wakes > self.now + LONGEST {
            "sleeps too long"
        } else {
            return;
        };
        let what = format!("{} {why} (rule {})", n.name, n.agent.rule);
        self.check.fail(self.now, "L4", what);
    }
}
