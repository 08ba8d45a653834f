//! Questions between members, over links that may be cut one way.

use matriarch_ha::effect::{Peer, Question, Reply};
use matriarch_ha::event::{Event, PeerAnswer, Request};

use super::event::Answer;
use super::{Ev, MS, World};
use crate::draw::For;
use crate::plan::Probe;

/// A question, to its end.
pub(crate) struct Ask {
    node: usize,
    agent: u32,
    id: u64,
    ip: String,
    member: String,
    question: Question,
    done: bool,
    /// Who was asked, once it arrived.
    at: Option<usize>,
}

/// Ids of requests in the peer's core: above all that its driver makes itself.
const REQUESTS: u64 = 1 << 40;

impl World {
    pub(super) fn ask(&mut self, node: usize, id: u64, peer: Peer, question: Question, timeout_ms: u64) {
        match &question {
            Question::Election { .. } => self.probe(Probe::RoundOpened, node),
            Question::Failsafe { .. } => self.probe(Probe::FailsafeSent, node),
            Question::Status => {}
        }
        let index = self.asks.len();
        let agent = self.nodes[node].agent.incarnation;
        let (ip, member) = (peer.ip, peer.member);
        self.asks.push(Ask { node, agent, id, ip, member, question, done: false, at: None });
        let delay = self.delay(For::Peer, node, 3 * self.plan.config.peer_us);
        self.push(delay, Ev::AskArrives(index));
        self.push(timeout_ms * MS, Ev::AskTimeout(index));
    }

    pub(super) fn ask_arrives(&mut self, index: usize) {
        let from = self.asks[index].node;
        let target = self.nodes.iter().position(|n| n.ip == self.asks[index].ip && n.up);
        let Some(to) = target.filter(|to| self.linked(from, *to)) else { return };
        self.asks[index].at = Some(to);
        if self.nodes[to].agent.core.is_none() {
            // The host is there, but nobody listens.
            return self.answer_ask(index, to, Answer::Refused);
        }
        if self.asks[index].question == Question::Status {
            // Answered from the published view, by an agent that runs.
            if self.nodes[to].agent.stopped > 0 || self.nodes[to].frozen > 0 {
                return;
            }
            let answer = Answer::Position(self.status_of(to));
            return self.answer_ask(index, to, answer);
        }
        let request = match &self.asks[index].question {
            Question::Election { candidate } => Request::Election { candidate: candidate.clone() },
            Question::Failsafe { leader, leader_uid, ttl_ms } => {
                Request::Failsafe { leader: leader.clone(), leader_uid: leader_uid.clone(), ttl_ms: *ttl_ms }
            }
            Question::Status => return,
        };
        self.tell(to, 50, Event::Request { id: REQUESTS + index as u64, request });
    }

    fn status_of(&self, node: usize) -> PeerAnswer {
        let n = &self.nodes[node];
        let Some(view) = &n.agent.view else { return PeerAnswer::default() };
        let mut answer = PeerAnswer { pod_uid: view.pod_uid.clone(), ..PeerAnswer::default() };
        if let Some(server) = view.server.as_ref().filter(|_| view.state == "running") {
            answer.running = true;
            answer.primary = view.role == "primary";
            answer.lsn = if server.in_recovery { server.received.max(server.replayed) } else { server.flush };
            answer.timeline = server.timeline;
            answer.system_id.clone_from(&server.system_id);
        }
        answer
    }

    /// What a core replies to a request.
    pub(super) fn reply(&mut self, node: usize, id: u64, reply: Reply) {
        let Some(index) = id.checked_sub(REQUESTS).and_then(|i| usize::try_from(i).ok()) else { return };
        if index >= self.asks.len() {
            return;
        }
        let answer = match reply {
            Reply::Snapshot(_) | Reply::Document(_) => return,
            Reply::Position(position) => Answer::Position(position),
            Reply::Text { code: 200, text } if text == "Accepted" => Answer::Failsafe(Ok(())),
            Reply::Text { text, .. } => Answer::Failsafe(Err(text)),
        };
        self.answer_ask(index, node, answer);
    }

    fn answer_ask(&mut self, index: usize, from: usize, answer: Answer) {
        let delay = self.delay(For::Peer, from, self.plan.config.peer_us);
        self.push(delay, Ev::AskAnswered { ask: index, answer: Box::new(answer) });
    }

    pub(super) fn ask_answered(&mut self, index: usize, answer: Answer) {
        let (from, to) = (self.asks[index].node, self.asks[index].at);
        if to.is_some_and(|to| !self.linked(to, from)) {
            return;
        }
        match answer {
            Answer::Position(position) => self.end_ask(index, Ok(position)),
            Answer::Failsafe(Ok(())) => self.end_ask(index, Ok(PeerAnswer::default())),
            Answer::Failsafe(Err(why)) => self.end_ask(index, Err(why)),
            Answer::Refused => self.end_ask(index, Err("connection refused".to_owned())),
        }
    }

    pub(super) fn ask_times_out(&mut self, index: usize) {
        self.end_ask(index, Err("silent".to_owned()));
    }

    fn end_ask(&mut self, index: usize, result: Result<PeerAnswer, String>) {
        let ask = &mut self.asks[index];
        if std::mem::replace(&mut ask.done, true) {
            return;
        }
        let (node, agent, id, member) = (ask.node, ask.agent, ask.id, ask.member.clone());
        let event = match ask.question {
            Question::Failsafe { .. } => Event::FailsafeAnswer { id, member, result: result.map(drop) },
            _ => Event::Peer { id, member, result },
        };
        self.push(0, Ev::Core { node, agent, event: Box::new(event) });
    }
}
