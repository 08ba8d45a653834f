//! L6: one fault in a calm cluster interrupts writes no longer than promised. What the models themselves take is added: a promotion
//! up to 1 s, a recovery up to 1.5 s, a container's restart up to 3 s.

use crate::plan::Fault;
use crate::world::{MS, Phase, S, World};

impl World {
    /// The acknowledgement of a commit leaves.
    pub(crate) fn answered(&mut self) {
        let since = self.check.answered.max(self.phase_since);
        if self.phase == Phase::Chaos {
            self.stats.outage = self.stats.outage.max(self.now - since);
        }
        self.check.answered = self.now;
    }

    /// The faults are over.
    pub(crate) fn check_outage(&mut self) {
        let Some(only) = self.only_fault() else { return };
        let ttl = self.config().ttl * S;
        let promised = match only {
            Fault::Switchover(_) => 300 * MS + S,
            Fault::PostmasterKill(_) => 1_500 * MS + 1_500 * MS,
            Fault::PodDelete(_) => 1_500 * MS + S,
            Fault::PodKill(_) | Fault::NodeCrash(_) | Fault::PodFreeze(_) => ttl + 2 * S + S,
            Fault::ContainerKill(_) => ttl.min(3 * S) + 1_500 * MS + 1_500 * MS,
            _ => return,
        };
        let outage = self.stats.outage.max(self.now - self.check.answered);
        if outage > promised {
            let what = format!("{only:?}: no write for {} ms, promised are {} ms", outage / MS, promised / MS);
            self.check.fail(self.now, "L6", what);
        }
    }
}
