//! Requests to the API server and watches of it: each way takes its time, and each way can go wrong.

use std::rc::Rc;

use matriarch_ha::effect::StoreCall;
use matriarch_ha::event::{Event, Kind, Object, StoreError, StoreEvent};
use matriarch_ha::mutants::{self, Mutant};

use super::{Ev, MS, S, World};
use crate::draw::For;
use crate::plan::Probe;

/// A list may take so long, milliseconds; other calls say it themselves.
const LIST_TIMEOUT_MS: u64 = 3_000;
const CALL_TIMEOUT_MS: u64 = 1_000;
/// A request in flight when a link was cut arrives after the cut, within this, or not at all.
const RETRANSMITTED: u64 = 15 * S;
/// In place of an index: is what was held up still so?
const HELD: usize = usize::MAX;

/// A request, to its end.
pub(crate) struct Call {
    node: usize,
    agent: u32,
    /// The pod that sent it: another may have taken its place since.
    uid: Rc<str>,
    verb: Option<StoreCall>,
    result: Option<Reply>,
    answered: bool,
    sent: u64,
}

enum Reply {
    One(Result<Rc<Object>, StoreError>),
    List(Result<(Vec<Object>, String), StoreError>),
}

/// A watch.
pub(crate) struct Stream {
    node: usize,
    agent: u32,
    kind: Kind,
    /// Entries of the log up to here are scheduled.
    scheduled: usize,
    last_at: u64,
    open: bool,
    /// Delivered to nobody while the watch was mute or the link cut.
    held: Vec<usize>,
}

impl World {
    pub(super) fn request(&mut self, node: usize, call: StoreCall) {
        let timeout_ms = match &call {
            StoreCall::List { .. } => LIST_TIMEOUT_MS,
            StoreCall::Patch(patch) => patch.timeout_ms,
            _ => CALL_TIMEOUT_MS,
        };
        self.request_leaves(node, &call);
        self.written(node, &call);
        let index = self.calls.len();
        let agent = self.nodes[node].agent.incarnation;
        let uid = self.nodes[node].uid.as_str().into();
        self.calls.push(Call { node, agent, uid, verb: Some(call), result: None, answered: false, sent: self.now });
        let mut delay = self.delay(For::Api, node, self.plan.config.api_us) + self.faults.api_slow_ms * MS;
        if let Some((per_mille, longest)) = self.faults.api_late[self.nodes[node].member]
            && self.draws.chance(For::Api, node, per_mille)
        {
            delay += self.draws.between(For::Api, node, 0, longest);
        }
        self.push(delay, Ev::Request(index));
        self.push(timeout_ms * MS, Ev::CallTimeout(index));
    }

    fn request_leaves(&mut self, node: usize, call: &StoreCall) {
        if let StoreCall::Patch(patch) = call
            && patch.kind == Kind::Lock
            && patch.name == self.leader_object()
            && patch.annotations.contains_key("renewTime")
        {
            self.probe(Probe::RenewalSent, node);
        }
    }

    pub(super) fn request_arrives(&mut self, index: usize) {
        let (node, sent) = (self.calls[index].node, self.calls[index].sent);
        if !self.net.api(node) || !self.nodes[node].up {
            // TCP tries again for a while, whether or not somebody still waits for the answer.
            if self.now - sent < RETRANSMITTED && self.nodes[node].up {
                let again = self.draws.between(For::Api, node, 100, 1_500) * MS;
                self.push(again, Ev::Request(index));
            }
            return;
        }
        if self.faults.api_down > 0 {
            // Refused: the client knows at once.
            self.calls[index].result = Some(self.failed(index, StoreError::Unreachable("connection refused".into())));
            return self.answer(index);
        }
        if self.draws.chance(For::Api, node, self.faults.api_errors) {
            let error = if self.draws.chance(For::Api, node, 500) {
                StoreError::Status(429, "too many requests".into(), Some(1))
            } else {
                StoreError::Status(503, "etcdserver: leader changed".into(), None)
            };
            // etcd may have done it before its leader changed.
            if matches!(error, StoreError::Status(503, ..)) && self.draws.chance(For::Api, node, 500) {
                self.apply(index);
            }
            self.calls[index].result = Some(self.failed(index, error));
            return self.answer(index);
        }
        self.apply(index);
        if !self.draws.chance(For::Api, node, self.faults.api_lose) {
            self.answer(index);
        }
    }

    fn failed(&self, index: usize, error: StoreError) -> Reply {
        match self.calls[index].verb {
            Some(StoreCall::List { .. }) => Reply::List(Err(error)),
            _ => Reply::One(Err(error)),
        }
    }

    fn apply(&mut self, index: usize) {
        let node = self.calls[index].node;
        let Some(call) = self.calls[index].verb.take() else { return };
        let before = self.api.revision();
        let lock_before = self.lock_seen(&call);
        let reply = match &call {
            StoreCall::List { kind, .. } => Reply::List(Ok(self.api.list(*kind))),
            StoreCall::Get { kind, name, .. } => Reply::One(self.api.get(*kind, name)),
            StoreCall::Create { kind, name, annotations, owners, .. } => {
                let object = Object {
                    name: name.clone(),
                    annotations: annotations.clone(),
                    owners: owners.clone(),
                    ..Object::default()
                };
                Reply::One(self.api.create(*kind, object))
            }
            StoreCall::Patch(patch) => Reply::One(self.api.patch(patch)),
            StoreCall::Watch { .. } => return,
        };
        if self.api.revision() != before {
            let uid = self.calls[index].uid.clone();
            self.check_write(node, &uid, &call, lock_before);
            self.stored();
        }
        self.calls[index].result = Some(reply);
        self.calls[index].verb = Some(call);
    }

    fn answer(&mut self, index: usize) {
        let node = self.calls[index].node;
        let delay = self.delay(For::Api, node, self.plan.config.api_us) + self.faults.api_slow_ms * MS;
        self.push(delay, Ev::Answer(index));
    }

    pub(super) fn answer_arrives(&mut self, index: usize) {
        let node = self.calls[index].node;
        if !self.net.api(node) {
            if self.now - self.calls[index].sent < RETRANSMITTED {
                self.push(500 * MS, Ev::Answer(index));
            }
            return;
        }
        if let Some(reply) = self.calls[index].result.take() {
            self.deliver(index, reply);
        }
    }

    pub(super) fn call_times_out(&mut self, index: usize) {
        if !self.calls[index].answered {
            let reply = self.failed(index, StoreError::Unreachable("no answer in time".into()));
            self.deliver(index, reply);
        }
    }

    fn deliver(&mut self, index: usize, reply: Reply) {
        let call = &mut self.calls[index];
        if std::mem::replace(&mut call.answered, true) {
            return;
        }
        let (node, agent) = (call.node, call.agent);
        let Some(request) = &call.verb else { return };
        let event = match (request, reply) {
            (StoreCall::List { id, kind }, Reply::List(result)) => StoreEvent::Listed { id: *id, kind: *kind, result },
            (StoreCall::Get { id, .. } | StoreCall::Create { id, .. }, Reply::One(result)) => {
                StoreEvent::Done { id: *id, result: result.map(|o| (*o).clone()) }
            }
            (StoreCall::Patch(patch), Reply::One(result)) => {
                StoreEvent::Done { id: patch.id, result: result.map(|o| (*o).clone()) }
            }
            _ => return,
        };
        self.push(0, Ev::Core { node, agent, event: Box::new(Event::Store(event)) });
    }

    pub(super) fn watch(&mut self, node: usize, kind: Kind, resource_version: &str) {
        let from: u64 = resource_version.parse().unwrap_or(0);
        let agent = self.nodes[node].agent.incarnation;
        for stream in &mut self.streams {
            if stream.node == node && stream.kind == kind {
                stream.open = false;
            }
        }
        if from < self.api.floor {
            return self.tell(node, 2 * MS, Event::Store(StoreEvent::WatchEnded(kind, Some(StoreError::Gone))));
        }
        if !self.net.api(node) || self.faults.api_down > 0 {
            let error = StoreError::Unreachable("connection refused".into());
            return self.tell(node, 5 * MS, Event::Store(StoreEvent::WatchEnded(kind, Some(error))));
        }
        let scheduled = self.api.log.partition_point(|change| change.revision <= from);
        self.streams.push(Stream { node, agent, kind, scheduled, last_at: self.now, open: true, held: Vec::new() });
        self.stored();
    }

    /// The agent is gone, and its connections with it.
    pub(super) fn close_streams(&mut self, node: usize) {
        for stream in self.streams.iter_mut().filter(|s| s.node == node) {
            stream.open = false;
        }
    }

    /// Something was written: watches will say so.
    pub(crate) fn stored(&mut self) {
        let end = self.api.log.len();
        for stream in 0..self.streams.len() {
            let (open, from, node, kind) = {
                let s = &self.streams[stream];
                (s.open, s.scheduled, s.node, s.kind)
            };
            if !open || from == end {
                continue;
            }
            for index in from..end {
                if self.api.log[index].kind != kind {
                    continue;
                }
                let lag = self.faults.watch_lag_ms[self.nodes[node].member] * MS;
                let delay = self.delay(For::Watch, node, self.plan.config.watch_us) + lag;
                let at = (self.now + delay).max(self.streams[stream].last_at);
                self.streams[stream].last_at = at;
                self.push(at - self.now, Ev::Watch { stream, index });
            }
            self.streams[stream].scheduled = end;
        }
    }

    pub(super) fn watch_delivers(&mut self, stream: usize, index: usize) {
        if index == HELD {
            return self.watch_goes_on(stream);
        }
        let (node, agent, open) = {
            let s = &self.streams[stream];
            (s.node, s.agent, s.open)
        };
        if !open || self.nodes[node].agent.incarnation != agent {
            return;
        }
        let mute = self.faults.watch_mute[self.nodes[node].member] > 0;
        if mute || !self.net.api(node) || !self.streams[stream].held.is_empty() {
            // Kept in order: what comes after it waits as well.
            self.streams[stream].held.push(index);
            if self.streams[stream].held.len() == 1 {
                self.push(300 * MS, Ev::Watch { stream, index: HELD });
            }
            return;
        }
        if self.api.log[index].revision.is_multiple_of(4) && mutants::on(Mutant::WatchDropsEvents) {
            return;
        }
        let change = &self.api.log[index];
        let object = (*change.object).clone();
        let event = if change.deleted {
            StoreEvent::Deleted(change.kind, object)
        } else {
            StoreEvent::Applied(change.kind, object)
        };
        self.push(0, Ev::Core { node, agent, event: Box::new(Event::Store(event)) });
    }

    /// Looks whether a watch that was held up goes on.
    fn watch_goes_on(&mut self, stream: usize) {
        let (node, open) = (self.streams[stream].node, self.streams[stream].open);
        if !open {
            return;
        }
        let mute = self.faults.watch_mute[self.nodes[node].member] > 0;
        if mute || !self.net.api(node) {
            return self.push(300 * MS, Ev::Watch { stream, index: HELD });
        }
        for index in std::mem::take(&mut self.streams[stream].held) {
            self.watch_delivers(stream, index);
        }
    }

    pub(super) fn watch_ends(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        if !std::mem::replace(&mut s.open, false) {
            return;
        }
        let (node, agent, kind) = (s.node, s.agent, s.kind);
        let error = if self.draws.chance(For::Watch, node, 300) { None } else { Some(StoreError::Gone) };
        let error = if self.faults.api_down > 0 { Some(StoreError::Unreachable("refused".into())) } else { error };
        self.push(0, Ev::Core { node, agent, event: Box::new(Event::Store(StoreEvent::WatchEnded(kind, error))) });
    }

    /// All of them break, at slightly different times.
    pub(crate) fn end_watches(&mut self) {
        for stream in 0..self.streams.len() {
            if self.streams[stream].open {
                let after = self.draws.between(For::Watch, self.streams[stream].node, 0, 50) * MS;
                self.push(after, Ev::WatchEnd { stream });
            }
        }
    }
}
