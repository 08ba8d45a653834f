//! What a person asks for by a field: a switchover, members that stay stopped, sleep.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, EvictParams, ListParams};
use matriarch_crds::cluster::SwitchoverState;
use serde_json::json;

use super::super::case::Case;
use super::super::lock::Lock;

const A_MINUTE: Duration = Duration::from_mins(1);
const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// `switchover`, and that the former leader was silent before the next one began.
pub async fn switchover(case: &Case) -> Result<()> {
    let lock = by_field(case, ["first", "second"]).await?;
    case.fenced_before(&lock)
}

/// `switchover`: once for each id, with its result in the status; a member that cannot lead is refused with the reason.
pub async fn by_field(case: &Case, [fine, wrong]: [&str; 2]) -> Result<Lock> {
    let to = case.a_standby().await?.name;
    let before = case.herd.lock().await?;
    case.herd.patch(&json!({"switchover": {"id": fine, "to": to}})).await?;
    let lock = case.herd.other_leader(&before, A_MINUTE).await?;
    case.workload.writable(A_MINUTE).await?;
    ensure!(lock.leader == to, "{} leads instead of {to}", lock.leader);
    result(case, fine, SwitchoverState::Done).await?;
    // The same manifest once more, and an operator that looks again.
    case.herd.patch(&json!({"switchover": {"id": fine, "to": to}, "paused": false})).await?;
    let nobody = format!("{}-8", case.herd.name());
    case.herd.patch(&json!({"switchover": {"id": wrong, "to": nobody}})).await?;
    let message = result(case, wrong, SwitchoverState::Failed).await?;
    ensure!(case.herd.lock().await?.leader == to, "the lock moved");
    case.note(format!("of {nobody}: {message}"));
    case.herd.patch(&json!({"switchover": null, "paused": null})).await?;
    Ok(lock)
}

async fn result(case: &Case, id: &str, state: SwitchoverState) -> Result<String> {
    let what = format!("the status of the switchover {id} is {state:?}");
    case.cluster()
        .wait_for(&what, A_MINUTE, async || {
            let status = case.herd.status().await?.switchover;
            Ok(match status {
                Some(one) if one.id == id && one.state == state => Ok(one.message.unwrap_or_default()),
                other => Err(format!("{other:?}")),
            })
        })
        .await
}

/// `hibernate`: no pods, all volumes; awake again with everything that was acknowledged.
pub async fn hibernate(case: &Case) -> Result<()> {
    let begin = Instant::now();
    case.herd.patch(&json!({"hibernate": true})).await?;
    case.cluster()
        .wait("no pod is left", LONG_ENOUGH, async || {
            let left = case.herd.members().await?.len();
            Ok((left > 0).then(|| format!("{left} are")))
        })
        .await?;
    case.note(format!("asleep after {:.1} s", begin.elapsed().as_secs_f32()));
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    let of_cluster = ListParams::default().labels(&format!("cluster-name={}", case.herd.name()));
    let kept = claims.list(&of_cluster).await?.items.len();
    ensure!(kept >= 3, "only {kept} volume claims are left");
    let begin = Instant::now();
    case.herd.patch(&json!({"hibernate": false})).await?;
    case.workload.writable(LONG_ENOUGH).await?;
    case.note(format!("writes {:.1} s after waking", begin.elapsed().as_secs_f32()));
    case.herd.steady(LONG_ENOUGH).await?;
    case.herd.patch(&json!({"hibernate": null})).await
}

/// A PodDisruptionBudget may believe for two minutes that a pod which was evicted before is still to go: the disruption
/// controller missed the moment between the old and the new one of that name.
const EVICTED: Duration = Duration::from_secs(150);

/// `kubectl drain` of the primary's node: another leads before the pod is evicted.
pub async fn drained(case: &Case) -> Result<()> {
    let node = &case.primary.node;
    let begin = Instant::now();
    case.world.set_cordoned(node, true).await?;
    let pods: Api<Pod> = case.herd.namespace.api();
    let mut refused = 0;
    loop {
        // As kubectl does: each pod of the node is evicted, and tried again when that is refused.
        let there: Vec<_> =
            case.herd.members().await?.into_iter().filter(|one| one.node == *node && !one.deleting).collect();
        for pod in &there {
            match pods.evict(&pod.name, &EvictParams::default()).await {
                Ok(_) => {
                    let leader = case.herd.lock().await?.leader;
                    ensure!(leader != pod.name, "{leader} was evicted while it led");
                }
                Err(kube::Error::Api(status)) if status.code == 429 => refused += 1,
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
        if there.is_empty() {
            break;
        }
        if begin.elapsed() > EVICTED {
            bail!("{} pods are not evicted after {} s", there.len(), EVICTED.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let lock = case.failover(A_MINUTE).await?;
    case.note(format!("the node was empty after {:.1} s, {refused} evictions put off", begin.elapsed().as_secs_f32()));
    case.world.set_cordoned(node, false).await?;
    case.herd.steady(LONG_ENOUGH).await.context("after the node was opened")?;
    case.fenced_before(&lock)
}

/// `fenced`: PostgreSQL of a standby stops and its pod stays; a leader hands over first; lifted, all stream again.
pub async fn fence(case: &Case) -> Result<()> {
    let standby = case.a_standby().await?;
    for member in [standby.name.clone(), case.primary.name.clone()] {
        let before = case.herd.member(&member).await?;
        let postmaster = case.herd.postmaster(&member).await?;
        let begin = Instant::now();
        case.herd.patch(&json!({"fenced": [member]})).await?;
        let what = format!("PostgreSQL of {member} is stopped");
        case.cluster().wait(&what, A_MINUTE, async || Ok(postmaster.is_alive().then(|| "it runs".to_owned()))).await?;
        case.note(format!("{member} stopped after {:.1} s", begin.elapsed().as_secs_f32()));
        case.workload.writable(A_MINUTE).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = case.herd.member(&member).await?;
        ensure!(now.uid == before.uid, "the pod of {member} was replaced");
        ensure!(case.herd.postmaster(&member).await.is_err(), "PostgreSQL of {member} was started again");
        ensure!(case.herd.lock().await?.leader != member, "{member} still leads");
        let begin = Instant::now();
        case.herd.patch(&json!({"fenced": null})).await?;
        case.herd.steady(LONG_ENOUGH).await.context("after the fence was lifted")?;
        case.note(format!("back after {:.1} s", begin.elapsed().as_secs_f32()));
    }
    Ok(())
}
