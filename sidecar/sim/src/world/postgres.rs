//! What an agent may see of its PostgreSQL, and its short changes.

use matriarch_ha::effect::Change;
use matriarch_ha::event::{ControlData, DataDir, Event, QueryError, ServerStatus, StandbyStatus};
use matriarch_ha::history::Line;
use matriarch_ha::mutants::{self, Mutant};
use matriarch_ha::slots::SlotStatus;
use matriarch_ha::types::{Lsn, Timeline};

use super::event::ServerEv;
use super::node::Pm;
use super::setting::counts;
use super::{Ev, MS, World};
use crate::draw::For;
use crate::model::disk::Health;

impl World {
    fn answer_agent(&mut self, node: usize, agent: u32, after: u64, event: Event) {
        self.push(after, Ev::Core { node, agent, event: Box::new(event) });
    }

    pub(super) fn inspect(&mut self, node: usize, agent: u32, id: u64) {
        let disk = &self.nodes[node].disk;
        let found = match disk.health {
            Health::Empty => DataDir::Empty,
            Health::Broken if !mutants::on(Mutant::HalfRewoundStarts) => DataDir::Broken("half rewound".to_owned()),
            Health::Intact | Health::Broken => DataDir::Present(ControlData {
                system_id: self.wal.system(disk.written.branch).to_string(),
                state: disk.state.words().to_owned(),
                timeline: Timeline(disk.control_timeline),
                checkpoint: Lsn(disk.checkpoint),
                min_recovery: Lsn(disk.replayed),
                standby_signal: disk.standby_signal,
            }),
        };
        let after = self.draws.between(For::Query, node, 1, 8) * MS;
        self.answer_agent(node, agent, after, Event::Inspected { id, found });
    }

    /// The history file of the timeline that a server is on.
    pub(super) fn history(&mut self, node: usize, agent: u32, id: u64) {
        let mut lines = Vec::new();
        let mut branch = self.nodes[node].disk.written.branch;
        while let Some(fork) = self.wal.parent(branch) {
            lines.insert(
                0,
                Line {
                    timeline: Timeline(self.wal.timeline(fork.branch)),
                    lsn: Lsn(fork.lsn),
                    reason: "no recovery target specified".to_owned(),
                    at: None,
                    leader: None,
                },
            );
            branch = fork.branch;
        }
        self.answer_agent(node, agent, 2 * MS, Event::History { id, result: Ok(lines) });
    }

    pub(super) fn query(&mut self, node: usize, agent: u32, id: u64) {
        let n = &self.nodes[node];
        let result = match n.server.pm {
            _ if n.server.dying => Err(QueryError::Failed("the connection is closed".to_owned())),
            Pm::Down => Err(QueryError::Failed("connection refused".to_owned())),
            Pm::Recovering => Err(QueryError::Starting),
            Pm::Stopping(_) => Err(QueryError::Failed("the database system is shutting down".to_owned())),
            Pm::Up => Ok(self.status(node)),
        };
        let after = self.draws.between(For::Query, node, 200, 2_000);
        self.answer_agent(node, agent, after, Event::Queried { id, result });
    }

    fn status(&self, node: usize) -> ServerStatus {
        let n = &self.nodes[node];
        let (server, disk) = (&n.server, &n.disk);
        let streaming = server.receiver.is_some();
        // Without a receiver the names of the log's files tell.
        let timeline = self.timeline(node);
        let lsn = |primary: bool, lsn: u64| Lsn(if primary == server.primary { lsn } else { 0 });
        ServerStatus {
            in_recovery: !server.primary,
            system_id: self.wal.system(disk.written.branch).to_string(),
            timeline: Timeline(timeline),
            checkpoint_timeline: Timeline(disk.control_timeline),
            flush: lsn(true, disk.flushed),
            received: if streaming { lsn(false, disk.flushed) } else { Lsn(0) },
            replayed: lsn(false, disk.replayed),
            streaming,
            replay_waits: true,
            checkpointer_waits: !server.checkpointer_busy,
            sync_names: server.names_text.clone(),
            has_conninfo: server.config.upstream.is_some(),
            standbys: server
                .senders
                .iter()
                .map(|s| StandbyStatus {
                    member: s.member.clone(),
                    state: if s.streaming { "streaming" } else { "catchup" }.to_owned(),
                    sync_state: if counts(&s.names, &s.member) { "quorum" } else { "async" }.to_owned(),
                    flush: Lsn(s.flush),
                    ..StandbyStatus::default()
                })
                .collect(),
            slots: disk.slots.clone(),
            ..ServerStatus::default()
        }
    }

    pub(super) fn change(&mut self, node: usize, agent: u32, id: u64, change: Change) {
        let server = &self.nodes[node].server;
        let standby_starts = server.pm == Pm::Recovering && !server.primary && matches!(change, Change::Configure(_));
        let up = server.pm == Pm::Up || standby_starts;
        let result = if up { Ok(()) } else { Err("the server does not answer".to_owned()) };
        match change {
            Change::Configure(config) if up => {
                let server = &mut self.nodes[node].server;
                server.reloads += 1;
                let reload = server.reloads;
                server.reload = Some((reload, config, agent, id));
                let incarnation = server.incarnation;
                let after = self.draws.log_uniform(For::Query, node, 2, 200) * MS;
                let what = ServerEv::Reloaded(reload);
                return self.push(after, Ev::Server { node, server: incarnation, what });
            }
            Change::Checkpoint if up => {
                let n = &mut self.nodes[node];
                if n.server.primary {
                    n.disk.checkpoint = n.disk.written.lsn;
                    n.disk.append(crate::model::disk::RECORD);
                    n.disk.control_timeline = self.wal.timeline(n.disk.written.branch);
                    self.flush_soon(node);
                } else {
                    n.disk.restartpoint(&self.wal);
                }
            }
            Change::Slots(plan) if up => {
                // The model's slots hold no WAL: only that they are there counts.
                let disk = &mut self.nodes[node].disk;
                let lsn = Lsn(disk.written.lsn);
                disk.slots.retain(|slot| !plan.drop.contains(&slot.name));
                let made = plan.create.into_iter();
                disk.slots.extend(made.map(|(name, kind)| SlotStatus {
                    name,
                    kind,
                    active: false,
                    lsn,
                    failover: false,
                }));
                for (name, _, to) in plan.advance {
                    disk.slots.iter_mut().filter(|slot| slot.name == name).for_each(|slot| slot.lsn = to);
                }
            }
            _ => {}
        }
        let after = self.draws.between(For::Query, node, 5, 60) * MS;
        self.answer_agent(node, agent, after, Event::Changed { id, result });
    }

    /// A reload reaches every process. It was the agent that asked for it after it had written the files: one that died in
    /// between may not have come so far.
    pub(super) fn reloaded(&mut self, node: usize, reload: u32) {
        let n = &mut self.nodes[node];
        if n.server.reload.as_ref().is_none_or(|(number, ..)| *number != reload) {
            return;
        }
        let Some((_, config, agent, id)) = n.server.reload.take() else { return };
        if n.agent.incarnation != agent && self.draws.chance(For::Query, node, 500) {
            return;
        }
        self.load(node, config);
        let after = self.draws.between(For::Query, node, 1, 15) * MS;
        self.answer_agent(node, agent, after, Event::Changed { id, result: Ok(()) });
    }
}
