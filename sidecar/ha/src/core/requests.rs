//! What peers and users ask over REST, and what peers answered.

use super::{ANSWER_MS, Core};
use crate::config::SyncMode;
use crate::effect::{Effect, Reply};
use crate::event::{DataDir, PeerAnswer, Request, ServerStatus};
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::snapshot::position;
use crate::types::{Boot, Lsn};

/// An election is answered without an ended stream after this, milliseconds.
const ELECTION_MS: u64 = 700;

impl Core {
    pub(super) fn peer_answered(
        &mut self,
        now: Boot,
        id: u64,
        member: String,
        result: Result<PeerAnswer, String>,
        effects: &mut Vec<Effect>,
    ) {
        if self.candidate_answered(now, id, &result, effects) {
            return;
        }
        if self.leader.id == Some(id) {
            self.leader_answered(now, result);
            return;
        }
        if let Some(name) = self.standbys_asked.remove(&id) {
            if let Ok(answer) = result {
                self.standby_answers.insert(name, answer);
            }
            return;
        }
        if let Some(round) = &mut self.round
            && (round.ids.remove(&id).is_some() || mutants::on(Mutant::StaleAnswers))
        {
            round.asked.insert(member, Some(result));
        }
    }

    fn leader_answered(&mut self, now: Boot, result: Result<PeerAnswer, String>) {
        // One that nobody asked for a while may have led meanwhile.
        let lately = now.ms_since(self.leader.answered) < ANSWER_MS;
        self.leader.late_since = match &result {
            Ok(answer) if answer.leads(self.config.standby_cluster.is_some()) => None,
            Ok(_) => self.leader.late_since.filter(|_| lately).or(Some(now)),
            Err(_) => self.leader.late_since.filter(|_| lately),
        };
        self.leader.id = None;
        self.leader.asked = now;
        self.leader.answered = now;
        self.leader.answer = Some(result);
    }

    pub(super) fn request(&mut self, now: Boot, id: u64, request: Request, effects: &mut Vec<Effect>) {
        match request {
            Request::Election { .. } => {
                self.elections.push((id, now));
                self.query_now = true;
                // While the holder lives for us its stream goes on: an election that comes early gets no vote.
                if self.lock_is_free(now) && !self.promised(now) && self.votes_are_asked() && self.stream_hold.is_none()
                {
                    self.stream_hold = Some(false);
                }
            }
            Request::Failsafe { leader, leader_uid, ttl_ms } => {
                let reply = self.failsafe_asked(now, &leader, &leader_uid, ttl_ms);
                effects.push(Effect::Reply { id, reply });
            }
            Request::Switchover { leader, candidate, scheduled_at } => {
                self.switchover_asked(now, id, leader.as_deref(), candidate, scheduled_at, effects);
            }
            Request::Restart(order) => self.restart_asked(now, id, order, effects),
            Request::CancelRestart => self.cancel_restart(id, effects),
            Request::Reinitialize { force, from_leader } => {
                self.reinitialize_asked(now, id, force, from_leader, effects);
            }
            Request::Snapshot => {
                let reply = Reply::Snapshot(Box::new(self.snapshot(now)));
                effects.push(Effect::Reply { id, reply });
            }
            Request::CancelSwitchover => self.cancel_switchover(now, id, effects),
            Request::PatchConfig(patch) => self.edit_asked(now, id, patch, false, effects),
            Request::ReplaceConfig(config) => self.edit_asked(now, id, config, true, effects),
        }
    }

    /// A commit may be acknowledged by us behind a candidate's back: not where every commit needs the candidate itself.
    pub(super) fn votes_are_asked(&self) -> bool {
        let state = self.sync_state();
        state.leader.is_some() && (self.config.sync_mode != SyncMode::Priority || state.quorum > 0)
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
            let ended = (status_sent >= *asked && hold != Some(false)) || mutants::on(Mutant::OldPositionVotes);
            !usable || ended || now.ms_since(*asked) >= ELECTION_MS
        });
        self.elections = open;
        for (id, _) in ready {
            effects.push(Effect::Reply { id, reply: Reply::Position(self.position(now)) });
        }
    }

    /// Whether a standby's position is all that it has: else its vote could elect somebody who lacks what only it holds.
    fn knows_its_end(&self, status: &ServerStatus) -> bool {
        !status.in_recovery || status.streaming || status.replay_waits || self.replay_rests
    }

    fn lock_is_free(&self, now: Boot) -> bool {
        !matches!(self.holder(now), Holder::Me | Holder::Other { .. } | Holder::Unknown)
    }

    fn promised(&self, now: Boot) -> bool {
        self.promised_until.is_some_and(|until| now < until)
    }

    fn position(&self, now: Boot) -> PeerAnswer {
        let absent = matches!(self.holder(now), Holder::Absent { until } if now < until);
        let mut answer = PeerAnswer {
            pod_uid: self.id.uid.clone(),
            free: self.lock_is_free(now) && !absent,
            promised: self.promised(now),
            ..PeerAnswer::default()
        };
        if let Some(status) = self.server.status.as_ref().filter(|status| self.knows_its_end(status)) {
            answer.running = self.server.running;
            answer.demoted = self.demoted();
            answer.nofailover = self.id.tags.nofailover;
            answer.failover_priority = self.id.tags.failover_priority;
            answer.primary = !status.in_recovery;
            answer.lsn = position(status);
            answer.timeline = status.timeline;
            answer.system_id.clone_from(&status.system_id);
            answer.stream_ended = self.stream_hold == Some(true) || mutants::on(Mutant::OldPositionVotes);
        }
        let data = self.server.running || matches!(self.server.dir, Some(DataDir::Present(_)));
        answer.starting = data && answer.lsn == Lsn(0) && !self.id.tags.nofailover;
        answer
    }
}
