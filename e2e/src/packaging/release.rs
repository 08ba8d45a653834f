//! A release of the chart: installed, upgraded and uninstalled while PostgreSQL runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams};
use matriarch_crds::names::AGENT_CONTAINER;
use serde_json::json;

use super::helm::{self, chart, older_chart};
use super::{A_MINUTE, Running, SHOP, SYSTEM, Stage};
use crate::scenarios::Herd;

const DEFINITION: &str = "postgresclusters.matriarch.dev";
const DEPLOYMENT: &str = "matriarch-operator";
/// It is renewed every 5 s, and one that is released is taken within 2.5 s; one that is not runs out after 15 s.
const LEASE_LEFT_ALONE: Duration = Duration::from_secs(12);

impl Stage {
    /// `helm VERB matriarch CHART`, waiting until it runs.
    pub(super) async fn helm_release(&self, verb: &str, chart: &str, more: &[&str]) -> Result<String> {
        let images = helm::images(&self.images.operator.reference, &self.images.sidecar.reference)?;
        let mut words = vec![verb, "matriarch", chart, "--namespace", SYSTEM, "--wait", "--timeout", "2m"];
        words.extend(images.iter().map(String::as_str));
        words.extend(more);
        self.helm.run(&words).await
    }

    pub(super) async fn definition(&self) -> Result<CustomResourceDefinition> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.cluster.client());
        definitions.get(DEFINITION).await.context("the definition of PostgresCluster")
    }

    async fn deployment(&self) -> Result<Deployment> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client(), SYSTEM);
        Ok(deployments.get(DEPLOYMENT).await?)
    }
}

/// An older release is installed; a cluster becomes ready; what comes with the release works.
pub(super) async fn install(stage: &Stage) -> Result<Running> {
    let older = older_chart(&stage.cluster)?.display().to_string();
    let notes = stage.helm_release("install", &older, &["--create-namespace"]).await?;
    ensure!(notes.contains("kind: PostgresCluster"), "the notes show no first cluster: {notes}");
    ensure!(stage.definition().await?.spec.names.short_names.is_none(), "the older chart's definition is not there");
    let namespace = stage.namespace(SHOP).await?;
    stage.cluster.ensure_volumes(2).await?;
    let herd = Herd::create(namespace, &stage.wanted("orders", 2)).await?;
    herd.steady(Duration::from_mins(2)).await?;
    user_roles(stage).await?;
    deletion_protection(&herd).await?;
    metrics(stage, &herd).await?;
    Running::of(herd).await
}

/// Kubernetes' own roles cover the new kind.
async fn user_roles(stage: &Stage) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(stage.cluster.client());
    for (role, verb) in [("view", "list"), ("edit", "delete"), ("admin", "patch")] {
        stage
            .cluster
            .wait(&format!("{role} covers PostgresClusters"), A_MINUTE, async || {
                let rules = roles.get(role).await?.rules.unwrap_or_default();
                let covers = rules.iter().any(|rule| {
                    let has = |list: &Option<Vec<String>>, word: &str| list.iter().flatten().any(|one| one == word);
                    has(&rule.resources, "postgresclusters") && rule.verbs.iter().any(|one| one == verb)
                });
                Ok((!covers).then(|| format!("no {verb}")))
            })
            .await?;
    }
    Ok(())
}

/// The API server refuses, and says what to do.
async fn deletion_protection(herd: &Herd) -> Result<()> {
    herd.patch(&json!({"deletionProtection": true})).await?;
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let cluster = &herd.namespace.cluster;
    // A policy takes effect a moment after it was made.
    let said = cluster
        .wait_for("the deletion is refused", Duration::from_secs(30), async || {
            Ok(match herd.api().delete(herd.name(), &dry).await {
                Err(kube::Error::Api(status)) => Ok(status.message.clone()),
                Err(other) => return Err(other.into()),
                Ok(_) => Err("it was allowed".to_owned()),
            })
        })
        .await?;
    for part in ["deletionProtection: true", "kubectl -n shop patch postgrescluster orders"] {
        ensure!(said.contains(part), "the refusal does not say {part:?}: {said}");
    }
    herd.patch(&json!({"deletionProtection": false})).await?;
    herd.api().delete(herd.name(), &dry).await.context("without protection it may be deleted")?;
    Ok(())
}

/// The operator answers probes (Helm waited for them) and shows its metrics; nothing it asked for was refused.
async fn metrics(stage: &Stage, herd: &Herd) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(stage.cluster.client(), SYSTEM);
    let all = pods.list(&ListParams::default().labels("app.kubernetes.io/name=matriarch-operator")).await?;
    let name = all.items.first().and_then(|pod| pod.metadata.name.clone()).context("no pod of the operator")?;
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:8080/proxy/metrics");
    let ready =
        format!("matriarch_cluster_condition{{namespace=\"shop\",cluster=\"{}\",condition=\"Ready\"}} 1", herd.name());
    stage
        .cluster
        .wait("the operator's metrics show the cluster", Duration::from_secs(20), async || {
            let text = stage.cluster.client().request_text(http::Request::get(&path).body(Vec::new())?).await?;
            if let Some(line) = text.lines().find(|line| line.contains("status=\"403\"")) {
                bail!("the operator lacks a right: {line}");
            }
            let missing = [ready.as_str(), "matriarch_operator_leader 1", "verb=\"patch\",resource=\"statefulsets\""];
            Ok(missing.into_iter().find(|part| !text.contains(part)).map(|part| format!("no {part} in {text}")))
        })
        .await
}

/// Another chart with another definition, other images, one more operator.
pub(super) async fn upgrade(stage: &Stage, running: &Running) -> Result<()> {
    let images = &stage.images;
    let (operator, sidecar) =
        (format!("{}-next", images.operator.reference), format!("{}-next", images.sidecar.reference));
    stage.cluster.tag_image(&images.operator.reference, &operator)?;
    stage.cluster.tag_image(&images.sidecar.reference, &sidecar)?;
    let mut agents = Vec::new();
    for (pod, _, _) in &running.members {
        let all = stage.cluster.pod_processes(SHOP, pod).await?;
        agents.extend(all.get(AGENT_CONTAINER).context("no agent")?.iter().map(|one| one.process));
    }
    let chart = chart().display().to_string();
    let next = helm::images(&operator, &sidecar)?;
    let mut words: Vec<&str> = next.iter().map(String::as_str).collect();
    words.extend(["--set", "replicas=2"]);
    let watched = LeaseWatch::start(stage);
    stage.helm_release("upgrade", &chart, &words).await?;
    watched.handed_over(stage).await?;
    let deployment = stage.deployment().await?;
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).context("no template")?;
    ensure!(template.containers[0].image.as_ref() == Some(&operator), "the operator has the old image");
    ensure!(deployment.status.and_then(|status| status.available_replicas) == Some(2), "not two operators");
    let names = stage.definition().await?.spec.names.short_names;
    ensure!(names == Some(vec!["pgc".to_owned()]), "the definition was not upgraded: {names:?}");
    stage
        .cluster
        .wait("the agents are those of the new image", Duration::from_mins(2), async || {
            let old = agents.iter().filter(|one| one.is_alive()).count();
            Ok((old > 0).then(|| format!("{old} old ones run")))
        })
        .await?;
    running.herd.steady(Duration::from_mins(2)).await?;
    running.untouched().await?;
    same_again(stage, &chart, &words).await
}

/// Looks all the time at the operators' Lease: for how long nobody wrote it.
struct LeaseWatch {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Duration>,
}

impl LeaseWatch {
    fn leases(stage: &Stage) -> Api<Lease> {
        Api::namespaced(stage.cluster.client(), SYSTEM)
    }

    fn start(stage: &Stage) -> Self {
        let (leases, stop) = (Self::leases(stage), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut version, mut since, mut longest) = (None, Instant::now(), Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let now = leases.get(DEPLOYMENT).await.ok().and_then(|lease| lease.metadata.resource_version);
                if now.is_some() && now != version {
                    (version, since) = (now, Instant::now());
                }
                longest = longest.max(since.elapsed());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            longest
        });
        Self { stop, task }
    }

    /// Ends when the old operator's pod is gone and a new one leads. It has released the Lease: nobody waited until it ran out.
    async fn handed_over(self, stage: &Stage) -> Result<()> {
        let (leases, pods): (_, Api<Pod>) = (Self::leases(stage), Api::namespaced(stage.cluster.client(), SYSTEM));
        stage
            .cluster
            .wait("a new operator leads", A_MINUTE, async || {
                let holder = leases.get(DEPLOYMENT).await?.spec.and_then(|spec| spec.holder_identity);
                let Some(holder) = holder.filter(|holder| !holder.is_empty()) else {
                    return Ok(Some("nobody does".to_owned()));
                };
                let pod = pods.get_opt(&holder).await?;
                let leaves = pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
                Ok(leaves.then(|| format!("{holder} does, which is gone or goes")))
            })
            .await?;
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.task.await?;
        eprintln!("    the operators' Lease was left alone for {:.1} s at most", longest.as_secs_f32());
        ensure!(longest < LEASE_LEFT_ALONE, "the Lease was not released: nobody wrote it for {longest:?}");
        Ok(())
    }
}

/// An upgrade to the same values changes nothing.
async fn same_again(stage: &Stage, chart: &str, words: &[&str]) -> Result<()> {
    let before = (stage.deployment().await?.metadata.generation, stage.definition().await?.metadata.generation);
    stage.helm_release("upgrade", chart, words).await?;
    let after = (stage.deployment().await?.metadata.generation, stage.definition().await?.metadata.generation);
    ensure!(before == after, "the same upgrade changed Deployment or definition: {before:?}, {after:?}");
    Ok(())
}

/// The release goes; the definition, the cluster and its processes stay, and the agents go on renewing the lock.
pub(super) async fn uninstall(stage: &Stage, running: &Running) -> Result<()> {
    stage.helm.run(&["uninstall", "matriarch", "--namespace", SYSTEM, "--wait", "--timeout", "2m"]).await?;
    let deployments: Api<Deployment> = Api::namespaced(stage.cluster.client(), SYSTEM);
    ensure!(deployments.get_opt(DEPLOYMENT).await?.is_none(), "the Deployment is still there");
    ensure!(stage.definition().await?.metadata.deletion_timestamp.is_none(), "the definition is being deleted");
    ensure!(running.herd.resource().await?.metadata.deletion_timestamp.is_none(), "the cluster is being deleted");
    let leader = running.herd.names.leader();
    let renewed =
        async || -> Result<Option<String>> { Ok(running.herd.annotations(&leader).await?.get("renewTime").cloned()) };
    let before = renewed().await?;
    stage
        .cluster
        .wait("the primary renews its lock without an operator", A_MINUTE, async || {
            Ok((renewed().await? == before).then(|| format!("still {before:?}")))
        })
        .await?;
    running.untouched().await
}
