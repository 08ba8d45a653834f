//! Runs the scenarios: one Kubernetes for all, one cluster for many, a dump for each failure, and nothing left behind.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use tokio::signal::unix::{SignalKind, signal};

use super::case::Case;
use super::day_two::growth;
use super::herd::{Herd, Member, Wanted};
use super::list::{ALL, Body, On, Scenario};
use super::report::{Report, Row};
use super::world::{NAMESPACE, OPERATOR_NAMESPACE, World};
use crate::cluster::{self, Cluster, dump_folder};
use crate::workload::Promise;

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Kubernetes: one of this name that is up, or a new one, which is removed afterwards.
    pub cluster: cluster::Options,
    /// Only scenarios whose names contain one of these, separated by commas.
    pub filter: Option<String>,
    /// The major version of PostgreSQL.
    pub major: String,
    /// Where the table goes, beside the terminal.
    pub report: Option<PathBuf>,
    /// Leave everything up for a look.
    pub keep: bool,
    /// The folder of our programs.
    pub binaries: PathBuf,
}

/// How long the wait for a steady cluster may take, before and after a fault.
const STEADY: Duration = Duration::from_mins(2);
/// How long a scenario may take in all.
const ALTOGETHER: Duration = Duration::from_mins(6);
/// For how long clients write after the fault.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Runs all that match. Ok(false) says that a scenario failed. Interrupted, it clears up as well.
pub async fn test(options: &Options) -> Result<bool> {
    let matches = |parts: &String, name: &str| parts.split(',').any(|part| name.contains(part));
    let wanted = |one: &&Scenario| options.filter.as_ref().is_none_or(|parts| matches(parts, one.name));
    let chosen: Vec<Scenario> = ALL.iter().filter(wanted).copied().collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|one| one.name).collect();
        bail!("no scenario is called so; there are {}", names.join(", "));
    }
    let existed = Cluster::attach(&options.cluster.name).await.is_ok();
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let outcome = tokio::select! {
        outcome = run(options, &chosen) => outcome,
        _ = int.recv() => Err(anyhow!("interrupted")),
        _ = term.recv() => Err(anyhow!("terminated")),
    };
    if options.keep {
        eprintln!(
            "the cluster {0} is left up: `matriarch-e2e cluster down --name {0}` removes it",
            options.cluster.name
        );
    } else if let Err(error) = clear(options, existed).await {
        eprintln!("unable to clear up: {error:#}");
    }
    outcome
}

/// Removes the Kubernetes, or from one that was there before only what we made.
async fn clear(options: &Options, existed: bool) -> Result<()> {
    let name = options.cluster.name.clone();
    if !existed {
        return tokio::task::spawn_blocking(move || Cluster::down(&name)).await?;
    }
    let cluster = Cluster::attach(&name).await?;
    if cluster.component("apiserver").is_ok_and(|one| !one.is_alive()) {
        cluster.start_api_server()?;
        cluster.wait("the API server is ready", Duration::from_mins(1), || cluster.api_is_ready()).await?;
    }
    cluster.delete_namespace(NAMESPACE).await?;
    cluster.withdraw_growing_volumes().await?;
    cluster.recycle_volumes().await.map(drop)
}

async fn run(options: &Options, chosen: &[Scenario]) -> Result<bool> {
    let begin = Instant::now();
    let cluster = Cluster::attach_or_up(&options.cluster).await?;
    let mut world = World::prepare(cluster, &options.binaries, NAMESPACE, &options.major).await?;
    world.everything = options.filter.is_none();
    world.heal().await?;
    world.fresh_namespace().await?;
    let mut report = Report::default();
    for scenario in chosen {
        let row = guarded(&world, scenario).await;
        eprintln!("{}", row.line());
        report.rows.push(row);
    }
    report.conclude(options.report.as_deref(), &head(options), begin)
}

fn head(options: &Options) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "# Measured by the scenarios\n\nPostgreSQL {}, {} nodes on one machine of {cores} cores; clients write every 10 ms \
         through the Service. The gap is the longest time that one of them waited from one acknowledgement to the next.",
        options.major, options.cluster.nodes
    )
}

/// Runs one scenario in its time, dumps its failure, and undoes its faults.
async fn guarded(world: &World, scenario: &Scenario) -> Row {
    let aim = scenario.gap.map(|(aim, _)| Duration::from_millis(aim));
    let mut row = Row { name: scenario.name.to_owned(), aim, ..Row::default() };
    if world.cluster.layout().nodes < scenario.nodes {
        row.skipped = Some(format!("it needs {} nodes", scenario.nodes));
        return row;
    }
    eprintln!("--- {}", scenario.name);
    let begin = Instant::now();
    let outcome = match tokio::time::timeout(ALTOGETHER, perform(world, scenario, &mut row)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("not done after {} s", ALTOGETHER.as_secs())),
    };
    row.took = begin.elapsed();
    if let Err(error) = outcome {
        row.failure = Some(format!("{error:#}"));
        eprintln!("    {} FAILED: {error:#}", scenario.name);
        let folder = dump_folder(scenario.name);
        eprintln!("    dumping to {}", folder.display());
        for (namespace, folder) in
            [(world.namespace.name.as_str(), folder.clone()), (OPERATOR_NAMESPACE, folder.join("operator"))]
        {
            if let Err(error) = world.cluster.dump(namespace, &folder).await {
                eprintln!("    the dump failed: {error:#}");
            }
        }
    }
    if let Err(error) = world.heal().await {
        eprintln!("    unable to undo all faults: {error:#}");
    }
    if let Err(error) = world.remember_rights().await {
        eprintln!("    unable to read the agents' roles: {error:#}");
    }
    row
}

async fn perform(world: &World, scenario: &Scenario, row: &mut Row) -> Result<()> {
    let (on, body) = match scenario.body {
        Body::Alone(body) => return body(world, row).await,
        Body::Fault(on, body) => (on, body),
    };
    let herd = herd_on(world, on).await?;
    herd.steady(STEADY).await.context("before the fault")?;
    fresh_primary(world, &herd, scenario.nodes > 1).await.context("before the fault")?;
    let case = Case::begin(world, &herd, scenario.name).await.context("before the fault")?;
    let done = body(&case).await;
    row.notes = case.notes();
    if done.is_err() {
        world.heal().await?; // so that the checker can look
    }
    tokio::time::sleep(AFTERWARDS).await;
    let verdict = case.workload.finish().await;
    drop(case);
    if let Ok(verdict) = verdict.as_ref() {
        row.verdict = Some(verdict.clone());
    }
    let judged = verdict.map_or_else(|error| vec![format!("{error:#}")], |verdict| verdict.failures(scenario.promise));
    let mut failures: Vec<String> = done.err().map(|error| format!("{error:#}")).into_iter().chain(judged).collect();
    let limit = scenario.gap.map_or(Duration::MAX, |(_, limit)| Duration::from_millis(limit));
    if let Some(gap) = row.verdict.as_ref().and_then(|verdict| verdict.gap.as_ref()).filter(|gap| gap.length > limit) {
        failures.push(format!("the gap is above {:.1} s: {gap}", limit.as_secs_f64()));
    }
    if let Err(error) = herd.steady(STEADY).await {
        failures.push(format!("after the fault: {error:#}"));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// The cluster that a scenario uses, made where it is missing. The others go first.
pub async fn herd_on(world: &World, on: On) -> Result<Herd> {
    remove_others(world, on).await?;
    match on {
        On::ConfigMaps | On::Endpoints => world.herd(name_of(on), 3, on == On::Endpoints).await,
        On::Growing => growth::herd(world, &wanted(world, on)).await,
    }
}

/// Removes the clusters that other scenarios use: two at a time would only slow each other down.
pub async fn remove_others(world: &World, on: On) -> Result<()> {
    for other in [On::ConfigMaps, On::Endpoints, On::Growing].into_iter().filter(|one| *one != on) {
        let herd = Herd::new(world.namespace.clone(), &wanted(world, other));
        if herd.api().get_opt(herd.name()).await?.is_some() {
            let begin = Instant::now();
            herd.delete().await?;
            eprintln!("    {} was removed in {:.0} s", herd.name(), begin.elapsed().as_secs_f32());
        }
        if other == On::Growing {
            world.cluster.withdraw_growing_volumes().await?;
        }
    }
    Ok(())
}

fn wanted(world: &World, on: On) -> Wanted {
    Wanted { name: name_of(on), instances: 3, endpoints: on == On::Endpoints, major: world.major.clone() }
}

fn name_of(on: On) -> &'static str {
    match on {
        On::ConfigMaps => "orders",
        On::Endpoints => "lines",
        On::Growing => "growing",
    }
}

/// Clients write for two seconds without any fault.
pub async fn writes(world: &World, herd: &Herd, row: &mut Row) -> Result<()> {
    let case = Case::begin(world, herd, &row.name).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let verdict = case.workload.finish().await?;
    row.verdict = Some(verdict.clone());
    let failures = verdict.failures(Promise::QUORUM);
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// Makes a member primary whose containers were never restarted: the kubelet waits longer before each further restart,
/// which is not what a scenario measures. With `alone` it is the only one on its node as well.
async fn fresh_primary(world: &World, herd: &Herd, alone: bool) -> Result<()> {
    for _ in 0..6 {
        let members = herd.members().await?;
        let placed = |one: &Member| !alone || members.iter().filter(|other| other.node == one.node).count() == 1;
        let primary = herd.primary().await?;
        if placed(&primary) && primary.restarts == 0 {
            return Ok(());
        }
        let standbys = herd.standbys().await?;
        let fit = standbys.iter().filter(|one| placed(one)).min_by_key(|one| one.restarts);
        match fit {
            Some(used) if used.restarts > 0 => renew(world, herd, used).await?,
            Some(fresh) => switch_over(world, herd, fresh).await,
            // The primary is the only one in such a place: it is renewed as a standby.
            None if placed(&primary) => switch_over(world, herd, standbys.first().context("no standby")?).await,
            None => bail!("no member is alone on its node"),
        }
        herd.steady(STEADY).await?;
    }
    bail!("no member is fit to be the primary of this scenario")
}

/// Errors are only told: scenarios of their own judge switchovers.
async fn switch_over(world: &World, herd: &Herd, to: &Member) {
    if let Err(error) = world.plugin(&["switchover", herd.name(), "--candidate", &to.name, "--yes"]).await {
        eprintln!("    preparing: {error:#}");
    }
}

/// Deletes a standby's pod and waits for the new one.
async fn renew(world: &World, herd: &Herd, old: &Member) -> Result<()> {
    herd.namespace.api::<Pod>().delete(&old.name, &DeleteParams::default()).await?;
    let what = format!("{} is a new pod", old.name);
    world
        .cluster
        .wait(&what, STEADY, async || {
            let new = herd.member(&old.name).await?;
            Ok((new.uid == old.uid).then(|| "the old one".to_owned()))
        })
        .await
}
