//! The postmaster: start, recovery, commits, promotion, stop, death.

use matriarch_ha::effect::ServerConfig;
use matriarch_ha::event::Event;
use matriarch_ha::mutants::{self, Mutant};
use matriarch_ha::quorum::SyncNames;

use super::event::ServerEv;
use super::node::{Pm, Server};
use super::setting::asks;
use super::{Ev, MS, S, World};
use crate::draw::For;
use crate::model::disk::{RECORD, State};
use crate::model::wal::Pos;
use crate::plan::Probe;

/// A standby that gets no answer from its sender any more gives up after this, and a primary on its standby.
const STREAM_TIMEOUT: u64 = 12 * S;

impl World {
    /// Spawns a postmaster.
    pub(super) fn spawn(&mut self, node: usize, primary: bool, config: ServerConfig) {
        let recovery = self.draws.log_uniform(For::Task, node, 5, 1_500) * MS;
        self.check_start(node);
        let n = &mut self.nodes[node];
        let recovery = recovery + n.slow_start_ms * MS;
        let receivers = n.server.receivers;
        n.server = Server::down(n.server.incarnation + 1, receivers);
        n.server.pm = Pm::Recovering;
        n.server.primary = primary;
        let clean = n.disk.state == State::ShutDown;
        let server = n.server.incarnation;
        self.load(node, config);
        self.tell(node, 100, Event::Started { pid: server });
        let after = if primary && !clean { recovery } else { recovery / 4 + 5 * MS };
        self.push(after, Ev::Server { node, server, what: ServerEv::Ready });
    }

    /// A configuration comes into force.
    pub(super) fn load(&mut self, node: usize, config: ServerConfig) {
        let n = &mut self.nodes[node];
        debug_assert!(n.server.pm != Pm::Down);
        let reconnect = n.server.config.upstream != config.upstream || n.server.pm == Pm::Recovering;
        if n.server.names_text != config.sync_names {
            n.server.names = SyncNames::parse(&config.sync_names);
            n.server.names_text.clone_from(&config.sync_names);
            self.line(|w| format!("  {} commits need {}", w.nodes[node].name, w.nodes[node].server.names_text));
            self.probe(Probe::NamesLoaded, node);
            if self.nodes[node].server.pm == Pm::Recovering {
                let server = &mut self.nodes[node].server;
                server.waits = asks(&server.names);
            } else {
                self.spread_setting(node);
            }
            self.check_names(node);
        }
        self.nodes[node].server.config = config;
        if reconnect {
            self.disconnect(node);
            self.connect_soon(node, 20);
        }
        self.release(node);
    }

    pub(super) fn server_event(&mut self, node: usize, server: u32, what: ServerEv) {
        let n = &self.nodes[node];
        if !n.up || n.server.incarnation != server || n.server.pm == Pm::Down {
            return;
        }
        match what {
            ServerEv::Ready => self.ready(node),
            ServerEv::Flushed(lsn) => self.flushed(node, lsn),
            ServerEv::Connect(receiver) => self.connect(node, receiver),
            ServerEv::Wal { receiver, pos, since } => self.wal_arrives(node, receiver, pos, since),
            ServerEv::StandbyFlushed { receiver, lsn } => self.standby_flushed(node, receiver, lsn),
            ServerEv::Report { from, receiver, lsn, since } => self.report(node, from, receiver, lsn, since),
            ServerEv::Promoted => self.promoted(node),
            ServerEv::Stopping => self.stopping(node),
            ServerEv::Reloaded(reload) => self.reloaded(node, reload),
            ServerEv::CheckpointerLoads => self.checkpointer_loads(node),
            ServerEv::SenderLoads { standby, receiver } => self.sender_loads(node, standby, receiver),
            ServerEv::Dead(fenced) => self.server_dies(node, fenced),
        }
    }

    fn ready(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.server.pm != Pm::Recovering {
            return;
        }
        let server = n.server.incarnation;
        let d = &mut n.disk;
        if n.server.primary {
            // End of recovery.
            d.flushed = d.written.lsn;
            let clean = d.state == State::ShutDown;
            d.state = State::InProduction;
            if !clean {
                d.write_checkpoint(&self.wal, State::InProduction);
            }
            let n = &mut self.nodes[node];
            n.disk.replayed = n.disk.written.lsn;
            n.server.pm = Pm::Up;
            self.line(|w| format!("  {} is primary on timeline {}", w.nodes[node].name, w.timeline(node)));
            self.check_writable(node);
        } else {
            d.state = State::InArchiveRecovery;
            d.flushed = d.written.lsn;
            d.replayed = d.written.lsn;
            if d.written.lsn < d.consistent {
                // More log is needed; a stream brings it.
                return self.push(100 * MS, Ev::Server { node, server, what: ServerEv::Ready });
            }
            n.server.pm = Pm::Up;
        }
        self.run_ends_when_up(node);
    }

    pub(crate) fn timeline(&self, node: usize) -> u32 {
        self.wal.timeline(self.nodes[node].disk.written.branch)
    }

    /// A commit of so many bytes. Its acknowledgement leaves when it may.
    pub(super) fn commit(&mut self, node: usize, bytes: u64) {
        let n = &mut self.nodes[node];
        let lsn = n.disk.append(bytes);
        n.server.waiting.push(lsn);
        self.flush_soon(node);
    }

    pub(super) fn flush_soon(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.server.flushing || n.disk.flushed >= n.disk.written.lsn {
            return;
        }
        n.server.flushing = true;
        let (server, lsn) = (n.server.incarnation, n.disk.written.lsn);
        let after = self.flush_time(node);
        self.push(after, Ev::Server { node, server, what: ServerEv::Flushed(lsn) });
    }

    pub(super) fn flush_time(&mut self, node: usize) -> u64 {
        self.delay(For::Flush, node, self.plan.config.flush_us) + self.nodes[node].slow_disk_ms * MS
    }

    fn flushed(&mut self, node: usize, lsn: u64) {
        let n = &mut self.nodes[node];
        n.server.flushing = false;
        n.disk.flushed = n.disk.flushed.max(lsn);
        n.disk.replayed = n.disk.flushed;
        self.pump(node);
        self.release(node);
        self.flush_soon(node);
    }

    /// Acknowledges every commit that is where the setting in force wants it.
    pub(super) fn release(&mut self, node: usize) {
        let n = &self.nodes[node];
        if n.server.waiting.is_empty() || !n.server.writable() {
            return;
        }
        let reached = self.reached(node);
        let n = &self.nodes[node];
        let branch = n.disk.written.branch;
        let n = &mut self.nodes[node];
        let done = n.server.waiting.iter().filter(|lsn| **lsn <= reached).count();
        for lsn in n.server.waiting.drain(..done).collect::<Vec<_>>() {
            self.acknowledged(node, Pos { branch, lsn });
        }
    }

    /// `pg_ctl promote` was heard.
    pub(super) fn promote(&mut self, node: usize) {
        let after = self.draws.log_uniform(For::Task, node, 10, 1_000) * MS;
        let n = &mut self.nodes[node];
        n.server.promoting = true;
        let server = n.server.incarnation;
        self.disconnect(node);
        self.push(after, Ev::Server { node, server, what: ServerEv::Promoted });
    }

    fn promoted(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if !n.server.promoting || n.server.pm != Pm::Up || n.server.dying {
            return;
        }
        n.server.promoting = false;
        n.server.primary = true;
        let d = &mut n.disk;
        d.flushed = d.written.lsn;
        let timeline = d.known_timeline.max(self.wal.timeline(d.written.branch)) + 1;
        let fork = d.written;
        let timeline = if mutants::on(Mutant::PromoteKeepsTimeline) { timeline - 1 } else { timeline };
        let branch = self.wal.fork(fork, timeline);
        d.written = Pos { branch, lsn: fork.lsn };
        d.append(RECORD);
        d.flushed = d.written.lsn;
        d.replayed = d.written.lsn;
        d.known_timeline = timeline;
        d.standby_signal = false;
        // pg_control keeps the old timeline until a checkpoint.
        d.state = State::InProduction;
        self.stats.failovers += 1;
        self.line(|w| format!("  {} promoted to timeline {timeline} at {}", w.nodes[node].name, fork.lsn));
        self.check_fork(node, branch, fork);
        self.check_writable(node);
        // Cascaded standbys go on with the new timeline, but for those that are beyond its beginning.
        let senders = &self.nodes[node].server.senders;
        let beyond: Vec<(usize, u32)> = senders
            .iter()
            .filter(|s| self.nodes[s.node].disk.written.lsn > fork.lsn)
            .map(|s| (s.node, s.receiver))
            .collect();
        for (standby, receiver) in beyond {
            self.nodes[node].server.senders.retain(|s| s.node != standby);
            self.upstream_lost(standby, receiver);
        }
        self.pump(node);
    }

    /// pg_ctl stop.
    pub(super) fn stop(&mut self, node: usize, immediate: bool) {
        let n = &mut self.nodes[node];
        if n.server.pm == Pm::Down || n.server.dying {
            return;
        }
        let server = n.server.incarnation;
        if immediate || n.server.pm == Pm::Recovering {
            n.server.dying = true;
            let after = self.draws.between(For::Process, node, 3, 60) * MS;
            return self.push(after, Ev::Server { node, server, what: ServerEv::Dead(false) });
        }
        if matches!(n.server.pm, Pm::Stopping(_)) {
            return;
        }
        // Sessions end; what waited is never acknowledged.
        n.server.waiting.clear();
        n.server.pm = Pm::Stopping(false);
        n.server.stop_since = self.now;
        let after = self.draws.between(For::Process, node, 5, 80) * MS;
        self.push(after, Ev::Server { node, server, what: ServerEv::Stopping });
    }

    fn stopping(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Pm::Stopping(written) = n.server.pm else { return };
        let server = n.server.incarnation;
        if !written {
            n.server.pm = Pm::Stopping(true);
            if n.server.primary {
                n.disk.write_checkpoint(&self.wal, State::ShutDown);
                self.pump(node);
            } else {
                n.disk.flushed = n.disk.written.lsn;
                n.disk.replayed = n.disk.written.lsn;
                n.disk.restartpoint(&self.wal);
                n.disk.state = State::ShutDownInRecovery;
            }
        }
        let n = &self.nodes[node];
        let behind = n.server.primary && n.server.senders.iter().any(|s| s.flush < n.disk.flushed);
        if behind && self.now - n.server.stop_since < 20 * S {
            return self.push(5 * MS, Ev::Server { node, server, what: ServerEv::Stopping });
        }
        self.server_dies(node, false);
    }

    /// Ends the postmaster now, and tells the agent.
    pub(crate) fn server_dies(&mut self, node: usize, fenced: bool) {
        if self.nodes[node].server.pm == Pm::Down {
            return;
        }
        let n = &self.nodes[node];
        let clean = matches!(n.server.pm, Pm::Stopping(true));
        let pid = n.server.incarnation;
        self.server_vanishes(node);
        self.nodes[node].supervisor.fence.exited();
        self.arm_fence(node);
        self.line(|w| {
            let how = if fenced {
                "fenced"
            } else if clean {
                "stopped"
            } else {
                "crashed"
            };
            format!("  {} postgres {how}", w.nodes[node].name)
        });
        let how = if clean { "exit code 0" } else { "signal 3" }.to_owned();
        self.tell(node, 300, Event::Exited { pid, how, clean, fenced });
        self.run_ends_when_down(node);
    }

    /// The processes are gone; nobody is told.
    pub(super) fn server_vanishes(&mut self, node: usize) {
        self.disconnect(node);
        if let Some((_, _, agent, id)) = self.nodes[node].server.reload.take() {
            let result = Err("the server ended".to_owned());
            self.push(200, Ev::Core { node, agent, event: Box::new(Event::Changed { id, result }) });
        }
        let n = &mut self.nodes[node];
        let receivers = n.server.receivers;
        let senders = std::mem::take(&mut n.server.senders);
        n.server = Server::down(n.server.incarnation, receivers);
        for sender in senders {
            self.upstream_lost(sender.node, sender.receiver);
        }
    }

    /// The stream has been silent for too long.
    pub(super) fn stream_timed_out(&self, since: u64) -> bool {
        self.now - since > STREAM_TIMEOUT
    }
}
