//! Who acts on which `synchronous_standby_names`: sessions, walsenders and the checkpointer load it one after the other.

use matriarch_ha::mutants::{self, Mutant};
use matriarch_ha::quorum::SyncNames;

use super::event::ServerEv;
use super::{Ev, MS, World};
use crate::draw::For;

/// Whether the setting makes commits wait.
pub(crate) fn asks(names: &SyncNames) -> bool {
    names.n > 0 && !names.names.is_empty()
}

/// Whether a walsender for this standby acts by the setting: others acknowledge nothing.
pub(crate) fn counts(names: &SyncNames, member: &str) -> bool {
    asks(names) && (names.is_star() || names.names.iter().any(|name| name == member))
}

impl World {
    /// A running server was told of another setting: new processes have it, the others load it as they come to it.
    pub(super) fn spread_setting(&mut self, node: usize) {
        let server = self.nodes[node].server.incarnation;
        // In the middle of the flushes of a checkpoint the checkpointer looks at nothing else.
        let calm = self.config().calm;
        let busy = self.draws.chance(For::Reload, node, 50) && !calm;
        let after = if busy {
            self.draws.between(For::Reload, node, 300, 4_000)
        } else {
            self.draws.log_uniform(For::Reload, node, 1, 150)
        };
        self.nodes[node].server.checkpointer_busy = busy;
        self.push(after * MS, Ev::Server { node, server, what: ServerEv::CheckpointerLoads });
        for index in 0..self.nodes[node].server.senders.len() {
            let sender = &self.nodes[node].server.senders[index];
            let receiver = (sender.node, sender.receiver);
            // One that is held up for long shows that it counts its standby by another setting.
            let shows = counts(&sender.names, &sender.member) != counts(&self.nodes[node].server.names, &sender.member);
            let after = if shows && self.draws.chance(For::Reload, node, 50) && !calm {
                self.draws.between(For::Reload, node, 300, 4_000)
            } else {
                self.draws.log_uniform(For::Reload, node, 1, 150)
            };
            let what = ServerEv::SenderLoads { standby: receiver.0, receiver: receiver.1 };
            self.push(after * MS, Ev::Server { node, server, what });
        }
    }

    /// The checkpointer tells sessions whether their commits wait at all; when they need not any more, it wakes those that do.
    pub(super) fn checkpointer_loads(&mut self, node: usize) {
        let server = &mut self.nodes[node].server;
        server.checkpointer_busy = false;
        server.waits = asks(&server.names);
        self.check_names(node);
        self.release(node);
    }

    pub(super) fn sender_loads(&mut self, node: usize, standby: usize, receiver: u32) {
        let server = &mut self.nodes[node].server;
        let names = server.names.clone();
        if let Some(sender) = server.senders.iter_mut().find(|s| s.node == standby && s.receiver == receiver) {
            sender.names = names;
        }
        self.check_names(node);
        self.release(node);
    }

    /// Every process has loaded what a session shows.
    #[cfg(test)]
    pub(crate) fn loaded_everywhere(&self, node: usize) -> bool {
        let server = &self.nodes[node].server;
        server.waits == asks(&server.names) && server.senders.iter().all(|s| s.names == server.names)
    }

    /// Up to where commits are where the settings want them: that of any walsender that acts.
    pub(super) fn reached(&self, node: usize) -> u64 {
        let server = &self.nodes[node].server;
        let flushed = self.nodes[node].disk.flushed;
        if !server.waits {
            return flushed;
        }
        let acting = server.senders.iter().filter(|s| s.streaming && counts(&s.names, &s.member));
        let by = |names: &SyncNames| {
            let standbys = server.senders.iter().filter(|s| s.streaming && counts(names, &s.member));
            let mut positions: Vec<u64> =
                standbys.map(|s| if mutants::on(Mutant::AckBeforeFlush) { s.sent } else { s.flush }).collect();
            positions.sort_unstable_by(|a, b| b.cmp(a));
            positions.get(names.n - 1).copied().unwrap_or(0)
        };
        acting.map(|s| by(&s.names)).max().unwrap_or(0).min(flushed)
    }
}
