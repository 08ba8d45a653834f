//! Makes the clusters, waits until all are ready, and measures what their operator costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::ResourceExt;
use matriarch_crds::PostgresCluster;
use serde_json::json;

use super::kubelet;
use super::operator::Operator;
use super::table::Table;
use crate::bare::{ControlPlane, sandbox, until};
use crate::cluster::{RequestCounts, read_audit_log};
use crate::deps::cache::Cache;
use crate::operator::USER;

/// In so many namespaces the clusters live, as teams would have them.
const NAMESPACES: usize = 10;
/// How many are created at a time.
const AT_ONCE: usize = 8;
/// The limit of memory of the shipped Deployment.
const LIMIT_MIB: u64 = 256;
/// What an operator may ask for in a quiet minute: its Lease, read and renewed each five seconds, and twelve watches that
/// begin anew each five minutes.
const REQUESTS_A_MINUTE: u64 = 60;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many clusters.
    pub clusters: usize,
    /// For how long nothing happens while requests are counted.
    pub quiet: Duration,
    /// Where the table goes, beside the terminal.
    pub report: Option<PathBuf>,
    /// The folder of our programs.
    pub binaries: PathBuf,
    /// The sandbox's own folder.
    pub root: PathBuf,
}

/// Inside of the sandbox.
pub async fn inside(options: &Options) -> Result<()> {
    let begin = Instant::now();
    sandbox::prepare(&options.root)?;
    let plane = ControlPlane::start(&options.root, &Cache::open()?).await?;
    let _controllers = plane.start_stateful_set_controller()?;
    let operator = Operator::install(&plane, &options.root, &options.binaries).await?;
    let measured = measure(options, &plane, &operator).await;
    if measured.is_err() {
        eprintln!("the operator's last words:\n{}", operator.last_words());
    }
    let table = measured?;
    println!("{}", table.text());
    if let Some(path) = &options.report {
        table.write(path)?;
    }
    eprintln!("all of it took {:.0} s", begin.elapsed().as_secs_f32());
    Ok(())
}

async fn measure(options: &Options, plane: &ControlPlane, operator: &Operator) -> Result<Table> {
    let client = &plane.client;
    let running = operator.start()?;
    let deadline = Duration::from_mins(10);
    let pods = tokio::spawn(kubelet::run(client.clone()));
    let mut table = Table::new(options.clusters);

    namespaces(client).await?;
    table.add("the operator alone", running.memory()?.to_string());
    let (begin, since) = (Instant::now(), Timestamp::now());
    let clusters = create(client, options.clusters).await?;
    table.add("clusters created", seconds(begin));
    all_ready(client, options.clusters, deadline).await?;
    ensure!(!pods.is_finished(), "pods are no longer served: {:?}", pods.await);
    table.add("all clusters Ready", seconds(begin));
    let spent = requests(plane, since)?;
    table.add(
        "requests of the operator until then",
        format!("{} a cluster", total(&spent) / u64::try_from(options.clusters.max(1))?),
    );
    let cpu = running.ticks()?;
    table.add("its processor time until then", format!("{:.1} s", hundredths(cpu)));

    // As long as agents renew their locks, nobody is ever quite idle.
    let renewals = tokio::spawn(kubelet::renew(client.clone(), clusters.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (since, cpu) = (Timestamp::now(), running.ticks()?);
    tokio::time::sleep(options.quiet).await;
    let quiet = requests(plane, since)?;
    let minute = |count: u64| count * 60 / options.quiet.as_secs().max(1);
    table.add("requests a minute when idle", format!("{} ({})", minute(total(&quiet)), listed(&quiet)));
    table.add("writes a minute when idle", format!("{} (its Lease)", minute(writes(&quiet, false))));
    let busy = hundredths(running.ticks()? - cpu) / options.quiet.as_secs_f64() * 100.0;
    table.add(
        "processor when idle",
        format!("{busy:.1} % of a core, while {} locks are renewed every 2 s", options.clusters),
    );
    let memory = running.memory()?;
    table.add("memory then", memory.to_string());
    let others = writes(&quiet, true);

    let late = one_change(client, &clusters).await?;
    table.add("a change of one spec is acted upon", format!("{:.2} s", late.as_secs_f64()));

    drop(running);
    let since = Timestamp::now();
    let begin = Instant::now();
    let again = operator.start()?;
    let late = one_change(client, &clusters).await?;
    table.add("after a restart it acts on a change", format!("{:.2} s after its start", late.as_secs_f64()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let restart = requests(plane, since)?;
    table.add("requests of that restart", format!("{} ({})", total(&restart), listed(&restart)));
    table.add("memory after the restart", format!("{} after {}", again.memory()?, seconds(begin)));
    renewals.abort();
    pods.abort();

    ensure!(others == 0, "an idle operator wrote: {}", listed(&quiet));
    let asked = minute(total(&quiet));
    ensure!(asked <= REQUESTS_A_MINUTE, "{asked} requests a minute of an idle operator: {}", listed(&quiet));
    ensure!(memory.rss < LIMIT_MIB * 1024, "{memory}: the shipped limit is {LIMIT_MIB} MiB");
    check_steady(client).await?;
    Ok(table)
}

async fn namespaces(client: &Client) -> Result<()> {
    for number in 0..NAMESPACES {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("team-{number}")}});
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    Ok(())
}

/// Namespace and name of each.
async fn create(client: &Client, count: usize) -> Result<Vec<(String, String)>> {
    let all: Vec<(String, String)> =
        (0..count).map(|number| (format!("team-{}", number % NAMESPACES), format!("db-{number:03}"))).collect();
    futures::stream::iter(all.iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |(namespace, name)| async move {
            let object = json!({
                "apiVersion": "matriarch.dev/v1alpha1", "kind": "PostgresCluster", "metadata": {"name": name},
                "spec": {"instances": 3, "image": "docker.io/library/postgres:17", "storage": {"size": "20Gi"}},
            });
            let api: Api<PostgresCluster> = Api::namespaced(client.clone(), namespace);
            api.create(&PostParams::default(), &serde_json::from_value(object)?).await.context("create")?;
            anyhow::Ok(())
        })
        .await?;
    Ok(all)
}

async fn all_ready(client: &Client, count: usize, deadline: Duration) -> Result<()> {
    let api: Api<PostgresCluster> = Api::all(client.clone());
    let mut next = Instant::now();
    until("all clusters are Ready", deadline, async || {
        tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
        next = Instant::now() + Duration::from_millis(500); // each look lists all
        let all = api.list(&ListParams::default()).await?.items;
        let ready = all.iter().filter(|one| is_ready(one)).count();
        Ok(if ready == count { Ok(()) } else { Err(format!("{ready} of {count}")) })
    })
    .await
}

fn is_ready(cluster: &PostgresCluster) -> bool {
    let Some(status) = &cluster.status else { return false };
    let is = |kind: &str, value: &str| status.conditions.iter().any(|one| one.type_ == kind && one.status == value);
    is("Ready", "True") && is("Progressing", "False") && status.observed_generation == cluster.metadata.generation
}

/// How long it takes until the operator has seen another spec, and says so.
async fn one_change(client: &Client, clusters: &[(String, String)]) -> Result<Duration> {
    let (namespace, name) = clusters.last().context("no cluster")?;
    let api: Api<PostgresCluster> = Api::namespaced(client.clone(), namespace);
    let begin = Instant::now();
    let value = format!("{}kB", 4096 + Timestamp::now().as_millisecond().unsigned_abs() % 4096);
    let patch = json!({"spec": {"postgresql": {"parameters": {"work_mem": value}}}});
    let wanted = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?.metadata.generation;
    until("the change is seen", Duration::from_mins(1), async || {
        let now = api.get(name).await?;
        let seen = now.status.and_then(|status| status.observed_generation);
        Ok(if seen == wanted { Ok(()) } else { Err(format!("generation {seen:?} of {wanted:?}")) })
    })
    .await?;
    Ok(begin.elapsed())
}

async fn check_steady(client: &Client) -> Result<()> {
    let api: Api<PostgresCluster> = Api::all(client.clone());
    let all = api.list(&ListParams::default()).await?.items;
    let unready: Vec<String> = all.iter().filter(|one| !is_ready(one)).map(ResourceExt::name_any).collect();
    ensure!(unready.is_empty(), "no longer Ready after a restart of the operator: {unready:?}");
    Ok(())
}

fn requests(plane: &ControlPlane, since: Timestamp) -> Result<RequestCounts> {
    let mut counts = RequestCounts::new();
    read_audit_log(&plane.audit_log(), since, Timestamp::now(), &mut |access| {
        if access.request.user == USER {
            let mut request = access.request;
            request.namespace.clear();
            *counts.entry(request).or_default() += 1;
        }
    })?;
    Ok(counts)
}

fn total(counts: &RequestCounts) -> u64 {
    counts.values().sum()
}

/// Writes of the Lease, or of all `others`.
fn writes(counts: &RequestCounts, others: bool) -> u64 {
    let wanted = counts.iter().filter(|(one, _)| one.is_write() && (one.resource != "leases") == others);
    wanted.map(|(_, count)| count).sum()
}

fn listed(counts: &RequestCounts) -> String {
    let all: Vec<String> = counts.iter().map(|(one, count)| format!("{count} {} {}", one.verb, one.resource)).collect();
    all.join(", ")
}

fn seconds(begin: Instant) -> String {
    format!("{:.1} s", begin.elapsed().as_secs_f32())
}

#[allow(clippy::cast_precision_loss)] // a few thousand
fn hundredths(ticks: u64) -> f64 {
    ticks as f64 / 100.0
}
