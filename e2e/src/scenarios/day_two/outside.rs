//! The operator as a process of the test instead of a pod: killed and started in a moment, without the kubelet's back-off,
//! with the rights of its ServiceAccount and no others.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinHandle;

use super::super::world::{OPERATOR, OPERATOR_NAMESPACE, World};
use crate::cluster::dump_folder;
use crate::host::child::Running;
use crate::operator;

/// What the operator writes when it has looked at a cluster and done what is to do.
const RECONCILED: &str = "reconciled";
/// The operator lives for so long, in milliseconds, before it is killed.
const LIVES: Range<u64> = 100..2_000;
const A_MINUTE: Duration = Duration::from_mins(1);

/// The operator's place, taken from its pod.
#[derive(Debug, Clone)]
pub struct Outside {
    world: World,
    kubeconfig: PathBuf,
    /// Where it logs to, verbosely.
    pub log: PathBuf,
    sidecar: String,
}

/// An operator that is killed again and again.
#[derive(Debug)]
pub struct Killed {
    stop: Arc<AtomicBool>,
    kills: Arc<AtomicU32>,
    task: JoinHandle<Result<Running>>,
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Outside {
    /// Removes the operator's pod, and prepares to run its program here. [`World::heal`] brings the pod back.
    pub async fn take_over(world: &World, scenario: &str) -> Result<Self> {
        let deployments: Api<Deployment> = Api::namespaced(world.cluster.client(), OPERATOR_NAMESPACE);
        let deployment = deployments.get(OPERATOR).await?;
        let container = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.containers.first());
        let mut environment = container.and_then(|container| container.env.as_ref()).into_iter().flatten();
        let image = environment.find(|one| one.name == "MATRIARCH_SIDECAR_IMAGE").and_then(|one| one.value.clone());
        world.set_operators(0).await?;
        let pods: Api<Pod> = Api::namespaced(world.cluster.client(), OPERATOR_NAMESPACE);
        world
            .cluster
            .wait("the operator's pod is gone", A_MINUTE, async || {
                let left = pods.list(&ListParams::default()).await?.items.len();
                Ok((left > 0).then(|| format!("{left} pods")))
            })
            .await?;
        free_lease(world).await?;
        let folder = dump_folder("operator");
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{scenario}.log"));
        File::create(&log)?;
        let outside = Self {
            world: world.clone(),
            kubeconfig: folder.join("kubeconfig"),
            log,
            sidecar: image.context("the operator has no MATRIARCH_SIDECAR_IMAGE")?,
        };
        outside.write_kubeconfig().await?;
        Ok(outside)
    }

    async fn write_kubeconfig(&self) -> Result<()> {
        let token = operator::token(&self.world.cluster.client(), Duration::from_hours(1)).await?;
        let layout = self.world.cluster.layout();
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "operator",
            "clusters": [{"name": "test", "cluster": {
                "server": layout.api_url(),
                "certificate-authority": layout.pki().join("ca.crt"),
            }}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "operator", "context": {"cluster": "test", "user": "operator"}}],
        });
        let _ = fs::remove_file(&self.kubeconfig); // its mode would stay as it was
        let file = File::options().create_new(true).write(true).mode(0o600).open(&self.kubeconfig)?;
        serde_json::to_writer(file, &text)?;
        Ok(())
    }

    /// Another sidecar image for the operators that are started from now on.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: &str) -> Self {
        sidecar.clone_into(&mut self.sidecar);
        self
    }

    /// Starts the operator. It finds the Lease its own, whatever became of the one before.
    pub fn start(&self) -> Result<Running> {
        let mut command = Command::new(self.world.images.binaries.join("matriarch-operator"));
        command
            .arg("run")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("MATRIARCH_SIDECAR_IMAGE", &self.sidecar)
            .env("MATRIARCH_LISTEN", "127.0.0.1:0")
            .env("POD_NAME", "outside")
            .env("POD_NAMESPACE", OPERATOR_NAMESPACE)
            .env("RUST_LOG", "info,matriarch_operator=debug");
        Running::start(&mut command, &self.log)
    }

    /// How often a reconcile was done.
    pub fn reconciles(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.lines().filter(|line| line.contains(RECONCILED)).count())
    }

    /// Starts the operator and kills it at random moments, which `seed` decides, and starts it again.
    pub fn killed_at_random(&self, seed: u64) -> Killed {
        let (stop, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (outside, stopped, counted) = (self.clone(), stop.clone(), kills.clone());
        let task = tokio::spawn(async move {
            let mut dice = SmallRng::seed_from_u64(seed);
            loop {
                let running = outside.start()?;
                if stopped.load(Ordering::Relaxed) {
                    return Ok(running);
                }
                tokio::time::sleep(Duration::from_millis(dice.random_range(LIVES))).await;
                drop(running);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Killed { stop, kills, task }
    }
}

impl Killed {
    /// How often it was killed so far.
    pub fn kills(&self) -> u32 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Lets the next one live.
    pub async fn spare(mut self) -> Result<Running> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await?
    }
}

impl World {
    /// How many operators the Deployment shall have.
    pub async fn set_operators(&self, count: i32) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client(), OPERATOR_NAMESPACE);
        let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
        deployments.patch(OPERATOR, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Brings the operator back into its pod, if a scenario took its place.
    pub async fn operator_in_its_pod(&self) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client(), OPERATOR_NAMESPACE);
        let deployment = deployments.get_opt(OPERATOR).await?;
        if deployment.is_none_or(|one| one.spec.is_some_and(|spec| spec.replicas != Some(0))) {
            return Ok(());
        }
        free_lease(self).await?;
        self.set_operators(1).await?;
        self.operator_runs().await
    }
}

/// The next operator need not wait until the Lease of the last one has run out.
async fn free_lease(world: &World) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.cluster.client(), OPERATOR_NAMESPACE);
    if leases.get_opt(OPERATOR).await?.is_some() {
        leases.delete(OPERATOR, &DeleteParams::default()).await?;
    }
    Ok(())
}
