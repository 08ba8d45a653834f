//! One scenario as it runs: its cluster, its workload, and what it has to say.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinHandle;

use super::herd::{Herd, Member};
use super::lock::Lock;
use super::world::World;
use crate::cluster::Cluster;
use crate::host::process::Process;
use crate::workload::{Attempt, Workload, clock};

/// A scenario with a workload under way.
#[derive(Debug)]
pub struct Case {
    /// What all scenarios share.
    pub world: World,
    /// The cluster under test.
    pub herd: Herd,
    /// The clients.
    pub workload: Arc<Workload>,
    /// The primary when the scenario began.
    pub primary: Member,
    /// The lock at that time.
    pub lock: Lock,
    notes: Mutex<Vec<String>>,
    follower: JoinHandle<()>,
}

impl Drop for Case {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Case {
    /// Starts the clients and waits until all is calm: the cluster steady, writes going through.
    pub async fn begin(world: &World, herd: &Herd, name: &str) -> Result<Self> {
        let primary = herd.primary().await?;
        let lock = herd.lock().await?;
        let nodes = world.cluster.layout().all_nodes();
        // Clients do not live on the primary's node, so that they outlive its loss.
        let node = nodes.iter().find(|node| node.name != primary.node).or(nodes.first()).context("no node")?;
        let file = crate::cluster::dump_folder(&format!("{name}.jsonl"));
        let run = format!("{name} {}", clock::now().as_millis());
        let workload = Workload::start(herd.database().await?, Some(&node.netns), &run, &file).await?;
        let workload = Arc::new(workload);
        let follower = tokio::spawn(follow(herd.clone(), workload.clone()));
        workload.writable(Duration::from_secs(20)).await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(Self {
            world: world.clone(),
            herd: herd.clone(),
            workload,
            primary,
            lock,
            notes: Mutex::default(),
            follower,
        })
    }

    /// The Kubernetes.
    pub fn cluster(&self) -> &Cluster {
        &self.world.cluster
    }

    /// The clusters' namespace.
    pub fn namespace(&self) -> &str {
        &self.world.namespace.name
    }

    /// Adds something for the report.
    pub fn note(&self, note: impl Into<String>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note.into());
    }

    /// What was noted.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A standby, the best choice first.
    pub async fn a_standby(&self) -> Result<Member> {
        let standbys = self.herd.standbys().await?;
        standbys.into_iter().min_by_key(|one| one.restarts).context("there is no standby")
    }

    /// The host's processes of a pod: of one container, or of all.
    pub async fn processes(&self, pod: &str, container: Option<&str>) -> Result<Vec<Process>> {
        let all = self.cluster().pod_processes(self.namespace(), pod).await?;
        let wanted = all.into_iter().filter(|(name, _)| container.is_none_or(|one| one == name));
        let found: Vec<Process> = wanted.flat_map(|(_, list)| list).map(|one| one.process).collect();
        ensure!(!found.is_empty(), "pod {pod} has no process");
        Ok(found)
    }

    /// Waits until another pod leads and writes go through it.
    pub async fn failover(&self, deadline: Duration) -> Result<Lock> {
        let lock = self.herd.other_leader(&self.lock, deadline).await?;
        self.workload.writable(deadline).await?;
        Ok(lock)
    }

    /// Waits until writes go through, whoever leads, and notes who does.
    pub async fn recovered(&self, deadline: Duration) -> Result<Lock> {
        self.workload.writable(deadline).await?;
        let lock = self.herd.lock().await?;
        let same = lock.leader == self.lock.leader;
        self.note(if same { format!("{} goes on", lock.leader) } else { format!("{} took over", lock.leader) });
        Ok(lock)
    }

    /// The last write that the first primary acknowledged.
    pub fn last_of_old(&self) -> Result<Attempt> {
        let last = self.workload.history().last(|one| one.server.address == self.primary.address);
        last.context("the old primary acknowledged nothing")
    }

    /// Makes sure that the old primary acknowledged nothing once the new one had the lock; notes the time between.
    pub fn fenced_before(&self, new: &Lock) -> Result<()> {
        let acquired = new.acquired_at().context("the new lock has no acquireTime")?;
        let last = self.last_of_old()?;
        ensure!(
            last.done < acquired,
            "{} took the lock at {}, and the old primary acknowledged afterwards: {last}",
            new.leader,
            clock::time_of_day(acquired),
        );
        let between = acquired.saturating_sub(last.done).as_secs_f64();
        self.note(format!("{} took the lock {between:.1} s after the old primary's last write", new.leader));
        Ok(())
    }
}

/// Lets the workload write to every pod that ever appears, so that an old primary is noticed also when the Service leads
/// elsewhere. Does nothing while the API server is away.
async fn follow(herd: Herd, workload: Arc<Workload>) {
    loop {
        for member in herd.members().await.unwrap_or_default() {
            let node = herd.namespace.cluster.layout().node_named(&member.node);
            if let (Ok(node), false) = (node, member.address.is_empty()) {
                // An error says that the namespace is gone, and with it the pod.
                let _ = workload.watch_pod(Some(&node.netns), &member.address);
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
