//! S11: a quiet cluster costs the API server one write for each renewal, and followers write nothing.

use matriarch_ha::effect::StoreCall;

use crate::world::{MS, Phase, S, World};

/// What was begun before may still be written.
const SETTLES: u64 = 10 * S;
/// What failed in the time of faults is tried again later: so many tasks begin the silence anew, and those that cascade from a server
/// which was restarted for it take their time to be back with it.
const TRIED_AGAIN: u32 = 2;
const BACK_AGAIN: u64 = 30 * S;

impl World {
    /// A write leaves.
    pub(crate) fn written(&mut self, node: usize, call: &StoreCall) {
        let name = match call {
            StoreCall::Patch(patch) => &patch.name,
            StoreCall::Create { name, .. } => name,
            _ => return,
        };
        if self.phase == Phase::Quiet {
            self.nodes[node].agent.writes.push(name.clone());
        }
    }

    /// A long task begins.
    pub(crate) fn task_in_silence(&mut self) {
        if self.phase == Phase::Quiet && self.check.tried_again < TRIED_AGAIN {
            self.check.tried_again += 1;
            self.phase_since = self.now;
        }
    }

    /// Once a second, while nothing is asked of the cluster but to take writes.
    pub(crate) fn quiet_second(&mut self) {
        let since = self.now - self.phase_since;
        let settles = if self.check.tried_again == 0 { SETTLES } else { BACK_AGAIN };
        if since <= settles {
            for node in &mut self.nodes {
                node.agent.writes.clear();
            }
            return;
        }
        let Some(leader) = self.leader() else {
            return self.check.fail(self.now, "L5", "the leader of a quiet cluster is gone".to_owned());
        };
        let renewals = (since - settles) / (self.config().loop_wait * S) + 1;
        let wrote = (0..self.nodes.len()).find(|node| {
            // Each may say once that its state has changed.
            let allowed = if *node == leader { renewals } else { 0 } + 1;
            self.nodes[*node].agent.writes.len() as u64 > allowed
        });
        if let Some(node) = wrote {
            let n = &self.nodes[node];
            let what =
                format!("{} wrote {} in {} ms of silence", n.name, n.agent.writes.join(", "), (since - settles) / MS);
            self.check.fail(self.now, "S11", what);
        }
        if since >= settles + self.config().quiet_ms * MS {
            self.enter(Phase::Done);
        }
    }
}
