//! What peers and users ask over REST, and what peers answered.

use super::{Asked, CALL_TIMEOUT_MS, Call, Core};
use crate::config::SyncMode;
use crate::effect::{Effect, Patch, Reply, StoreCall};
use crate::event::{Kind, PeerAnswer, Request, ServerStatus};
use crate::lease::Holder;
use crate::snapshot::position;
use crate::store::record::{Failover, RESULT};
use crate::types::Boot;
use std::collections::BTreeMap;

/// An election is answered without an ended stream after this, milliseconds.
const ELECTION_MS: u64 = 700;
/// A switchover asked for over REST is given up on after this, milliseconds (Patroni: 2 × max(10, loop_wait) polls).
const SWITCHOVER_MS: u64 = 20_000;

impl Core {
    pub(super) fn peer_answered(&mut self, now: Boot, id: u64, member: String, result: Result<PeerAnswer, String>) {
        if self.leader.id == Some(id) {
            self.leader.id = None;
            self.leader.asked = now;
            self.leader.answered = now;
            self.leader.answer = Some(result);
            return;
        }
        if let Some(round) = &mut self.round
            && round.ids.remove(&id).is_some()
        {
            round.asked.insert(member, Some(result));
        }
    }

    pub(super) fn request(&mut self, now: Boot, id: u64, request: Request, effects: &mut Vec<Effect>) {
        match request {
            Request::Election { .. } => {
                self.elections.push((id, now));
                self.query_now = true;
                // While the holder lives for us its stream goes on: an election that comes early gets no vote.
                let free = matches!(self.holder(now), Holder::Free { .. } | Holder::Absent { .. });
                if free && self.config.sync_mode == SyncMode::Quorum && self.stream_hold.is_none() {
                    self.stream_hold = Some(false);
                }
            }
            Request::Failsafe { leader, leader_uid } => {
                let reply = self.failsafe_asked(now, &leader, &leader_uid);
                effects.push(Effect::Reply { id, reply });
            }
            Request::Switchover { leader, candidate } => {
                self.switchover_asked(now, id, leader.as_deref(), candidate, effects);
            }
        }
    }

    /// A query sent at `sent`, after the change to no upstream, shows no WAL receiver.
    pub(super) fn stream_ended(&mut self, sent: Boot, status: &ServerStatus) {
        self.status_sent = sent;
        if self.stream_hold == Some(false) && !status.streaming && self.server.upstream == Some(None) {
            self.stream_hold = Some(true);
        }
    }

    pub(super) fn answer_requests(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        self.answer_elections(now, effects);
        self.answer_switchover(now, effects);
    }

    fn answer_elections(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let (status_sent, hold) = (self.status_sent, self.stream_hold);
        let usable = self.server.running && self.server.status.is_some();
        let (ready, open): (Vec<_>, Vec<_>) = self.elections.drain(..).partition(|(_, asked)| {
            !usable || (status_sent >= *asked && hold != Some(false)) || now.ms_since(*asked) >= ELECTION_MS
        });
        self.elections = open;
        for (id, _) in ready {
            effects.push(Effect::Reply { id, reply: Reply::Position(self.position()) });
        }
    }

    fn position(&self) -> PeerAnswer {
        let mut answer = PeerAnswer { pod_uid: self.id.uid.clone(), ..PeerAnswer::default() };
        if let Some(status) = &self.server.status {
            answer.running = self.server.running;
            answer.nofailover = self.id.tags.nofailover;
            answer.failover_priority = self.id.tags.failover_priority;
            answer.primary = !status.in_recovery;
            answer.lsn = position(status);
            answer.timeline = status.timeline;
            answer.system_id.clone_from(&status.system_id);
            answer.stream_ended = self.stream_hold == Some(true);
        }
        answer
    }

    fn leader_name(&self, now: Boot) -> Option<String> {
        match self.holder(now) {
            Holder::Me => Some(self.id.name.clone()),
            Holder::Other { name, .. } => Some(name),
            _ => None,
        }
    }

    fn switchover_asked(
        &mut self,
        now: Boot,
        id: u64,
        leader: Option<&str>,
        candidate: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let mut refuse = |code: u16, text: &str| {
            effects.push(Effect::Reply { id, reply: Reply::Text { code, text: text.to_owned() } });
        };
        let present = self.leader_name(now);
        if leader.is_none() && candidate.is_none() {
            return refuse(400, "Failover could be performed only to a specific candidate");
        }
        if leader.is_some() && leader == candidate.as_deref() {
            return refuse(400, "Switchover target and source are the same");
        }
        if leader.is_some() && leader != present.as_deref() {
            return refuse(412, "leader name does not match");
        }
        if let Some(name) = &candidate
            && self.pods.get(name).is_none()
        {
            return refuse(412, "candidate does not exists");
        }
        if leader.is_some() && self.pods.all().count() < 2 {
            return refuse(412, "switchover is not possible: cluster does not have members except leader");
        }
        if self.switchover.is_some() || self.in_flight(|c| matches!(c, Call::Failover)) {
            return refuse(503, "another switchover is in progress");
        }
        let call = self.id();
        self.calls.insert(call, (now.plus_ms(CALL_TIMEOUT_MS), Call::Failover));
        let name = self.id.failover_object.clone();
        let annotations: BTreeMap<String, Option<String>> = BTreeMap::from([
            ("leader".to_owned(), leader.map(str::to_owned)),
            ("member".to_owned(), candidate.clone()),
            ("scheduled_at".to_owned(), None),
            (RESULT.to_owned(), None),
        ]);
        self.switchover =
            Some(Asked { id, since: now, leader: present.unwrap_or_default(), candidate, written: false });
        effects.push(Effect::Store(match self.locks.get(&name) {
            Some(object) => StoreCall::Patch(Patch {
                id: call,
                kind: Kind::Lock,
                resource_version: Some(object.resource_version.clone()),
                name,
                annotations,
                labels: BTreeMap::new(),
                addresses: None,
                timeout_ms: CALL_TIMEOUT_MS,
            }),
            None => StoreCall::Create {
                id: call,
                kind: Kind::Lock,
                name,
                annotations: annotations.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
                owners: self.owners.clone(),
            },
        }));
    }

    fn answer_switchover(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let Some(asked) = &self.switchover else { return };
        let present = self.leader_name(now);
        let object = self.locks.get(&self.id.failover_object);
        let (code, text) = match present {
            Some(leader) if leader != asked.leader => match &asked.candidate {
                Some(candidate) if *candidate != leader => {
                    (200, format!("Switched over to \"{leader}\" instead of \"{candidate}\""))
                }
                _ => (200, format!("Successfully switched over to \"{leader}\"")),
            },
            Some(_) if asked.written && Failover::parse(object).is_none() => {
                let why = object.and_then(|o| o.annotations.get(RESULT)).cloned();
                (503, why.unwrap_or_else(|| "Switchover failed".to_owned()))
            }
            _ if !asked.written && now.ms_since(asked.since) > 2 * CALL_TIMEOUT_MS => {
                (503, "failed to write failover key into DCS".to_owned())
            }
            _ if now.ms_since(asked.since) > SWITCHOVER_MS => (503, "Switchover status unknown".to_owned()),
            _ => return,
        };
        effects.push(Effect::Reply { id: asked.id, reply: Reply::Text { code, text } });
        self.switchover = None;
    }
}
