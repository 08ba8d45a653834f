//! Clients: they write where the Service sends them, and some hold on to a connection that they had before.

use super::{Ev, S, World};
use crate::draw::For;
use crate::model::wal::Pos;

impl World {
    /// Begins the workload.
    pub(super) fn begin_transactions(&mut self) {
        self.push(0, Ev::Transaction);
    }

    pub(super) fn transaction(&mut self) {
        let mean = 60 * S / self.plan.config.transactions.max(1);
        let next = self.draws.exponential(For::Client, 0, mean);
        self.push(next.max(1), Ev::Transaction);
        self.transactions += 1;
        let sticky = self.draws.chance(For::Client, 0, 300);
        let target = if sticky { self.any_writable() } else { self.service().or_else(|| self.any_writable()) };
        let Some(node) = target.filter(|node| self.nodes[*node].writable()) else { return };
        if self.nodes[node].server.dying {
            return;
        }
        let bytes = self.draws.log_uniform(For::Client, 1, 64, 65_536);
        self.commit(node, bytes);
    }

    /// Where the Service sends a new connection.
    fn service(&self) -> Option<usize> {
        use matriarch_ha::event::Kind;
        let object = if self.plan.config.endpoints {
            self.api.get(Kind::Lock, self.leader_object())
        } else {
            self.api.get(Kind::Slice, "x-primary")
        };
        let ip = object.ok()?.addresses.first()?.clone();
        self.nodes.iter().position(|n| n.ip == ip && n.up)
    }

    fn any_writable(&mut self) -> Option<usize> {
        let writable: Vec<usize> =
            (0..self.nodes.len()).filter(|n| self.nodes[*n].writable() && !self.nodes[*n].outside).collect();
        if writable.is_empty() {
            return None;
        }
        let index = self.draws.below(For::Client, 2, writable.len() as u64);
        writable.get(usize::try_from(index).unwrap_or(0)).copied()
    }

    /// The acknowledgement of a commit leaves.
    pub(super) fn acknowledged(&mut self, node: usize, pos: Pos) {
        if self.nodes[node].outside {
            self.stats.source_commits += 1;
            return;
        }
        self.stats.acks += 1;
        self.answered();
        self.check_acknowledged(node, pos);
    }
}
