//! Primaries that nobody hears, and that still run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::case::Case;
use super::lock::Lock;
use super::pods::force;

const A_MINUTE: Duration = Duration::from_mins(1);

/// All of the primary's pod is frozen, fence included, and cut off; when another member leads it is reachable again and
/// thaws. Nothing that it then executes may be acknowledged.
pub async fn frozen(case: &Case) -> Result<()> {
    let new = freeze_and_thaw(case).await?;
    case.fenced_before(&new)
}

/// The same with durability async: what the thawed primary acknowledges until its fence has closed is lost, and counted.
pub async fn frozen_async(case: &Case) -> Result<()> {
    set_durability(case, "async").await?;
    let new = freeze_and_thaw(case).await?;
    let taken = new.acquired_at().context("the new lock has no acquireTime")?;
    let last = case.last_of_old()?.done;
    case.note(match last.checked_sub(taken) {
        Some(after) => {
            format!("the old primary acknowledged until {:.2} s after the new one's lock", after.as_secs_f64())
        }
        None => "the old primary acknowledged nothing after its thaw".to_owned(),
    });
    set_durability(case, "quorum").await
}

async fn set_durability(case: &Case, durability: &str) -> Result<()> {
    case.herd.patch(&json!({"durability": durability})).await?;
    let config = case.herd.names.config();
    let wanted = format!("\"synchronous_mode\":{}", if durability == "async" { "false" } else { "\"quorum\"" });
    case.cluster()
        .wait(&format!("the agents are told {durability}"), A_MINUTE, async || {
            let text = case.herd.annotations(&config).await?.remove("config").unwrap_or_default();
            Ok((!text.contains(&wanted)).then_some(text))
        })
        .await?;
    case.herd.steady(A_MINUTE).await?;
    tokio::time::sleep(Duration::from_secs(3)).await; // a loop or two, until PostgreSQL has it
    Ok(())
}

async fn freeze_and_thaw(case: &Case) -> Result<Lock> {
    let (cluster, own, old) = (case.cluster(), case.namespace(), case.primary.name.as_str());
    cluster.set_pod_cut(own, old, true).await?;
    cluster.set_pod_frozen(own, old, true).await?;
    let new = case.failover(A_MINUTE).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The network first: clients are at the door when it wakes.
    cluster.set_pod_cut(own, old, false).await?;
    cluster.set_pod_frozen(own, old, false).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(new)
}

/// The primary's node loses its cable. Its pod is deleted by force and its volume claim with it, so that a new pod of the
/// same name starts on another node while the old PostgreSQL runs on. The new one is empty and the lock is not its own, so
/// another member has to take over, and only after the old one's fence has closed.
pub async fn same_name(case: &Case) -> Result<()> {
    let (cluster, old) = (case.cluster(), &case.primary);
    let alone = case.herd.members().await?.iter().filter(|one| one.node == old.node).count() == 1;
    ensure!(alone, "{} shares its node with another member", old.name);
    let postmaster = case.herd.postmaster(&old.name).await?;
    // Nobody sees at once that the node is gone: without this the scheduler would choose it again.
    case.world.set_cordoned(&old.node, true).await?;
    cluster.set_node_cut(&old.node, true)?;
    let cut = Instant::now();
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    // It goes as soon as no pod uses it.
    claims.delete(&format!("data-{}", old.name), &DeleteParams::default()).await?;
    force(case, &old.name).await?;
    ensure!(postmaster.is_alive(), "PostgreSQL had stopped before there was a new pod");
    let lock = case.failover(A_MINUTE).await?;
    case.note(format!("{} took over", lock.leader));
    case.fenced_before(&lock)?;
    let what = format!("a new pod {} runs on another node", old.name);
    let new = cluster
        .wait_for(&what, A_MINUTE, async || {
            let new = case.herd.member(&old.name).await?;
            let runs = new.uid != old.uid && !new.node.is_empty() && !new.address.is_empty();
            Ok(if runs { Ok(new) } else { Err(format!("uid {}, node {:?}", new.uid, new.node)) })
        })
        .await?;
    ensure!(new.node != old.node, "the new pod is on the same node");
    case.herd.streaming(Duration::from_secs(90)).await?;
    let seconds = cut.elapsed().as_secs_f32();
    case.note(format!("all stream, the new {} too, after {seconds:.0} s, the old node still cut off", new.name));
    cluster.set_node_cut(&old.node, false)?;
    case.world.set_cordoned(&old.node, false).await?;
    cluster
        .wait("the old node's PostgreSQL is gone", A_MINUTE, async || {
            Ok(postmaster.is_alive().then(|| "its postmaster runs".to_owned()))
        })
        .await?;
    cluster.wait("the old node is ready", A_MINUTE, || node_ready(case)).await
}

async fn node_ready(case: &Case) -> Result<Option<String>> {
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(case.cluster().client());
    let node = nodes.get(&case.primary.node).await.context("no node")?;
    Ok((!crate::cluster::is_ready(&node)).then(|| "not ready".to_owned()))
}
