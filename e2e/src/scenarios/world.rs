//! What all scenarios of a run share: the Kubernetes, our images, the operator, and the clusters they use one after the
//! other.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use rustix::process::Signal;
use serde_json::json;

use super::day_two::rights::Right;
use super::herd::{Herd, Wanted};
use crate::cluster::{Cluster, Namespace};
use crate::host::run::run;
use crate::images::own::OwnImages;
use crate::operator;

pub use crate::operator::{NAME as OPERATOR, NAMESPACE as OPERATOR_NAMESPACE};

/// Where scenarios make their clusters.
pub const NAMESPACE: &str = "herd";

/// Shared by all scenarios.
#[derive(Debug, Clone)]
pub struct World {
    /// The Kubernetes.
    pub cluster: Cluster,
    /// Where clusters are made.
    pub namespace: Namespace,
    /// Our images and binaries.
    pub images: OwnImages,
    /// The major version of the clusters' PostgreSQL.
    pub major: String,
    /// Since when requests count: what was there before is not judged.
    pub began: Timestamp,
    /// Whether all scenarios run, and not only some.
    pub everything: bool,
    /// The rights that agents had so far.
    pub granted: Arc<Mutex<BTreeSet<Right>>>,
    /// From when until when the API server answered without being ready.
    pub unready: Arc<Mutex<Vec<Range<Timestamp>>>>,
}

impl World {
    /// Loads images of our programs, installs the operator and waits until it runs.
    pub async fn prepare(cluster: Cluster, binaries: &Path, namespace: &str, major: &str) -> Result<Self> {
        let images = {
            let (cluster, binaries) = (cluster.clone(), binaries.to_owned());
            tokio::task::spawn_blocking(move || cluster.load_own_images(&binaries)).await??
        };
        let namespace = Namespace { cluster: cluster.clone(), name: namespace.to_owned() };
        let (major, began) = (major.to_owned(), Timestamp::now());
        let (granted, unready) = Default::default();
        let world = Self { cluster, namespace, images, major, began, everything: false, granted, unready };
        world.install(&world.images.sidecar.reference).await?;
        Ok(world)
    }

    /// Applies what `matriarch-operator manifests` prints, and waits until the operator is available.
    pub async fn install(&self, sidecar: &str) -> Result<()> {
        let program = self.images.binaries.join("matriarch-operator");
        operator::install(&self.cluster.client(), &program, &self.images.operator.reference, sidecar).await?;
        self.operator_runs().await
    }

    /// Waits until the operator of the newest Deployment is available.
    pub async fn operator_runs(&self) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client(), OPERATOR_NAMESPACE);
        self.cluster
            .wait("the operator runs", Duration::from_mins(1), async || {
                let object = deployments.get(OPERATOR).await?;
                let status = object.status.unwrap_or_default();
                let current = status.observed_generation == object.metadata.generation;
                let done = current && status.updated_replicas == Some(1) && status.available_replicas == Some(1);
                Ok((!done).then(|| format!("{status:?}")))
            })
            .await
    }

    /// Gives the running operator another sidecar image, as an upgrade does.
    pub async fn set_sidecar_image(&self, sidecar: &str) -> Result<()> {
        self.set_sidecar_image_only(sidecar).await?;
        self.operator_runs().await
    }

    /// As [`set_sidecar_image`](Self::set_sidecar_image), for an operator that need not run.
    pub async fn set_sidecar_image_only(&self, sidecar: &str) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client(), OPERATOR_NAMESPACE);
        let container = json!({"name": "operator", "env": [{"name": "MATRIARCH_SIDECAR_IMAGE", "value": sidecar}]});
        let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        deployments.patch(OPERATOR, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// A fresh namespace for the clusters.
    pub async fn fresh_namespace(&self) -> Result<()> {
        let name = &self.namespace.name;
        self.cluster.delete_namespace(name).await?;
        self.cluster.recycle_volumes().await?;
        self.cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
        Ok(())
    }

    /// Whether the namespace exists.
    pub async fn has_namespace(&self) -> Result<bool> {
        let namespaces: Api<NamespaceObject> = Api::all(self.cluster.client());
        Ok(namespaces.get_opt(&self.namespace.name).await?.is_some())
    }

    /// The plugin, with all rights, in the clusters' namespace.
    pub async fn plugin(&self, args: &[&str]) -> Result<String> {
        let program = self.images.binaries.join("kubectl-matriarch").display().to_string();
        let kubeconfig = self.cluster.layout().kubeconfig("admin").display().to_string();
        let own = [&program, "--kubeconfig", &kubeconfig, "--namespace", &self.namespace.name];
        let words: Vec<String> = own.iter().chain(args).map(|word| (*word).to_owned()).collect();
        tokio::task::spawn_blocking(move || run(&words)).await?.context("kubectl matriarch failed")
    }

    /// A cluster of `instances` members, made if it is not there.
    pub async fn herd(&self, name: &'static str, instances: i32, endpoints: bool) -> Result<Herd> {
        let wanted = Wanted { name, instances, endpoints, major: self.major.clone() };
        let herd = Herd::new(self.namespace.clone(), &wanted);
        if herd.api().get_opt(name).await?.is_some() {
            return Ok(herd);
        }
        self.cluster.ensure_volumes(usize::try_from(instances)? + 1).await?;
        Herd::create(self.namespace.clone(), &wanted).await
    }

    /// As `kubectl cordon` and `uncordon` do: whether new pods may come to a node.
    pub async fn set_cordoned(&self, node: &str, cordoned: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.cluster.client());
        let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// After an outage of the API, Kubernetes' own parts wait for up to half a minute before they ask again. They are
    /// started anew, so that the next scenario does not measure that.
    pub async fn wake_kubernetes(&self) -> Result<()> {
        let mut parts = vec!["controller-manager".to_owned(), "scheduler".to_owned()];
        for node in self.cluster.layout().all_nodes() {
            parts.extend([format!("kubelet-{}", node.name), format!("kube-proxy-{}", node.name)]);
        }
        for part in parts {
            self.cluster.stop_component(&part)?;
            self.cluster.start_component(&part)?;
        }
        let nodes: Api<Node> = Api::all(self.cluster.client());
        self.cluster
            .wait("all nodes are ready", Duration::from_mins(1), async || {
                let all = nodes.list(&ListParams::default()).await?.items;
                let ready = all.iter().filter(|node| crate::cluster::is_ready(node)).count();
                Ok((ready < all.len()).then(|| format!("{ready} of {} are", all.len())))
            })
            .await
    }

    /// Starts the API server and waits until it is ready. Before that it also refuses what roles allow, everybody: it has
    /// not read them yet.
    pub async fn start_api_server(&self) -> Result<()> {
        let (cluster, begin) = (&self.cluster, Timestamp::now());
        cluster.start_api_server()?;
        cluster.wait("the API server is ready", Duration::from_mins(1), || cluster.api_is_ready()).await?;
        let mut unready = self.unready.lock().map_err(|_| anyhow::anyhow!("a scenario panicked"))?;
        unready.push(begin..Timestamp::now());
        Ok(())
    }

    /// Undoes whatever faults a scenario left behind: cables, frozen processes, a dead API server.
    pub async fn heal(&self) -> Result<()> {
        let cluster = &self.cluster;
        for node in cluster.layout().all_nodes() {
            cluster.set_node_frozen(&node.name, false)?;
            cluster.set_node_cut(&node.name, false)?;
        }
        if cluster.component("apiserver").is_ok_and(crate::host::process::Process::is_alive) {
            cluster.wait("the API server is ready", Duration::from_mins(1), || cluster.api_is_ready()).await?;
        } else {
            self.start_api_server().await?;
        }
        for node in cluster.layout().all_nodes() {
            self.set_cordoned(&node.name, false).await?;
        }
        let pods: Api<Pod> = self.namespace.api();
        for pod in pods.list(&ListParams::default()).await?.items {
            let (Some(name), own) = (pod.metadata.name, &self.namespace.name) else { continue };
            // Errors say that the pod has no cgroup, so nothing of it can be frozen or cut.
            let _ = cluster.set_pod_frozen(own, &name, false).await;
            let _ = cluster.set_pod_cut(own, &name, false).await;
            for process in cluster.pod_processes(own, &name).await.unwrap_or_default().into_values().flatten() {
                process.process.signal(Signal::CONT)?;
            }
        }
        self.operator_in_its_pod().await
    }
}
