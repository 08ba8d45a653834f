//! What takes pods, nodes and volumes away, and brings them back.

use matriarch_ha::event::Kind;

use super::{Ev, MS, S, World};
use crate::draw::For;
use crate::model::disk::{Disk, Health};

impl World {
    /// Power is lost, and with it what was not flushed.
    pub(super) fn node_crashes(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.kill_agent(node, false);
        self.server_vanishes(node);
        let lost = {
            let disk = &self.nodes[node].disk;
            disk.written.lsn.saturating_sub(disk.flushed)
        };
        let survives = self.draws.below(For::Crash, node, lost + 1);
        let n = &mut self.nodes[node];
        if n.disk.intact() {
            n.disk.written.lsn = n.disk.flushed.min(n.disk.written.lsn) + if lost > 0 { survives } else { 0 };
        }
        n.up = false;
        n.supervisor.up = false;
        n.supervisor.incarnation += 1;
        n.deleting = false;
        n.frozen = 0;
        n.deferred.clear();
    }

    /// And comes back, with a new boot clock.
    pub(super) fn node_boots(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.up {
            return;
        }
        n.up = true;
        n.pod += 1;
        n.agent.stopped = 0;
        let (pod, member) = (n.pod, n.member);
        let ppm = self.plan.config.drift_ppm.get(member).copied().unwrap_or(0);
        let now = self.now;
        self.nodes[node].clock = crate::clock::Clock::starting_at(now, 30 * S);
        self.nodes[node].clock.set_rate(now, ppm);
        self.new_supervisor(node);
        let name = self.nodes[node].name.clone();
        // Deleted meanwhile, or not there any more: the StatefulSet makes it anew.
        let gone = self.api.get(Kind::Pod, &name).map_or(true, |object| object.deleting);
        if gone {
            let _ = self.api.delete(Kind::Pod, &name);
            self.new_pod_object(node);
        }
        let after = self.draws.between(For::Process, node, 100, 3_000) * MS;
        self.push(after, Ev::AgentStart { node, pod });
    }

    /// The pod object is replaced while its processes live on, cut off; the new one has an empty volume.
    pub(super) fn replace_pod(&mut self, node: usize, member: usize) -> bool {
        if self.nodes.len() >= 12 || self.nodes[node].deleting || !self.nodes[node].up || !self.may_lose(node) {
            return false;
        }
        self.nodes[node].zombie = true;
        self.cut(node, true);
        let name = self.nodes[node].name.clone();
        let _ = self.api.delete(Kind::Pod, &name);
        let new = self.new_pod(member, Disk::empty());
        for other in 0..new {
            if self.nodes[other].zombie {
                self.net.cut_link(new, other, true);
                self.net.cut_link(other, new, true);
            }
        }
        self.current[member] = new;
        self.push(S, Ev::AgentStart { node: new, pod: 0 });
        true
    }

    pub(super) fn zombie_ends(&mut self, node: usize) {
        if self.nodes[node].zombie && self.nodes[node].up {
            self.node_crashes(node);
            self.nodes[node].disk = Disk::empty();
        }
    }

    /// Another complete directory has every commit that must not be lost: what this one holds may go.
    fn may_lose(&self, node: usize) -> bool {
        use crate::model::wal::Pos;
        let others = (0..self.nodes.len()).filter(|other| {
            let n = &self.nodes[*other];
            *other != node && !n.zombie && !n.outside
        });
        let mut copies = 0;
        for other in others {
            let disk = &self.nodes[other].disk;
            let at = Pos { lsn: disk.flushed, ..disk.written };
            if disk.health == Health::Intact && self.missing(true, at).is_empty() {
                copies += 1;
            }
        }
        // And those that are left can still elect a leader.
        let rest: Vec<usize> = (0..self.current.len())
            .filter(|member| self.current[*member] != node && self.nodes[self.current[*member]].disk.intact())
            .collect();
        copies > 0 && self.electable(&rest)
    }

    pub(super) fn lose_volume(&mut self, node: usize) {
        if self.nodes[node].zombie || !self.may_lose(node) {
            return;
        }
        self.node_crashes(node);
        self.nodes[node].disk = Disk::empty();
        let name = self.nodes[node].name.clone();
        let _ = self.api.delete(Kind::Pod, &name);
        self.stored();
        self.node_boots(node);
    }

    /// The directory is removed under the running server, which ends by it.
    pub(super) fn lose_data(&mut self, node: usize) {
        if self.nodes[node].zombie || !self.nodes[node].up || !self.may_lose(node) {
            return;
        }
        self.server_dies(node, false);
        self.nodes[node].disk = Disk::empty();
    }
}
