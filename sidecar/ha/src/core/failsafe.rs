//! Failsafe: while the API server is away, a primary goes on as long as every member promises to leave the lock alone. Both sides.

use std::collections::{BTreeMap, BTreeSet};

use super::{Core, FailsafeRound};
use crate::effect::{Effect, Question, Reply};
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::types::Boot;

/// After which a member counts as silent in a failsafe round, milliseconds.
const FAILSAFE_TIMEOUT_MS: u64 = 1_000;

impl Core {
    /// The API server is away: all members of the topology are asked to leave the lock alone.
    pub(super) fn failsafe_round(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        // A paused primary goes on by itself, as its fence is lifted.
        if self.may_lift_fence() || !self.config.failsafe_mode || self.holder(now) != Holder::Me || !self.server.latched
        {
            return;
        }
        let Some(confirmed) = self.lease.confirmed() else { return };
        if now.ms_since(confirmed) < self.config.retry_timeout_ms + self.config.loop_wait_ms {
            if self.lease.confirmed() >= Some(self.lock_sent) {
                self.failsafe_active = false;
                self.failsafe = None;
            }
            return;
        }
        let Some(topology) = self.lease.record().map(|r| r.failsafe.clone()) else { return };
        if !topology.contains_key(&self.id.name) {
            return;
        }
        match &self.failsafe {
            Some(round) if now.ms_since(round.sent) < FAILSAFE_TIMEOUT_MS + 500 => return,
            _ if now.ms_since(self.failsafe_tried) < self.config.loop_wait_ms.min(1_000) => return,
            _ => {}
        }
        self.failsafe_tried = now;
        let members = self.members.clone();
        // The shorter of what is stored and what is configured: a member that does not read it here (Patroni) counts one of them.
        let ttl_ms =
            self.lease.record().and_then(|r| r.ttl_ms).map_or(self.config.ttl_ms, |t| t.min(self.config.ttl_ms));
        let mut round = FailsafeRound { sent: now, ttl_ms, open: BTreeMap::new() };
        let own = self.id.name.clone();
        // A write without answer may have named others: who is in a stored topology may lead when nobody asks it.
        let asked: BTreeSet<String> = topology.into_keys().chain(self.topology_sent.iter().cloned()).collect();
        for name in asked.iter().filter(|n| **n != own) {
            let Some(peer) = members.iter().find(|m| m.name == *name).and_then(crate::member::Member::peer) else {
                // A member that nobody can ask has not agreed.
                self.failsafe = None;
                self.failsafe_active = false;
                return;
            };
            let id = self.id();
            round.open.insert(id, name.clone());
            let (leader, leader_uid) = (self.id.name.clone(), self.id.uid.clone());
            let question = Question::Failsafe { leader, leader_uid, ttl_ms };
            effects.push(Effect::Ask { id, peer, question, timeout_ms: FAILSAFE_TIMEOUT_MS });
        }
        if round.open.is_empty() {
            self.failsafe_complete(now, ttl_ms);
        } else {
            self.failsafe = Some(round);
        }
    }

    pub(super) fn failsafe_answered(&mut self, now: Boot, id: u64, member: &str, result: Result<(), String>) {
        let Some(round) = &mut self.failsafe else { return };
        if round.open.remove(&id).is_none() {
            return;
        }
        match result {
            Ok(()) if round.open.is_empty() => {
                let (sent, ttl_ms) = (round.sent, round.ttl_ms);
                let sent = if mutants::on(Mutant::FailsafeFromAnswer) { now.plus_ms(1_500) } else { sent };
                self.failsafe_complete(sent, ttl_ms);
            }
            Ok(()) => {}
            Err(_) if mutants::on(Mutant::FailsafeMajority) => {
                if round.open.is_empty() {
                    let (sent, ttl_ms) = (round.sent, round.ttl_ms);
                    self.failsafe_complete(sent, ttl_ms);
                }
            }
            Err(why) => {
                self.server.last_error = Some(format!("failsafe: {member}: {why}"));
                self.failsafe = None;
                self.failsafe_active = false;
                self.failsafe_tried = now;
            }
        }
    }

    pub(super) fn failsafe_complete(&mut self, sent: Boot, ttl_ms: u64) {
        self.failsafe = None;
        self.failsafe_active = true;
        if self.holder(sent) == Holder::Me {
            self.lease.failsafe(sent, ttl_ms);
        }
    }

    /// To promise is safe only if no write of the lock of ours can still land.
    pub(super) fn failsafe_asked(&mut self, now: Boot, leader: &str, leader_uid: &str, ttl_ms: u64) -> Reply {
        if !self.config.failsafe_mode {
            return Reply::Text { code: 502, text: "failsafe_mode is not enabled".into() };
        }
        let primary = self.server.latched || self.server.status.as_ref().is_some_and(|s| !s.in_recovery);
        if primary || self.holder(now) == Holder::Me || self.lock_write_in_flight() {
            return Reply::Text { code: 500, text: "Running as a leader".into() };
        }
        let record = self.lease.record();
        let other = record.is_some_and(|r| {
            r.leader.as_deref() != Some(leader)
                || r.holder_uid.as_deref().is_some_and(|uid| !leader_uid.is_empty() && uid != leader_uid)
        });
        if other {
            let text = format!("{leader} does not have the lock for us");
            return Reply::Text { code: 500, text };
        }
        // Not shorter than the leader counts on, whatever of a changed ttl we have heard; and no earlier promise is shortened.
        let stored = record.and_then(|r| r.ttl_ms).unwrap_or(0);
        let until = now.plus_ms(ttl_ms.max(stored).max(self.config.ttl_ms));
        let until = if mutants::on(Mutant::PromiseTooShort) { now.plus_ms(self.config.loop_wait_ms) } else { until };
        if !mutants::on(Mutant::PromiseForgotten) {
            self.promised_until = self.promised_until.max(Some(until));
        }
        Reply::Text { code: 200, text: "Accepted".into() }
    }
}
