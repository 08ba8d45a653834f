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

/// To each standby in turn, until the first primary leads again.
pub async fn there_and_back(case: &Case) -> Result<()> {
    let mut to: Vec<String> = case.herd.standbys().await?.into_iter().map(|one| one.name).collect();
    to.push(case.primary.name.clone());
    for candidate in to {
        let args = ["switchover", case.herd.name(), "--candidate", &candidate, "--yes"];
        case.world.plugin(&args).await?;
        case.workload.writable(Duration::from_secs(20)).await?;
        case.herd.steady(Duration::from_mins(1)).await?;
        let lock = case.herd.lock().await?;
        ensure!(lock.leader == candidate, "{} leads instead of {candidate}", lock.leader);
    }
    Ok(())
}
