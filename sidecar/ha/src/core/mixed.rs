//! With members that run Patroni in the cluster: what of our promises needs other means then (`docs/safety.md`).

use super::Core;
use crate::lease::Holder;
use crate::types::Boot;

impl Core {
    /// Other members that run Patroni, as far as they say what they are.
    pub(super) fn patroni_members(&self) -> usize {
        self.members.iter().filter(|member| member.name != self.id.name && member.runs_patroni()).count()
    }

    /// The fence may be lifted for pause: everybody heeds that the lock says so, which Patroni does not.
    pub(super) fn may_lift_fence(&self) -> bool {
        self.config.pause && self.patroni_members() == 0
    }

    /// A candidate that runs Patroni asks for a position and for nothing else. So the stream from the old primary, which may go on for
    /// all that we know, is ended before it gets one.
    pub(super) fn end_stream_for_patroni(&mut self, now: Boot) {
        if self.withholds_position(now) && self.stream_hold.is_none() {
            self.stream_hold = Some(false);
            self.query_now = true;
        }
    }

    /// Our position is a vote for whoever asks for it, and we may still acknowledge more behind its back.
    pub(super) fn withholds_position(&self, now: Boot) -> bool {
        let expired = matches!(self.holder(now), Holder::Free { released: false, .. });
        // Cut off from the store, or in failsafe mode, the leader may be as well as ever.
        let known = self.locks.fresh() && self.promised_until.is_none_or(|until| until <= now);
        let standby = self.server.status.as_ref().is_some_and(|status| status.in_recovery);
        expired
            && known
            && standby
            && self.stream_hold != Some(true)
            && self.votes_are_asked()
            && self.patroni_members() > 0
    }
}
