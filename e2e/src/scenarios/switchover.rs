//! A planned switchover, as a person asks for it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::case::Case;

/// To a candidate, by `kubectl matriarch switchover`.
pub async fn to_a_candidate(case: &Case) -> Result<()> {
    let candidate = case.a_standby().await?;
    let args = ["switchover", case.herd.name(), "--candidate", &candidate.name, "--yes"];
    case.world.plugin(&args).await?;
    let lock = case.failover(Duration::from_secs(20)).await?;
    ensure!(lock.leader == candidate.name, "{} leads instead of {}", lock.leader, candidate.name);
    case.fenced_before(&lock)
}
