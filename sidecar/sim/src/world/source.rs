//! The cluster outside that a standby cluster follows: one server, which takes writes of its own, and what happens to it.

use matriarch_ha::effect::Upstream;

use super::node::{Pm, Server};
use super::{Ev, MS, World};
use crate::draw::For;
use crate::model::disk::{Disk, RECORD, State};
use crate::model::wal::Pos;

/// How the configuration names it.
const HOST: &str = "source";
/// Between two of its transactions: mean.
const WRITES: u64 = 500 * MS;
/// Its failovers count timelines in such steps: two clusters that both promote number theirs without knowing of each other, and what
/// has one number is one timeline to PostgreSQL (docs/safety.md).
const TIMELINES: u32 = 20;

impl World {
    /// The section `standby_cluster`, which names it.
    pub(super) fn names_source() -> serde_json::Value {
        serde_json::json!({"host": HOST, "port": 5432})
    }

    pub(super) fn found_source(&mut self) {
        let branch = self.wal.root(7_300_000_000_000_000_000);
        let node = self.new_place(usize::MAX, Disk::fresh(branch));
        let n = &mut self.nodes[node];
        n.outside = true;
        HOST.clone_into(&mut n.name);
        "192.0.2.1".clone_into(&mut n.ip);
        self.source = Some(node);
        self.following = true;
        self.source_starts(node);
        self.push(0, Ev::SourceWrites);
    }

    fn source_starts(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.up = true;
        n.server = Server::down(n.server.incarnation + 1, n.server.receivers);
        (n.server.pm, n.server.primary) = (Pm::Up, true);
        n.disk.state = State::InProduction;
        n.disk.flushed = n.disk.written.lsn;
    }

    /// The server that an upstream names.
    pub(super) fn server_at(&self, upstream: &Upstream) -> Option<usize> {
        let runs = |n: &super::Node| n.up && n.frozen == 0;
        if upstream.host == HOST {
            return self.source.filter(|source| runs(&self.nodes[*source]));
        }
        self.nodes.iter().position(|n| n.ip == upstream.ip && runs(n))
    }

    /// Whether a member's agent has read that the cluster follows another one.
    pub(crate) fn knows_standby(&self, node: usize) -> bool {
        let config = self.nodes[node].agent.view.as_ref().and_then(|view| view.config.as_ref());
        config.and_then(|config| config.get("standby_cluster")).is_some_and(|section| !section.is_null())
    }

    pub(super) fn source_writes(&mut self) {
        let Some(node) = self.source else { return };
        let next = self.draws.exponential(For::Source, 0, WRITES);
        self.push(next.max(1), Ev::SourceWrites);
        if self.nodes[node].writable() {
            let bytes = self.draws.log_uniform(For::Source, 1, 64, 16_384);
            self.commit(node, bytes);
        }
    }

    pub(super) fn source_down(&mut self) {
        if let Some(node) = self.source.filter(|node| self.nodes[*node].up) {
            self.server_vanishes(node);
            self.nodes[node].up = false;
        }
    }

    pub(super) fn source_returns(&mut self) {
        if let Some(node) = self.source.filter(|node| !self.nodes[*node].up) {
            self.source_starts(node);
        }
    }

    /// Another server of it leads under the same address, which had all but so many bytes.
    pub(super) fn source_fails_over(&mut self, lost: u64) {
        let Some(node) = self.source.filter(|node| self.nodes[*node].up) else { return };
        self.server_vanishes(node);
        let disk = &self.nodes[node].disk;
        let began = self.wal.parent(disk.written.branch).map_or(0x0100_0000, |fork| fork.lsn + RECORD);
        let fork = Pos { lsn: disk.written.lsn.saturating_sub(lost).max(began), ..disk.written };
        let timeline = self.timeline(node) + TIMELINES;
        let branch = self.wal.fork(fork, timeline);
        self.check.not_ours(branch);
        let disk = &mut self.nodes[node].disk;
        disk.written = Pos { branch, ..fork };
        disk.known_timeline = timeline;
        disk.write_checkpoint(&self.wal, State::InProduction);
        self.line(|w| format!("! the source is on timeline {timeline} from {}", w.nodes[node].disk.written.lsn));
        self.source_starts(node);
    }

    pub(super) fn slow_source(&mut self, ms: u64) {
        if let Some(node) = self.source {
            self.nodes[node].slow_disk_ms = ms;
        }
    }

    pub(super) fn cut_source(&mut self, node: usize, cut: bool) {
        if let Some(source) = self.source {
            self.net.cut_link(node, source, cut);
            self.net.cut_link(source, node, cut);
        }
    }

    /// The cluster is promoted as a whole, or follows (again): an edit of its configuration.
    pub(super) fn follow_source(&mut self, follows: bool) {
        if self.source.is_none() || self.following == follows {
            return;
        }
        self.following = follows;
        self.check.commanded_at = Some(self.now);
        self.check.follows(follows, self.now);
        // Agents are looked at once a second: what they knew before may have been otherwise in between.
        for node in &mut self.nodes {
            node.knows_since = None;
        }
        let section = if follows { Self::names_source() } else { serde_json::Value::Null };
        self.edit_config("standby_cluster", section);
    }
}
