//! S12: while a cluster follows another one, nobody of it becomes writable, and who was is stopped soon after its agent has read so.

use matriarch_ha::effect::Task;

use crate::queue::Time;
use crate::world::{S, World};

/// From the moment in which an undisturbed agent knows, to the stop of its primary: what is under way ends first.
const STOPS: u64 = 10 * S;

impl World {
    /// A long task was asked for.
    pub(crate) fn check_standby_task(&mut self, node: usize, task: &Task) {
        if self.source.is_none() || !matches!(task, Task::Promote { .. } | Task::StartPrimary { .. }) {
            return;
        }
        let n = &self.nodes[node];
        let boot = n.clock.boot(self.now);
        if n.agent.core.as_ref().is_some_and(|core| core.snapshot(boot).config.standby_cluster.is_some()) {
            let what = format!("{} of a standby cluster is to become a primary", n.name);
            self.check.fail(self.now, "S12", what);
        }
    }

    /// Once a second.
    pub(crate) fn check_standby(&mut self, node: usize) {
        if self.source.is_none() {
            return;
        }
        let n = &self.nodes[node];
        let disturbed = n.agent.stopped > 0 || n.agent.slow_ms > 0 || n.frozen > 0 || !n.up || n.agent.core.is_none();
        let knows = !disturbed && !n.outside && self.knows_standby(node);
        let since: Option<Time> = knows.then(|| n.knows_since.unwrap_or(self.now));
        self.nodes[node].knows_since = since;
        if let Some(since) = since
            && self.nodes[node].writable()
            && self.now - since > STOPS
        {
            let what = format!("{} is writable though it has known of the standby cluster", self.nodes[node].name);
            self.check.fail(self.now, "S12", what);
        }
    }
}
