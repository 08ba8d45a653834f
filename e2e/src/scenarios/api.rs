//! The API server is away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep_until};

use super::case::Case;
use super::list::{LONG, TTL};
use crate::workload::clock;

const A_MINUTE: Duration = Duration::from_mins(1);

/// With all members alive: they agree that the primary goes on.
pub async fn down(case: &Case) -> Result<()> {
    case.cluster().stop_api_server()?;
    let until = Instant::now() + LONG;
    sleep_until(until).await;
    case.world.start_api_server().await?;
    case.workload.writable(A_MINUTE).await?;
    let lock = case.herd.lock().await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    case.world.wake_kubernetes().await
}

/// With one member silent, nobody knows whether it leads elsewhere: the primary stops taking writes within ttl.
pub async fn down_with_a_member_gone(case: &Case) -> Result<()> {
    let (cluster, own, gone) = (case.cluster(), case.namespace(), case.a_standby().await?);
    cluster.set_pod_frozen(own, &gone.name, true).await?;
    let stopped = clock::now();
    cluster.stop_api_server()?;
    let until = Instant::now() + LONG;
    sleep_until(until).await;
    let last = case.workload.history().last(|_| true).context("nothing was acknowledged")?;
    let after = last.done.saturating_sub(stopped);
    let here = clock::now();
    case.world.start_api_server().await?;
    cluster.set_pod_frozen(own, &gone.name, false).await?;
    ensure!(after < TTL, "the primary acknowledged writes {after:.1?} after the API server had gone");
    case.note(format!("the primary stopped {:.1} s after the API server had gone", after.as_secs_f64()));
    case.workload.writable(A_MINUTE).await?;
    let first = case.workload.history().first(|one| one.sent > here).context("no write since")?;
    case.note(format!("writes {:.1} s after its return", first.done.saturating_sub(here).as_secs_f64()));
    case.world.wake_kubernetes().await
}
