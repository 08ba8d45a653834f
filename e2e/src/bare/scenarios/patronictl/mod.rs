//! Patroni's own `patronictl` against our agents: every command, by its output, and what it says when it is wrong.

mod cluster;
mod config;
mod look;
mod metrics;
mod orders;
mod steer;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Play;
use crate::bare::ctl::Ctl;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::scenarios::Row;
use crate::workload::Promise;

pub use cluster::{demoted_and_promoted, endpoints};

/// Of the REST API.
const USER: &str = "keeper";
const PASSWORD: &str = "ivory: tower%";

/// Members that want a password for what changes something.
fn plan(name: &str) -> Plan {
    Plan::new(name).file(json!({"restapi": {"authentication": {"username": USER, "password": PASSWORD}}}))
}

/// Somebody who knows it.
fn keeper(stage: &Stage, team: &Team<'_>) -> Result<Ctl> {
    Ctl::new(stage, team, Some((USER, PASSWORD)))
}

/// Looks; without the password nothing else is possible.
pub async fn looks(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = Team::running(stage, plan("patronictl")).await?;
    let ctl = keeper(stage, &team)?;
    look::members(&team, &ctl).await?;
    look::others(&team, &ctl).await?;
    metrics::read(&team, &stage.patroni).await?;
    for stranger in [Ctl::new(stage, &team, None)?, Ctl::new(stage, &team, Some((USER, "wrong")))?] {
        refused(&team, &stranger).await?;
    }
    team.steady(STEADY).await?;
    row.note("no clients");
    Ok(())
}

/// Changes the configuration, pauses and resumes.
pub async fn configures(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = Team::running(stage, plan("patronictl-config")).await?;
    let ctl = keeper(stage, &team)?;
    config::edited(&team, &ctl).await?;
    config::bad_edits(&team, &ctl).await?;
    config::paused(&team, &ctl).await?;
    team.steady(STEADY).await?;
    row.note("no clients");
    Ok(())
}

/// Who does not know the password may look, and nothing else.
async fn refused(team: &Team<'_>, stranger: &Ctl) -> Result<()> {
    let (scope, leader) = (team.plan.name.as_str(), team.leader().await?);
    let old = leader.postmaster()?;
    ensure!(stranger.list().await?.len() == 3, "a stranger cannot look");
    stranger.says(&["restart", scope, &leader.name, "--force"], "status code=401").await?;
    stranger.says(&["pause", scope], "status code=401").await?;
    stranger.says(&["switchover", scope, "--force"], "Switchover failed, details: 401").await?;
    ensure!(leader.postmaster()? == old, "a stranger restarted the leader");
    ensure!(team.leader().await?.name == leader.name, "a stranger moved the lock");
    Ok(())
}

/// Moves the lead in every way, under clients that write.
pub async fn steers(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, plan("patronictl-steers")).await?;
    let ctl = keeper(stage, &play.team)?;
    steer::switchover(&play.team, &ctl).await?;
    steer::refusals(&play.team, &ctl).await?;
    steer::scheduled(&play.team, &ctl).await?;
    steer::failover(&play.team, &ctl).await?;
    play.end(row, Promise::QUORUM).await
}

/// Restarts in every way and copies members again, under clients that write.
pub async fn orders(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, plan("patronictl-orders")).await?;
    let ctl = keeper(stage, &play.team)?;
    orders::restarts(&play.team, &ctl).await?;
    orders::scheduled(&play.team, &ctl).await?;
    orders::copies(&play.team, &ctl).await?;
    play.end(row, Promise::QUORUM).await
}

/// Reloads a member's file, and restarts what waits for it.
pub async fn reloads(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = Team::running(stage, plan("patronictl-reload")).await?;
    let ctl = keeper(stage, &team)?;
    config::reloaded(&team, &ctl).await?;
    orders::pending(&team, &ctl).await?;
    row.note("no clients");
    Ok(())
}
