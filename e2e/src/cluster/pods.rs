//! From a pod to its node, network namespace and processes on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;

use super::Cluster;
use super::layout::Node;
use crate::host::cgroup;
use crate::host::process::{Process, command_line};

/// A process of a pod as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodProcess {
    /// Its pid on the host and its start time.
    pub process: Process,
    /// Its command line, as it was when looked at.
    pub command: String,
}

impl Cluster {
    /// A pod as the API server has it.
    pub async fn pod(&self, namespace: &str, pod: &str) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        pods.get(pod).await.with_context(|| format!("unable to read pod {namespace}/{pod}"))
    }

    /// The node a pod runs on.
    pub async fn node_of(&self, namespace: &str, pod: &str) -> Result<Node> {
        let object = self.pod(namespace, pod).await?;
        let name = object.spec.and_then(|spec| spec.node_name).context("the pod is not scheduled")?;
        self.layout().node_named(&name)
    }

    /// The running processes of each container of a pod, the container's PID 1 first; init containers included, the
    /// sandbox's pause not. Read from cgroups: also works while the API server lists an old state, not after it forgot the
    /// pod.
    pub async fn pod_processes(&self, namespace: &str, pod: &str) -> Result<BTreeMap<String, Vec<PodProcess>>> {
        let object = self.pod(namespace, pod).await?;
        let (group, _) = self.pod_cgroup(&object)?;
        let status = object.status.context("the pod has no status")?;
        let mut found = BTreeMap::new();
        let all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
        for container in all {
            let Some(id) = container.container_id.as_deref().and_then(|id| id.rsplit('/').next()) else { continue };
            let mut processes: Vec<PodProcess> = cgroup::processes(&group.join(id))
                .into_iter()
                .filter_map(|pid| Some(PodProcess { process: Process::of(pid)?, command: command_line(pid) }))
                .collect();
            processes.sort_by_key(|one| (one.process.started, one.process.pid));
            found.insert(container.name, processes);
        }
        Ok(found)
    }

    /// The pod's cgroup, relative to a hierarchy's root, and its node.
    pub(super) fn pod_cgroup(&self, pod: &Pod) -> Result<(PathBuf, Node)> {
        let uid = pod.metadata.uid.as_deref().context("the pod has no uid")?;
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("the pod is not scheduled")?;
        let node = self.layout().node_named(name)?;
        // A static pod's folder bears another name; those are not used here.
        let wanted = format!("pod{uid}");
        for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            let group = node.cgroup.join(class).join(&wanted);
            if cgroup::exists(&group) {
                return Ok((group, node));
            }
        }
        anyhow::bail!("pod {} has no cgroup on {name}", pod.metadata.name.as_deref().unwrap_or_default())
    }
}
