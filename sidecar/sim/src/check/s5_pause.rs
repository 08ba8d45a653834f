//! S5: in pause nothing is started, stopped, promoted or rewound but on a person's command.

use matriarch_ha::effect::Task;
use matriarch_ha::event::Kind;
use matriarch_ha::store::record::Failover;

use crate::world::{S, World};

/// An agent knows of the pause within this of its loop.
const LOOPS: u64 = 3;

impl World {
    pub(crate) fn check_task(&mut self, node: usize, task: &Task) {
        let Some(since) = self.check.paused_since else { return };
        let n = &self.nodes[node];
        let known = n.agent.view.as_ref().is_some_and(|view| view.paused);
        let settled = self.now - since > LOOPS * self.config().loop_wait * S;
        let commanded = Failover::parse(self.api.get(Kind::Lock, "x-failover").ok().as_deref()).is_some();
        let lately = self.check.commanded_at.is_some_and(|at| self.now - at < 60 * S);
        if known && settled && !commanded && !lately && !n.ordered && !n.deleting {
            let what = format!("{} in pause: {task:?}", n.name);
            self.check.fail(self.now, "S5", what.chars().take(120).collect());
        }
    }
}
