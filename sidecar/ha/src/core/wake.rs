//! When the core wants to be woken if nothing happens: what is due that no event will tell.

use super::Core;
use super::duties::STARTING_QUERY_MS;
use crate::config::SyncMode;
use crate::lease::Holder;
use crate::snapshot::TaskKind;
use crate::store::record::{Failover, When};
use crate::types::Boot;

/// When a difference of the pod's description is looked at again, milliseconds.
const POD_LOOK_MS: u64 = 310;

impl Core {
    /// When something is due that no event will tell.
    pub(super) fn wake_at(&self, now: Boot) -> Boot {
        let busy = self.task.is_some()
            || !self.elections.is_empty()
            || self.stream_hold.is_some()
            || (self.server.running && self.server.status.is_none())
            || !matches!(self.holder(now), Holder::Me | Holder::Other { .. } | Holder::Unfenced { .. })
            || self.round.is_some()
            || self.task.as_ref().is_some_and(|(_, _, v)| v.kind == TaskKind::Promote)
            || self.server.retry_at > now
            || self.ending();
        let mut at = now.plus_ms(if busy { 100 } else { self.config.loop_wait_ms });
        if self.server.running && self.server.status.is_none() {
            at = at.min(now.plus_ms(STARTING_QUERY_MS));
        }
        let mut earliest = |t: Option<Boot>| {
            if let Some(t) = t.filter(|t| *t > now) {
                at = at.min(t);
            }
        };
        earliest(self.pod_differs_since.map(|since| since.plus_ms(POD_LOOK_MS)));
        if let Some(Failover { when: When::At(at), .. }) = Failover::parse(self.locks.get(&self.id.failover_object)) {
            let ms = u64::try_from(at.ms_since(self.wall)).unwrap_or(0);
            earliest(Some(now.plus_ms(ms.saturating_add(1))));
        }
        if let Some(at) = self.commands.due() {
            let ms = u64::try_from(at.ms_since(self.wall)).unwrap_or(0);
            earliest(Some(now.plus_ms(ms.saturating_add(1))));
        }
        earliest(self.locks.wake_at());
        earliest(self.pods.wake_at());
        earliest(self.lease.deadline());
        earliest(self.promised_until);
        match self.holder(now) {
            Holder::Me => {
                earliest(Some(self.lock_sent.plus_ms(self.config.loop_wait_ms)));
                self.retry_at.values().for_each(|at| earliest(Some(*at)));
                earliest(Some(self.queried_at.plus_ms(self.config.loop_wait_ms)));
                if self.lease.confirmed().is_none_or(|c| c < self.lock_sent) {
                    earliest(Some(now.plus_ms(200)));
                }
                if self.query_now || self.sync_unsteady() || self.sync_unknown() {
                    earliest(Some(now.plus_ms(100)));
                }
            }
            Holder::Other { until, .. } | Holder::Unfenced { until, .. } => earliest(Some(until)),
            _ => {}
        }
        at.max(Boot(now.0 + 1_000))
    }

    /// It has to be known since when the setting is in force.
    fn sync_unknown(&self) -> bool {
        let asked = self.config.sync_mode != SyncMode::Off || self.sync_state().leader.is_some();
        asked && self.sync.since.is_none() && self.server.status.is_some()
    }

    fn sync_unsteady(&self) -> bool {
        self.sync.wanted.as_ref().is_some_and(|w| Some(w.guc()) != self.sync.guc)
    }
}
