//! Switchovers and failovers that a person asks for over REST: checked, written to the failover object, answered when they are over.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, CALL_TIMEOUT_MS, Call, Core};
use crate::config::SyncMode;
use crate::effect::{Effect, Peer, Question, Reply};
use crate::event::PeerAnswer;
use crate::lease::Holder;
use crate::member::Member;
use crate::store::record::{Failover, RESULT, When};
use crate::types::{Boot, Wall};

/// A switchover asked for over REST is given up on after twice this or `loop_wait`, milliseconds.
const POLL_MS: u64 = 10_000;
/// A candidate that is asked whether it could lead says so within this, milliseconds.
const CANDIDATE_MS: u64 = 2_000;

impl Core {
    fn leader_name(&self, now: Boot) -> Option<String> {
        match self.holder(now) {
            Holder::Me => Some(self.id.name.clone()),
            Holder::Other { name, .. } => Some(name),
            _ => None,
        }
    }

    pub(super) fn switchover_asked(
        &mut self,
        now: Boot,
        id: u64,
        leader: Option<&str>,
        candidate: Option<String>,
        scheduled_at: Option<Wall>,
        effects: &mut Vec<Effect>,
    ) {
        let present = self.leader_name(now);
        if let Err((code, text)) = self.may_switch(present.as_deref(), leader, candidate.as_deref(), scheduled_at) {
            effects.push(Effect::Reply { id, reply: Reply::Text { code, text } });
            return;
        }
        // Everything may have changed by the time of a scheduled one: nobody is asked.
        let asking = if scheduled_at.is_some() {
            BTreeSet::new()
        } else {
            let sync = self.sync_state();
            let priority = self.config.sync_mode == SyncMode::Priority && leader.is_some();
            let listed = |name: &str| !priority || sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name));
            let candidates: Vec<Peer> = self
                .members
                .iter()
                .filter(|m| candidate.as_ref().map_or(Some(&m.name) != present.as_ref(), |c| *c == m.name))
                .filter(|m| m.name != self.id.name && !m.tags.nofailover && listed(&m.name))
                .filter_map(Member::peer)
                .collect();
            candidates.into_iter().map(|peer| self.ask_candidate(peer, effects)).collect()
        };
        let ourselves = candidate.as_ref() == Some(&self.id.name);
        let checked = ourselves || !asking.is_empty() || scheduled_at.is_some();
        self.switchover = Some(Asked {
            id,
            since: now,
            leader: present.unwrap_or_default(),
            candidate,
            scheduled_at,
            switchover: leader.map(str::to_owned),
            asking,
            written: false,
        });
        match &self.switchover {
            Some(asked) if asked.asking.is_empty() && checked => self.write_switchover(now, effects),
            Some(_) if !checked => self.no_candidate(effects),
            _ => {}
        }
    }

    fn ask_candidate(&mut self, peer: Peer, effects: &mut Vec<Effect>) -> u64 {
        let id = self.id();
        effects.push(Effect::Ask { id, peer, question: Question::Status, timeout_ms: CANDIDATE_MS });
        id
    }

    /// A candidate answered whether it could lead, or did not. False: it was not asked that.
    pub(super) fn candidate_answered(
        &mut self,
        now: Boot,
        id: u64,
        result: &Result<PeerAnswer, String>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(asked) = self.switchover.as_mut() else { return false };
        if !asked.asking.remove(&id) {
            return false;
        }
        let last = asked.asking.is_empty();
        if result.as_ref().is_ok_and(|answer| answer.running && !answer.nofailover) {
            asked.asking.clear();
            self.write_switchover(now, effects);
        } else if last {
            self.no_candidate(effects);
        }
        true
    }

    fn no_candidate(&mut self, effects: &mut Vec<Effect>) {
        if let Some(asked) = self.switchover.take() {
            let action = if asked.switchover.is_some() { "switchover" } else { "failover" };
            let text = format!("{action} is not possible: no good candidates have been found");
            effects.push(Effect::Reply { id: asked.id, reply: Reply::Text { code: 412, text } });
        }
    }

    fn write_switchover(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let Some(asked) = self.switchover.as_mut() else { return };
        asked.since = now;
        let annotations = BTreeMap::from([
            ("leader".to_owned(), asked.switchover.clone()),
            ("member".to_owned(), asked.candidate.clone()),
            ("scheduled_at".to_owned(), asked.scheduled_at.map(|at| at.to_string())),
            (RESULT.to_owned(), None),
        ]);
        let name = self.id.failover_object.clone();
        self.store_call(now, Call::Failover, name, annotations, effects);
    }

    /// Patroni's checks, in its order and words.
    fn may_switch(
        &self,
        present: Option<&str>,
        leader: Option<&str>,
        candidate: Option<&str>,
        scheduled_at: Option<Wall>,
    ) -> Result<(), (u16, String)> {
        let action = if leader.is_some() { "switchover" } else { "failover" };
        let refuse = |code: u16, text: &str| Err((code, text.to_owned()));
        if leader.is_none() && candidate.is_none() {
            return refuse(400, "Failover could be performed only to a specific candidate");
        }
        if self.config.pause && scheduled_at.is_some() {
            return refuse(400, "Can't schedule switchover in the paused state");
        }
        if self.config.pause && candidate.is_none() {
            return refuse(400, "Switchover is possible only to a specific candidate in a paused state");
        }
        if leader.is_some() && leader == candidate {
            return refuse(400, "Switchover target and source are the same");
        }
        if self.switchover.is_some() || self.in_flight(|c| matches!(c, Call::Failover | Call::Cancel(_))) {
            return refuse(503, &format!("another {action} is in progress"));
        }
        if scheduled_at.is_some() {
            return Ok(()); // everything may have changed by then
        }
        if leader.is_some() && leader != present {
            return refuse(412, "leader name does not match");
        }
        let sync = self.sync_state();
        let listed = |name: &str| sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name));
        let priority = self.config.sync_mode == SyncMode::Priority && leader.is_some();
        if let Some(name) = candidate {
            if priority && !listed(name) {
                return refuse(412, "candidate name does not match with sync_standby");
            }
            let Some(member) = self.members.iter().find(|m| m.name == name) else {
                return refuse(412, "candidate does not exists");
            };
            if member.tags.nofailover {
                return refuse(412, &format!("{action} is not possible: no good candidates have been found"));
            }
            return Ok(());
        }
        let others = || self.members.iter().filter(|m| Some(m.name.as_str()) != present);
        if priority && !others().any(|m| listed(&m.name)) {
            return refuse(412, &format!("{action} is not possible: can not find sync_standby"));
        }
        if others().next().is_none() {
            return refuse(412, &format!("{action} is not possible: cluster does not have members except leader"));
        }
        if others().all(|m| m.tags.nofailover || m.deleting) {
            return refuse(412, &format!("{action} is not possible: no good candidates have been found"));
        }
        Ok(())
    }

    /// `DELETE /switchover`
    pub(super) fn cancel_switchover(&mut self, now: Boot, id: u64, effects: &mut Vec<Effect>) {
        let refusal = match Failover::parse(self.locks.get(&self.id.failover_object)) {
            Some(Failover { when: When::At(_) | When::Unreadable(_), .. }) => None,
            _ => Some((404, "no switchover is scheduled")),
        };
        let busy = self.in_flight(|c| matches!(c, Call::Failover | Call::Cancel(_)));
        if let Some((code, text)) = refusal.or(busy.then_some((409, "the failover key is being written"))) {
            effects.push(Effect::Reply { id, reply: Reply::Text { code, text: text.to_owned() } });
            return;
        }
        let annotations = ["leader", "member", "scheduled_at", RESULT].map(|key| (key.to_owned(), None)).into();
        let name = self.id.failover_object.clone();
        self.store_call(now, Call::Cancel(id), name, annotations, effects);
    }

    pub(super) fn answer_switchover(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let Some(asked) = &self.switchover else { return };
        if !asked.asking.is_empty() {
            return; // each question ends within its time
        }
        let (noun, done, instead) = if asked.switchover.is_some() {
            ("Switchover", "Successfully switched over", "Switched over")
        } else {
            ("Failover", "Successfully failed over", "Failed over")
        };
        let present = self.leader_name(now);
        let object = self.locks.get(&self.id.failover_object);
        let (code, text) = match present {
            _ if asked.scheduled_at.is_some() && asked.written => (202, format!("{noun} scheduled")),
            Some(leader) if leader != asked.leader => match &asked.candidate {
                Some(candidate) if *candidate != leader => {
                    (200, format!("{instead} to \"{leader}\" instead of \"{candidate}\""))
                }
                _ => (200, format!("{done} to \"{leader}\"")),
            },
            Some(_) if asked.written && Failover::parse(object).is_none() => {
                let why = object.and_then(|o| o.annotations.get(RESULT)).cloned();
                (503, why.unwrap_or_else(|| format!("{noun} failed")))
            }
            _ if !asked.written && now.ms_since(asked.since) > 2 * CALL_TIMEOUT_MS => {
                (503, "failed to write failover key into DCS".to_owned())
            }
            _ if now.ms_since(asked.since) > 2 * POLL_MS.max(self.config.loop_wait_ms) => {
                (503, format!("{noun} status unknown"))
            }
            _ => return,
        };
        effects.push(Effect::Reply { id: asked.id, reply: Reply::Text { code, text } });
        self.switchover = None;
    }
}
