//! Faults: outage of the API, frozen and killed processes, cut cables. Every fault names its undoing.

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::Cluster;
use super::network::set_node_link;
use super::{control_plane, daemons};
use crate::host::cgroup;
use crate::host::process::Process;
use crate::host::run::run;

/// The comment on every firewall rule that a fault made, by which it is found again.
const MARK: &str = "matriarch-e2e";

impl Cluster {
    /// SIGKILLs the API server; [`start_api_server`](Self::start_api_server) brings it back.
    pub fn stop_api_server(&self) -> Result<()> {
        daemons::stop(self.layout(), "apiserver")
    }

    /// Starts it with the same arguments. It answers some seconds later: wait for [`api_is_ready`](Self::api_is_ready).
    pub fn start_api_server(&self) -> Result<()> {
        daemons::restart(self.layout(), "apiserver").map(drop)
    }

    /// The process of a component: `apiserver`, `etcd`, `controller-manager`, `scheduler`, `coredns`, `kubelet-node-1`,
    /// `containerd-node-1`, `kube-proxy-node-1`.
    pub fn component(&self, name: &str) -> Result<Process> {
        Ok(daemons::find(self.layout(), name)?.process)
    }

    /// SIGKILLs a component; [`start_component`](Self::start_component) brings it back.
    pub fn stop_component(&self, name: &str) -> Result<()> {
        daemons::stop(self.layout(), name)
    }

    /// Starts a component that was stopped.
    pub fn start_component(&self, name: &str) -> Result<()> {
        daemons::restart(self.layout(), name).map(drop)
    }

    /// SIGSTOPs processes; [`thaw`](Self::thaw) lets them go on.
    pub fn freeze(&self, processes: &[Process]) -> Result<()> {
        processes.iter().try_for_each(|process| process.signal(Signal::STOP))
    }

    /// SIGCONTs processes.
    pub fn thaw(&self, processes: &[Process]) -> Result<()> {
        processes.iter().try_for_each(|process| process.signal(Signal::CONT))
    }

    /// SIGKILLs processes and waits until they are gone.
    pub fn kill(&self, processes: &[Process]) -> Result<()> {
        processes.iter().try_for_each(|process| process.signal(Signal::KILL))?;
        processes.iter().try_for_each(|process| process.kill())
    }

    /// Freezes or thaws all processes of one container at once, by its cgroup: nobody in it sees a signal.
    pub async fn set_container_frozen(&self, namespace: &str, pod: &str, container: &str, frozen: bool) -> Result<()> {
        let object = self.pod(namespace, pod).await?;
        let (group, _) = self.pod_cgroup(&object)?;
        let status = object.status.context("the pod has no status")?;
        let mut all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
        let id = all.find(|one| one.name == container).and_then(|one| one.container_id).context("no such container")?;
        cgroup::freeze(&group.join(id.rsplit('/').next().unwrap_or_default()), frozen)
    }

    /// Freezes or thaws a whole pod.
    pub async fn set_pod_frozen(&self, namespace: &str, pod: &str, frozen: bool) -> Result<()> {
        let (group, _) = self.pod_cgroup(&self.pod(namespace, pod).await?)?;
        cgroup::freeze(&group, frozen)
    }

    /// Freezes or thaws a whole node: kubelet, containerd and all pods.
    pub fn set_node_frozen(&self, node: &str, frozen: bool) -> Result<()> {
        cgroup::freeze(&self.layout().node_named(node)?.cgroup, frozen)
    }

    /// Pulls a node's cable, or plugs it in again: its pods still reach each other, and nothing else.
    pub fn set_node_cut(&self, node: &str, cut: bool) -> Result<()> {
        set_node_link(self.layout(), &self.layout().node_named(node)?, !cut)
    }

    /// Kills all of a node at one moment, as a power failure does. Nothing brings it back but `down` and `up`.
    pub fn kill_node(&self, node: &str) -> Result<()> {
        let node = self.layout().node_named(node)?;
        set_node_link(self.layout(), &node, false)?;
        // Frozen first, so that no shim or kubelet sees another die and tells anybody.
        cgroup::freeze(&node.cgroup, true)?;
        let processes: Vec<Process> = cgroup::processes(&node.cgroup).into_iter().filter_map(Process::of).collect();
        processes.iter().try_for_each(|process| process.signal(Signal::KILL))?;
        cgroup::freeze(&node.cgroup, false)
    }

    /// Cuts a pod off, or undoes that: nobody reaches it, its node's kubelet with its probes included; connections hang as
    /// with a pulled cable. Undoes [`cut_pod_from`](Self::cut_pod_from) as well.
    pub async fn set_pod_cut(&self, namespace: &str, pod: &str, cut: bool) -> Result<()> {
        let all: [&[&str]; 2] = [&["OUTPUT", "!", "-o", "lo"], &["INPUT", "!", "-i", "lo"]];
        self.drop_in_pod(namespace, pod, if cut { &all } else { &[] }).await
    }

    /// Cuts two pods off from each other, also on the way through a Service. [`cut_pod_from`](Self::cut_pod_from) with an
    /// empty list undoes it, for each of the two.
    pub async fn cut_pods(&self, namespace: &str, one: &str, other: &str) -> Result<()> {
        for (pod, from) in [(one, other), (other, one)] {
            let status = self.pod(namespace, from).await?.status;
            let address = status.and_then(|status| status.pod_ip).context("the pod has no address")?;
            self.cut_pod_from(namespace, pod, &[&address]).await?;
        }
        Ok(())
    }

    /// Drops what a pod sends to some addresses, and what it gets from them: addresses as the pod sees them, so a Service's
    /// is another than its pods'. The kubelet and all others still reach it. An empty list restores all.
    pub async fn cut_pod_from(&self, namespace: &str, pod: &str, addresses: &[&str]) -> Result<()> {
        let both: Vec<[&str; 3]> =
            addresses.iter().flat_map(|address| [["OUTPUT", "-d", *address], ["INPUT", "-s", *address]]).collect();
        let rules: Vec<&[&str]> = both.iter().map(<[&str; 3]>::as_slice).collect();
        self.drop_in_pod(namespace, pod, &rules).await
    }

    /// Replaces the firewall rules of earlier faults in a pod's network namespace.
    async fn drop_in_pod(&self, namespace: &str, pod: &str, rules: &[&[&str]]) -> Result<()> {
        let (group, _) = self.pod_cgroup(&self.pod(namespace, pod).await?)?;
        let pid = cgroup::processes(&group).into_iter().next().context("the pod has no process")?;
        let enter = format!("--net=/proc/{pid}/ns/net");
        let iptables = |args: &[&str]| run(&[&["nsenter", &enter, "iptables", "--wait"], args].concat());
        for old in iptables(&["--list-rules"])?.lines().filter(|rule| rule.contains(MARK)) {
            let words: Vec<&str> = old.split_whitespace().skip(1).collect();
            iptables(&[&["--delete"], words.as_slice()].concat())?;
        }
        for rule in rules {
            iptables(&[&["--append"], *rule, &["-m", "comment", "--comment", MARK, "-j", "DROP"]].concat())?;
        }
        Ok(())
    }

    /// The addresses of the API server, for [`cut_pod_from`](Self::cut_pod_from).
    pub fn api_addresses(&self) -> [String; 2] {
        control_plane::api_addresses(self.layout())
    }
}
