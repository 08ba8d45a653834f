//! The leader lock as one member sees it: who holds it, until when, and how long our own tenure is confirmed.
//!
//! Expiry never compares clocks of two machines: an observer counts the ttl from the moment it saw the record change.
//! Our own deadline comes only from a *confirmed* write: an answer that it succeeded, or a read of the record that shows
//! one of our attempts. It counts from the moment that attempt was sent.

use serde::{Deserialize, Serialize};

use crate::mutants::{self, Mutant};
use crate::store::record::LockRecord;
use crate::types::{Boot, Wall};

/// Attempts remembered while their outcome is unknown.
const ATTEMPTS: usize = 16;

/// A write of the lock whose outcome may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    sent_at: Boot,
    renew_time: String,
    ttl_ms: u64,
    fence_ms: Option<u64>,
}

/// For how long the lock of a paused leader says that it may be writable, milliseconds: the bound after which its own fence stops a
/// paused primary that has not reached the store, and after which others may lead though nobody knows what became of it.
pub const PAUSE_FENCE_MS: u64 = 24 * 3_600_000;

/// What is known of the lock.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    record: Option<LockRecord>,
    resource_version: String,
    /// The ttl of the last record, which still counts when the object has vanished.
    last_ttl_ms: u64,
    /// When the holder last gave a sign of life, as we saw it; for an absent object: when we first saw it absent.
    changed_at: Boot,
    observed: bool,
    /// A sign of life was seen since then, not just a record.
    renewed: bool,
    /// Until when the supervisor permits a primary by the word of an agent before us.
    inherited: Option<Boot>,
    attempts: Vec<Attempt>,
    deadline: Option<Boot>,
    /// The same by the promises of all members, whatever the lock says.
    promised: Option<Boot>,
    lifted: Option<Boot>,
    confirmed: Option<Boot>,
}

/// Who may act on the lock now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// Never listed, so nothing is known.
    Unknown,
    /// This very pod.
    Me,
    /// Another pod, or one of our name that is not us; alive until `until` if it gives no sign of life.
    Other {
        /// Its name.
        name: String,
        /// When it expires for us.
        until: Boot,
    },
    /// Another pod whose ttl has passed, but whose fence was lifted for pause: it may be writable until `until`.
    Unfenced {
        /// Its name.
        name: String,
        /// When nothing of it can be writable any more.
        until: Boot,
    },
    /// Nobody: released, expired, or never held.
    Free {
        /// Taken away explicitly, not expired.
        released: bool,
        /// Since when.
        since: Boot,
    },
    /// The object is not there; free from then on.
    Absent {
        /// When it may be created by somebody else than the last holder.
        until: Boot,
    },
}

impl Lease {
    /// The store showed the lock object (or that there is none). Returns whether anything changed.
    pub fn observe(&mut self, now: Boot, record: Option<(LockRecord, &str)>, me: &Me<'_>) -> bool {
        let heartbeat = |r: &Option<LockRecord>| {
            r.as_ref().map(|r| {
                let (leader, acquired, ttl, renewed, transitions) = r.heartbeat();
                (leader.map(str::to_owned), acquired.to_owned(), ttl, renewed.to_owned(), transitions)
            })
        };
        let (new, resource_version) = match record {
            Some((record, version)) => (Some(record), version.to_owned()),
            None => (None, String::new()),
        };
        let changed = !self.observed || heartbeat(&self.record) != heartbeat(&new);
        if changed {
            self.changed_at = now;
        }
        self.renewed |= changed && self.observed && new.is_some();
        self.observed = true;
        if let Some(ttl_ms) = new.as_ref().and_then(|r| r.ttl_ms) {
            self.last_ttl_ms = ttl_ms;
        }
        self.record = new;
        self.resource_version = resource_version;
        self.confirm(now, me);
        changed
    }

    /// The store is listed anew: an object that was absent before, and is now, may have been there meanwhile.
    pub fn listed(&mut self, now: Boot) {
        if self.record.is_none() {
            self.changed_at = now;
        }
    }

    /// A write of ours is about to be sent.
    pub fn sending(&mut self, now: Boot, renew_time: Wall, ttl_ms: u64, fence_ms: Option<u64>) {
        if self.attempts.len() == ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(Attempt { sent_at: now, renew_time: renew_time.to_string(), ttl_ms, fence_ms });
        if self.deadline.is_some() && mutants::on(Mutant::UnknownOutcomeExtends) {
            self.extend(deadline(now, ttl_ms));
        }
    }

    /// An agent before us may have been given a longer tenure than we know of: the supervisor's permit says how long.
    pub fn inherit(&mut self, permitted: Boot) {
        self.inherited = Some(permitted);
    }

    /// The supervisor obeys a permit of ours: that of the agent before us counts no more.
    pub fn disinherit(&mut self) {
        self.inherited = None;
    }

    /// The holder, or one after it, has given a sign of life since we first saw the record.
    pub fn renewed(&self) -> bool {
        self.renewed
    }

    /// Which ttl to write where `ttl_ms` is configured: a write may be all that others see, so it never ends before the deadline
    /// that an earlier one has given us, or an agent before us. A shortened ttl comes into force as that deadline comes nearer. What
    /// an agent before us has given may be a lifted fence: `fence_ms`, which is written beside the ttl, covers it as well.
    pub fn ttl_to_write(&self, now: Boot, ttl_ms: u64, fence_ms: Option<u64>) -> u64 {
        if mutants::on(Mutant::ShorterTtlUnbound) {
            return ttl_ms;
        }
        let covers = |ttl: u64| {
            self.deadline().is_none_or(|given| deadline(now, ttl) >= given)
                && self.inherited.is_none_or(|given| deadline(now, ttl.max(fence_ms.unwrap_or_default())) >= given)
        };
        // A ttl is written in whole seconds.
        (ttl_ms..).step_by(1000).find(|ttl| covers(*ttl)).unwrap_or(ttl_ms)
    }

    /// All members promised, in answer to a failsafe call sent at `sent_at`, to leave the lock alone for a ttl.
    pub fn failsafe(&mut self, sent_at: Boot, ttl_ms: u64) {
        let until = deadline(sent_at, ttl_ms);
        self.promised = Some(self.promised.map_or(until, |p| p.max(until)));
    }

    /// Our tenure ends now: released, or given up.
    pub fn end(&mut self) {
        self.deadline = None;
        self.promised = None;
        self.lifted = None;
        self.confirmed = None;
        self.inherited = None;
        self.attempts.clear();
    }

    fn confirm(&mut self, now: Boot, me: &Me<'_>) {
        let Some(record) = &self.record else { return };
        if !mine(record, me) {
            if record.leader.is_some() {
                self.deadline = None;
                self.promised = None;
                self.lifted = None;
            }
            return;
        }
        let Some(at) = self.attempts.iter().position(|a| a.renew_time == record.renew_time) else { return };
        let attempt = self.attempts.drain(..=at).next_back();
        if let Some(Attempt { sent_at, ttl_ms, fence_ms, .. }) = attempt {
            let sent_at = if mutants::on(Mutant::DeadlineFromAnswer) { now } else { sent_at };
            self.lifted = fence_ms.map(|fence| deadline(sent_at, fence));
            self.confirmed = Some(self.confirmed.map_or(sent_at, |c| c.max(sent_at)));
            self.extend(deadline(sent_at, ttl_ms));
        }
    }

    fn extend(&mut self, deadline: Boot) {
        self.deadline = Some(self.deadline.map_or(deadline, |d| d.max(deadline)));
    }

    /// Until when our tenure is confirmed.
    pub fn deadline(&self) -> Option<Boot> {
        self.deadline.max(self.promised)
    }

    /// Until when our fence may be lifted: only while the stored lock says so to everybody.
    pub fn lifted(&self) -> Option<Boot> {
        self.lifted
    }

    /// When the last renewal was sent that is confirmed.
    pub fn confirmed(&self) -> Option<Boot> {
        self.confirmed
    }

    /// The record as last seen.
    pub fn record(&self) -> Option<&LockRecord> {
        self.record.as_ref()
    }

    /// For CAS.
    pub fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// When the record last changed for us.
    pub fn changed_at(&self) -> Boot {
        self.changed_at
    }

    /// Who may act on it now. `ttl_ms` is used where the record has none.
    pub fn holder(&self, now: Boot, me: &Me<'_>, ttl_ms: u64, initialized: bool) -> Holder {
        if !self.observed {
            return Holder::Unknown;
        }
        let Some(record) = &self.record else {
            let ttl_ms = ttl_ms.max(self.last_ttl_ms);
            let initialized = initialized && !mutants::on(Mutant::AbsentIsFree);
            let until = if initialized { self.changed_at.plus_ms(ttl_ms) } else { self.changed_at };
            return Holder::Absent { until };
        };
        let Some(leader) = &record.leader else {
            return Holder::Free { released: true, since: self.changed_at };
        };
        if mine(record, me) {
            return Holder::Me;
        }
        // The longer of what its holder wrote and what we are configured with: a shortened ttl must not surprise the holder.
        let written = record.ttl_ms.filter(|_| !mutants::on(Mutant::OwnTtl));
        let until = self.changed_at.plus_ms(written.unwrap_or(ttl_ms).max(ttl_ms));
        let fenced = record.fence_ms.map_or(until, |fence| until.max(self.changed_at.plus_ms(fence)));
        if now < until {
            Holder::Other { name: leader.clone(), until }
        } else if now < fenced {
            Holder::Unfenced { name: leader.clone(), until: fenced }
        } else {
            Holder::Free { released: false, since: until }
        }
    }
}

/// Who we are: a pod, not a name.
#[derive(Debug, Clone, Copy)]
pub struct Me<'a> {
    /// Member name.
    pub name: &'a str,
    /// Pod uid.
    pub uid: &'a str,
}

/// The record shows this very pod.
pub fn mine(record: &LockRecord, me: &Me<'_>) -> bool {
    let ours = record.holder_uid.as_deref() == Some(me.uid) || mutants::on(Mutant::HolderByName);
    record.leader.as_deref() == Some(me.name) && ours
}

/// Until when a primary may run whose lock was written with `ttl_ms` by a request sent at `sent_at`: a margin before anybody else
/// may take the lock.
pub fn deadline(sent_at: Boot, ttl_ms: u64) -> Boot {
    let ttl_us = ttl_ms.saturating_mul(1000);
    let margin = if mutants::on(Mutant::NoMargin) {
        0
    } else {
        crate::fence::margin(ttl_us, crate::fence::RHO_PPM, crate::fence::K_US)
    };
    Boot(sent_at.0.saturating_add(ttl_us).saturating_sub(margin))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Me<'static> = Me { name: "a", uid: "u1" };
    const TTL: u64 = 10_000;

    fn record(leader: &str, uid: &str, renew: &str) -> LockRecord {
        LockRecord {
            leader: Some(leader.into()),
            holder_uid: Some(uid.into()),
            ttl_ms: Some(TTL),
            renew_time: renew.into(),
            ..LockRecord::default()
        }
    }

    fn at(seconds: u64) -> Boot {
        Boot(seconds * 1_000_000)
    }

    #[test]
    fn the_ttl_counts_from_the_moment_the_record_was_seen_to_change() {
        let mut lease = Lease::default();
        lease.observe(at(100), Some((record("b", "u2", "T1"), "1")), &ME);
        lease.observe(at(105), Some((record("b", "u2", "T1"), "2")), &ME);
        assert!(matches!(lease.holder(at(109), &ME, TTL, true), Holder::Other { .. }));
        assert_eq!(lease.holder(at(110), &ME, TTL, true), Holder::Free { released: false, since: at(110) });
        lease.observe(at(111), Some((record("b", "u2", "T2"), "3")), &ME);
        assert!(matches!(lease.holder(at(120), &ME, TTL, true), Holder::Other { .. }));
    }

    #[test]
    fn our_name_on_another_pod_is_somebody_else() {
        let mut lease = Lease::default();
        lease.observe(at(0), Some((record("a", "u0", "T1"), "1")), &ME);
        assert!(matches!(lease.holder(at(9), &ME, TTL, true), Holder::Other { .. }));
        assert!(matches!(lease.holder(at(10), &ME, TTL, true), Holder::Free { released: false, .. }));
    }

    #[test]
    fn a_deadline_comes_from_a_confirmed_attempt_and_counts_from_its_sending() {
        let mut lease = Lease::default();
        lease.sending(at(100), Wall(1_000_000), TTL, None);
        assert_eq!(lease.deadline(), None);
        lease.sending(at(102), Wall(2_000_000), TTL, None);
        // A read shows the first attempt only: the second one's outcome is unknown and extends nothing.
        let first = Wall(1_000_000).to_string();
        lease.observe(at(103), Some((record("a", "u1", &first), "1")), &ME);
        assert_eq!(lease.deadline(), Some(deadline(at(100), TTL)));
        let second = Wall(2_000_000).to_string();
        lease.observe(at(104), Some((record("a", "u1", &second), "2")), &ME);
        assert_eq!(lease.deadline(), Some(deadline(at(102), TTL)));
    }

    #[test]
    fn a_shortened_ttl_never_ends_before_the_deadline_that_was_given() {
        let mut lease = Lease::default();
        lease.sending(at(100), Wall(1_000_000), 30_000, None);
        let first = Wall(1_000_000).to_string();
        lease.observe(at(100), Some((record("a", "u1", &first), "1")), &ME);
        let given = lease.deadline().unwrap();
        // Others count the ttl that is written last, from when they see it.
        for (seconds, written) in [(102, 28_000), (120, TTL), (130, TTL)] {
            let ttl = lease.ttl_to_write(at(seconds), TTL, None);
            assert_eq!(ttl, written, "at {seconds} s");
            assert!(deadline(at(seconds), ttl) >= given);
        }
        assert_eq!(lease.ttl_to_write(at(102), 60_000, None), 60_000);
    }

    #[test]
    fn a_shortened_ttl_covers_the_permit_of_an_agent_before_us() {
        let mut lease = Lease::default();
        // The former agent renewed with a ttl of 30 s: the supervisor lets the primary be until then, whatever we send it.
        lease.inherit(at(128));
        assert_eq!(lease.ttl_to_write(at(102), TTL, None), 28_000);
        assert_eq!(lease.ttl_to_write(at(120), TTL, None), TTL);
        // A lifted fence that is told covers it, and a permit of ours replaces it.
        assert_eq!(lease.ttl_to_write(at(102), TTL, Some(PAUSE_FENCE_MS)), TTL);
        assert_eq!(lease.ttl_to_write(at(102), TTL, Some(20_000)), 28_000);
        lease.disinherit();
        assert_eq!(lease.ttl_to_write(at(102), TTL, None), TTL);
        lease.inherit(at(128));
        lease.end();
        assert_eq!(lease.ttl_to_write(at(102), TTL, None), TTL);
    }

    #[test]
    fn a_record_is_no_sign_of_life_until_it_changes() {
        let mut lease = Lease::default();
        lease.observe(at(0), Some((record("b", "u2", "T1"), "1")), &ME);
        lease.observe(at(1), Some((record("b", "u2", "T1"), "2")), &ME);
        assert!(!lease.renewed());
        lease.observe(at(2), Some((record("b", "u2", "T2"), "3")), &ME);
        assert!(lease.renewed());
    }

    #[test]
    fn an_absence_that_may_have_been_interrupted_counts_anew() {
        let mut lease = Lease::default();
        lease.observe(at(5), None, &ME);
        lease.listed(at(14));
        lease.observe(at(14), None, &ME);
        assert_eq!(lease.holder(at(15), &ME, TTL, true), Holder::Absent { until: at(24) });
    }

    #[test]
    fn a_failsafe_promise_outlasts_renewals_in_doubt() {
        let mut lease = Lease::default();
        lease.sending(at(100), Wall(1_000_000), TTL, None);
        lease.observe(at(101), Some((record("a", "u1", &Wall(1_000_000).to_string()), "1")), &ME);
        lease.sending(at(102), Wall(2_000_000), TTL, None);
        lease.failsafe(at(107), TTL);
        lease.sending(at(108), Wall(3_000_000), TTL, None);
        assert_eq!(lease.deadline(), Some(deadline(at(107), TTL)));
    }

    #[test]
    fn another_holder_ends_our_tenure() {
        let mut lease = Lease::default();
        lease.sending(at(100), Wall(1_000_000), TTL, None);
        lease.observe(at(101), Some((record("a", "u1", &Wall(1_000_000).to_string()), "1")), &ME);
        lease.observe(at(102), Some((record("b", "u2", "T9"), "2")), &ME);
        assert_eq!(lease.deadline(), None);
    }

    #[test]
    fn a_lock_whose_fence_is_lifted_is_not_free_after_its_ttl() {
        let paused = LockRecord { fence_ms: Some(PAUSE_FENCE_MS), ..record("b", "u2", "T1") };
        let mut lease = Lease::default();
        lease.observe(at(0), Some((paused, "1")), &ME);
        assert!(matches!(lease.holder(at(9), &ME, TTL, true), Holder::Other { .. }));
        let until = Boot(PAUSE_FENCE_MS * 1000);
        assert_eq!(lease.holder(at(10), &ME, TTL, true), Holder::Unfenced { name: "b".into(), until });
        assert!(matches!(lease.holder(until, &ME, TTL, true), Holder::Free { released: false, .. }));
    }

    #[test]
    fn a_fence_is_lifted_only_by_a_confirmed_record_that_says_so() {
        let mut lease = Lease::default();
        lease.sending(at(100), Wall(1_000_000), TTL, None);
        lease.observe(at(101), Some((record("a", "u1", &Wall(1_000_000).to_string()), "1")), &ME);
        lease.sending(at(102), Wall(2_000_000), TTL, Some(PAUSE_FENCE_MS));
        assert_eq!(lease.lifted(), None);
        lease.observe(at(103), Some((record("a", "u1", &Wall(2_000_000).to_string()), "2")), &ME);
        assert_eq!(lease.lifted(), Some(deadline(at(102), PAUSE_FENCE_MS)));
        assert_eq!(lease.deadline(), Some(deadline(at(102), TTL)), "decisions count on the ttl alone");
        lease.sending(at(104), Wall(3_000_000), TTL, None);
        lease.observe(at(105), Some((record("a", "u1", &Wall(3_000_000).to_string()), "3")), &ME);
        assert_eq!(lease.lifted(), None);
    }

    #[test]
    fn an_absent_lock_is_not_a_free_lock() {
        let mut lease = Lease::default();
        assert_eq!(lease.holder(at(0), &ME, TTL, true), Holder::Unknown);
        lease.observe(at(5), None, &ME);
        assert_eq!(lease.holder(at(6), &ME, TTL, true), Holder::Absent { until: at(15) });
        assert_eq!(lease.holder(at(6), &ME, TTL, false), Holder::Absent { until: at(5) });
        // Its holder may still count the longer ttl that it wrote.
        let mut long = record("b", "u2", "T1");
        long.ttl_ms = Some(2 * TTL);
        lease.observe(at(7), Some((long, "1")), &ME);
        lease.observe(at(8), None, &ME);
        assert_eq!(lease.holder(at(9), &ME, TTL, true), Holder::Absent { until: at(28) });
    }
}
