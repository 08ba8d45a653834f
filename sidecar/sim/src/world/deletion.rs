//! A pod is deleted in order: what its kubelet does, and a supervisor that is left alone.

use matriarch_ha::event::{Event, Kind};

use super::node::Pm;
use super::{Ev, MS, S, World};
use crate::draw::For;

/// The grace period, after which the kubelet kills.
const GRACE: u64 = 30 * S;
/// A supervisor that is to end waits for its agent so many seconds.
const SILENCE: u32 = 5;
/// Of a thousand SIGTERMs so many find a process that does not catch them yet, or a kubelet that is away.
const LOST: u64 = 40;
/// Of a thousand agents that end in a deleted pod so many are started again: kubelets do not do that yet, and plan to.
const RESTARTED: u64 = 300;

impl World {
    pub(super) fn delete_pod(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.deleting || n.zombie {
            return;
        }
        // Without its node nobody acts on it until that is back.
        n.deleting = n.up;
        let (name, pod, up) = (n.name.clone(), n.pod, n.up);
        self.api.edit(Kind::Pod, &name, |object| object.deleting = true);
        self.stored();
        if !up {
            return;
        }
        if !self.draws.chance(For::Kubelet, node, LOST) {
            let after = self.draws.between(For::Kubelet, node, 1, 200) * MS;
            self.push(after, Ev::Sigterm { node, pod });
        }
        self.push(GRACE, Ev::PodGone { node, pod });
        if !self.nodes[node].supervisor.up {
            self.container_ended(node);
        }
    }

    pub(super) fn sigterm(&mut self, node: usize, pod: u32) {
        let n = &mut self.nodes[node];
        if n.pod != pod || !n.deleting || !n.up || !n.supervisor.up || n.supervisor.terminating {
            return;
        }
        n.supervisor.terminating = true;
        let supervisor = n.supervisor.incarnation;
        self.tell(node, MS, Event::Terminating);
        self.push(S, Ev::Alone { node, supervisor, silent: 0 });
    }

    /// The supervisor stops PostgreSQL by itself when its agent says nothing, and ends.
    pub(super) fn alone(&mut self, node: usize, supervisor: u32, silent: u32) {
        let n = &self.nodes[node];
        if !n.supervisor.up || n.supervisor.incarnation != supervisor {
            return;
        }
        let speaks = n.agent.core.is_some() && n.agent.stopped == 0;
        let silent = if speaks && silent < SILENCE { 0 } else { silent + 1 };
        if silent >= SILENCE {
            if n.server.pm == Pm::Down {
                return self.container_dies(node);
            }
            self.stop(node, false);
        }
        self.push(S, Ev::Alone { node, supervisor, silent });
    }

    /// In a deleted pod nothing is started again; when the container of PostgreSQL has ended the others are stopped, and the pod goes.
    pub(super) fn container_ended(&mut self, node: usize) {
        if self.nodes[node].deleting {
            let after = self.draws.between(For::Kubelet, node, 20, 2_000) * MS;
            let pod = self.nodes[node].pod;
            self.push(after, Ev::PodGone { node, pod });
        }
    }

    /// Whether the kubelet leaves a process of this pod as it is, ended.
    pub(super) fn stays_down(&mut self, node: usize) -> bool {
        self.nodes[node].deleting && !self.draws.chance(For::Kubelet, node, RESTARTED)
    }

    /// A pod that was being deleted is gone: a new one comes in its place, with its volume.
    pub(super) fn pod_gone(&mut self, node: usize, pod: u32) {
        let n = &self.nodes[node];
        if n.pod != pod || n.zombie || !n.up {
            return;
        }
        self.server_dies(node, false);
        self.kill_agent(node, false);
        let name = self.nodes[node].name.clone();
        let ours = self.api.get(Kind::Pod, &name).is_ok_and(|object| object.uid == self.nodes[node].uid);
        if ours {
            let _ = self.api.delete(Kind::Pod, &name);
            self.stored();
        }
        let n = &mut self.nodes[node];
        n.deleting = false;
        n.pod += 1;
        n.agent.restarts = 0;
        let pod = n.pod;
        self.new_supervisor(node);
        if self.api.get(Kind::Pod, &name).is_err() {
            self.new_pod_object(node);
        }
        let after = self.draws.between(For::Process, node, 200, 3_000) * MS;
        self.push(after.min(5 * S), Ev::AgentStart { node, pod });
    }
}
