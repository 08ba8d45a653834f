//! Streaming replication: the handshake as blind as PostgreSQL's, batches of WAL, reports of what is flushed.

use super::event::ServerEv;
use super::node::{Pm, Receiver, Sender};
use super::{Ev, MS, World};
use crate::draw::For;
use crate::model::wal::Pos;

impl World {
    /// A standby with an upstream tries to connect, a little later.
    pub(super) fn connect_soon(&mut self, node: usize, ms: u64) {
        let n = &mut self.nodes[node];
        if n.server.primary || n.server.config.upstream.is_none() || n.server.pm == Pm::Down {
            return;
        }
        n.server.receivers += 1;
        let (server, receiver) = (n.server.incarnation, n.server.receivers);
        let after = self.draws.between(For::Stream, node, ms, ms * 5) * MS;
        self.push(after, Ev::Server { node, server, what: ServerEv::Connect(receiver) });
    }

    /// Ends the stream of a standby.
    pub(super) fn disconnect(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.server.receivers += 1;
        let Some(receiver) = n.server.receiver.take() else { return };
        if self.linked(node, receiver.upstream) {
            self.nodes[receiver.upstream].server.senders.retain(|s| s.node != node || s.receiver != receiver.id);
            self.release(receiver.upstream);
        }
    }

    /// The upstream closed the stream.
    pub(super) fn upstream_lost(&mut self, node: usize, receiver: u32) {
        let n = &mut self.nodes[node];
        if n.server.receiver.as_ref().is_some_and(|r| r.id == receiver) {
            n.server.receiver = None;
            self.connect_soon(node, 100);
        }
    }

    pub(super) fn connect(&mut self, node: usize, receiver: u32) {
        let n = &self.nodes[node];
        if n.server.receivers != receiver || n.server.promoting || matches!(n.server.pm, Pm::Stopping(_)) {
            return;
        }
        let Some(upstream) = &n.server.config.upstream else { return };
        let target = self.server_at(upstream);
        let Some(up) = target.filter(|up| self.linked(node, *up)) else { return self.connect_soon(node, 300) };
        if self.nodes[up].server.pm != Pm::Up || !self.may_stream(node, up) {
            return self.connect_soon(node, 200);
        }
        let at = self.nodes[node].disk.written;
        let source = Pos { branch: self.nodes[up].disk.written.branch, lsn: self.nodes[up].disk.written.lsn };
        self.check_stream(node, up, source, at);
        let member = self.nodes[node].name.clone();
        let upstream_server = self.nodes[up].server.incarnation;
        let n = &mut self.nodes[node];
        n.server.receiver = Some(Receiver { id: receiver, upstream: up, upstream_server, flushing: false });
        // A standby fetches the history files of the timelines that it does not know.
        n.disk.known_timeline = n.disk.known_timeline.max(self.wal.timeline(source.branch));
        let sender = Sender {
            node,
            receiver,
            member,
            names: self.nodes[up].server.names.clone(),
            streaming: false,
            sent: at.lsn.min(self.nodes[up].disk.flushed),
            flush: at.lsn.min(self.nodes[up].disk.flushed),
            in_flight: false,
            lost_since: None,
        };
        let senders = &mut self.nodes[up].server.senders;
        senders.retain(|s| s.node != node);
        senders.push(sender);
        self.pump(up);
        self.caught_up(up);
        self.release(up);
    }

    /// wal_sender_timeout: streams whose standby went without a word end after a while.
    pub(crate) fn end_lost_streams(&mut self) {
        for up in 0..self.nodes.len() {
            let mut senders = std::mem::take(&mut self.nodes[up].server.senders);
            for sender in &mut senders {
                let alive = self.nodes[sender.node].server.receiver.as_ref().is_some_and(|r| r.id == sender.receiver);
                sender.lost_since = if alive { None } else { Some(sender.lost_since.unwrap_or(self.now)) };
            }
            senders.retain(|s| s.lost_since.is_none_or(|since| !self.stream_timed_out(since)));
            self.nodes[up].server.senders = senders;
            self.release(up);
        }
    }

    /// What PostgreSQL checks: the system identifier, timeline numbers, and positions by number.
    fn may_stream(&self, node: usize, up: usize) -> bool {
        let (standby, upstream) = (&self.nodes[node].disk, &self.nodes[up].disk);
        if self.wal.system(standby.written.branch) != self.wal.system(upstream.written.branch) {
            return false;
        }
        let (ours, theirs) = (self.wal.timeline(standby.written.branch), self.wal.timeline(upstream.written.branch));
        if theirs < ours {
            return false;
        }
        match self.wal.switchpoint(upstream.written.branch, ours) {
            None => false,
            Some(end) if theirs == ours => end == u64::MAX,
            Some(end) => standby.written.lsn <= end,
        }
    }

    /// Sends what is flushed to every standby that has nothing on its way.
    pub(super) fn pump(&mut self, up: usize) {
        let n = &self.nodes[up];
        let end = Pos { branch: n.disk.written.branch, lsn: n.disk.flushed };
        for index in 0..self.nodes[up].server.senders.len() {
            let sender = &mut self.nodes[up].server.senders[index];
            if sender.in_flight || sender.sent >= end.lsn {
                continue;
            }
            let (node, receiver) = (sender.node, sender.receiver);
            sender.in_flight = true;
            sender.sent = end.lsn;
            let after = self.delay(For::Stream, node, self.plan.config.peer_us);
            let server = self.nodes[node].server.incarnation;
            let what = ServerEv::Wal { receiver, pos: end, since: self.now };
            self.push(after, Ev::Server { node, server, what });
        }
    }

    pub(super) fn wal_arrives(&mut self, node: usize, receiver: u32, pos: Pos, since: u64) {
        let n = &self.nodes[node];
        let Some(r) = n.server.receiver.clone().filter(|r| r.id == receiver) else { return };
        let server = n.server.incarnation;
        if !self.linked(r.upstream, node) || n.stuck_stream > 0 {
            if self.stream_timed_out(since) {
                // wal_receiver_timeout here, wal_sender_timeout there.
                self.nodes[r.upstream].server.senders.retain(|s| s.node != node || s.receiver != receiver);
                self.upstream_lost(node, receiver);
                return self.release(r.upstream);
            }
            let again = ServerEv::Wal { receiver, pos, since };
            return self.push(100 * MS, Ev::Server { node, server, what: again });
        }
        let up = &mut self.nodes[r.upstream];
        if up.server.incarnation == r.upstream_server
            && let Some(sender) = up.server.senders.iter_mut().find(|s| s.node == node && s.receiver == receiver)
        {
            sender.in_flight = false;
        }
        let at = self.nodes[node].disk.written;
        self.check_stream(node, r.upstream, pos, at);
        let disk = &mut self.nodes[node].disk;
        let switches = disk.written.branch != pos.branch;
        if pos.lsn >= disk.written.lsn {
            disk.written = pos;
        }
        if switches {
            self.leave_behind(node);
        }
        self.pump(r.upstream);
        self.standby_flush(node);
    }

    /// A standby that others cascade from goes on with a new timeline: those that are beyond its beginning do not follow.
    fn leave_behind(&mut self, node: usize) {
        let senders = &self.nodes[node].server.senders;
        let beyond: Vec<(usize, u32)> =
            senders.iter().filter(|s| !self.may_stream(s.node, node)).map(|s| (s.node, s.receiver)).collect();
        for (standby, receiver) in beyond {
            self.nodes[node].server.senders.retain(|s| s.node != standby);
            self.upstream_lost(standby, receiver);
        }
    }

    fn standby_flush(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let (server, lsn) = (n.server.incarnation, n.disk.written.lsn);
        let Some(r) = n.server.receiver.as_mut().filter(|r| !r.flushing) else { return };
        r.flushing = true;
        let receiver = r.id;
        let after = self.flush_time(node);
        self.push(after, Ev::Server { node, server, what: ServerEv::StandbyFlushed { receiver, lsn } });
    }

    pub(super) fn standby_flushed(&mut self, node: usize, receiver: u32, lsn: u64) {
        let n = &mut self.nodes[node];
        n.disk.flushed = n.disk.flushed.max(lsn);
        n.disk.replayed = n.disk.flushed;
        let more = n.disk.written.lsn > n.disk.flushed;
        let Some(r) = n.server.receiver.as_mut().filter(|r| r.id == receiver) else {
            // A receiver flushes all that it was given before it ends (`WalRcvDie`).
            if more {
                let (server, lsn) = (n.server.incarnation, n.disk.written.lsn);
                let after = self.flush_time(node);
                self.push(after, Ev::Server { node, server, what: ServerEv::StandbyFlushed { receiver, lsn } });
            }
            return;
        };
        r.flushing = false;
        let (up, server) = (r.upstream, r.upstream_server);
        let after = self.delay(For::Stream, node, self.plan.config.peer_us);
        let what = ServerEv::Report { from: node, receiver, lsn, since: self.now };
        self.push(after, Ev::Server { node: up, server, what });
        if more {
            self.standby_flush(node);
        }
        // Those that cascade from it get what it has.
        self.pump(node);
    }

    pub(super) fn report(&mut self, up: usize, from: usize, receiver: u32, lsn: u64, since: u64) {
        if !self.linked(from, up) {
            if !self.stream_timed_out(since) {
                let server = self.nodes[up].server.incarnation;
                let what = ServerEv::Report { from, receiver, lsn, since };
                self.push(100 * MS, Ev::Server { node: up, server, what });
            }
            return;
        }
        let Some(sender) = self.nodes[up].server.senders.iter_mut().find(|s| s.node == from && s.receiver == receiver)
        else {
            return;
        };
        sender.flush = sender.flush.max(lsn);
        self.caught_up(up);
        self.release(up);
    }

    /// A standby that has everything goes from catchup to streaming.
    fn caught_up(&mut self, up: usize) {
        let flushed = self.nodes[up].disk.flushed;
        for sender in &mut self.nodes[up].server.senders {
            // The last batch may still be on its way.
            if !sender.streaming && sender.flush + 4096 >= flushed {
                sender.streaming = true;
            }
        }
    }
}
