//! Processes of the primary's pod that die or hang.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use matriarch_crds::names::{AGENT_CONTAINER, POSTGRES_CONTAINER};
use tokio::time::{Instant, sleep_until};

use super::case::Case;
use super::list::LONG;

const A_MINUTE: Duration = Duration::from_mins(1);

/// SIGKILL to the postmaster: the supervisor reports it at once, the agent starts it again in place.
pub async fn postmaster(case: &Case) -> Result<()> {
    let old = case.herd.postmaster(&case.primary.name).await?;
    case.cluster().kill(&[old])?;
    case.recovered(A_MINUTE).await.map(drop)
}

/// SIGKILL to all processes of the pod but its sandbox: the kubelet starts the containers again.
pub async fn everything(case: &Case) -> Result<()> {
    let all = case.processes(&case.primary.name, None).await?;
    case.cluster().kill(&all)?;
    case.recovered(A_MINUTE).await.map(drop)
}

/// SIGKILL to all processes of all pods at one moment: everything recovers from a crash.
pub async fn every_pod(case: &Case) -> Result<()> {
    let mut all = Vec::new();
    for member in case.herd.members().await? {
        all.extend(case.processes(&member.name, None).await?);
    }
    case.cluster().kill(&all)?;
    case.recovered(A_MINUTE).await.map(drop)
}

/// SIGKILL to the agent: PostgreSQL goes on, and the next agent finds it.
pub async fn agent(case: &Case) -> Result<()> {
    let postmaster = case.herd.postmaster(&case.primary.name).await?;
    let agent = case.processes(&case.primary.name, Some(AGENT_CONTAINER)).await?;
    case.cluster().kill(&agent)?;
    let what = format!("{} has a new agent", case.primary.name);
    let same = &case.primary.name;
    case.cluster()
        .wait(&what, A_MINUTE, async || {
            let now = case.herd.member(same).await?;
            Ok((now.restarts <= case.primary.restarts || !now.ready).then(|| format!("{} restarts", now.restarts)))
        })
        .await?;
    let lock = case.recovered(A_MINUTE).await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    ensure!(postmaster.is_alive(), "PostgreSQL was restarted");
    Ok(())
}

/// SIGKILL to the supervisor, process 1 of its container: all of PostgreSQL dies with it.
pub async fn supervisor(case: &Case) -> Result<()> {
    let all = case.processes(&case.primary.name, Some(POSTGRES_CONTAINER)).await?;
    let first = all.first().copied().context("no supervisor")?;
    case.cluster().kill(&[first])?;
    case.recovered(A_MINUTE).await.map(drop)
}

/// SIGSTOP to the agent for long: the supervisor has to stop PostgreSQL before another member takes the lock.
pub async fn agent_stopped(case: &Case) -> Result<()> {
    let agent = case.processes(&case.primary.name, Some(AGENT_CONTAINER)).await?;
    let until = Instant::now() + LONG;
    case.cluster().freeze(&agent)?;
    let new = case.failover(A_MINUTE).await;
    sleep_until(until).await;
    case.cluster().thaw(&agent)?;
    case.fenced_before(&new?)
}
