//! What is done to a cluster that runs: members are fenced, passwords change.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::{FAILOVER, Play, logs};
use crate::bare::member::{Member, get};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::{ended, until};
use crate::scenarios::Row;
use crate::workload::Promise;

async fn fence(team: &Team<'_>, names: &[&str]) -> Result<()> {
    team.edit_config(json!({"matriarch": {"fenced": names}})).await
}

/// A fenced member says so and stays stopped, whatever happens to its agent.
async fn stays_stopped(team: &Team<'_>, member: &Member) -> Result<()> {
    until("its reason is told", FAILOVER, async || {
        let status = member.status().await?;
        let told = status["state"] == "stopped" && status.to_string().contains("fenced");
        Ok(if told { Ok(()) } else { Err(status.to_string()) })
    })
    .await?;
    ensure!(get(member.address, "/liveness").await?.0 == 200, "it does not count as alive");
    ensure!(get(member.address, "/readiness").await?.0 == 503, "it counts as ready");
    let (code, text) = member.post("/restart", &json!({})).await?;
    ensure!(code == 503 && text.contains("fenced"), "a restart was answered {code} {text}");
    member.kill_agent()?;
    team.start(member)?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(member.postmaster().is_err(), "it was started by a new agent");
    Ok(())
}

/// A standby is fenced, then the leader in its place, then nobody.
pub async fn fenced(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("fenced")).await?;
    let team = &play.team;
    let (leader, standby) = (team.leader().await?, team.standbys().await?[0]);
    let postmaster = standby.postmaster()?;
    fence(team, &[&standby.name, "nobody"]).await?;
    ended("the standby is stopped", FAILOVER, &postmaster).await?;
    stays_stopped(team, standby).await?;
    play.workload.writable(FAILOVER).await?;

    fence(team, &[]).await?;
    team.steady(STEADY).await?;
    let postmaster = leader.postmaster()?;
    fence(team, &[&leader.name]).await?;
    ended("the leader is stopped", FAILOVER, &postmaster).await?;
    team.other_leader(&leader.name, FAILOVER).await?;
    stays_stopped(team, leader).await?;
    fence(team, &[]).await?;
    team.steady(STEADY).await?;
    play.end(row, Promise::QUORUM).await
}

/// Passwords change in the members' files, the leader's last, and nothing restarts.
pub async fn passwords(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("passwords")).await?;
    let team = &play.team;
    let (leader, standbys) = (team.leader().await?, team.standbys().await?);
    let servers = team.members.iter().map(Member::postmaster).collect::<Result<Vec<_>>>()?;
    for member in standbys.into_iter().chain([leader]) {
        let mut file = team.plan.patroni(member);
        for user in ["replication", "rewind"] {
            file["postgresql"]["authentication"][user]["password"] = json!(format!("another {user}"));
        }
        member.configure(&file)?;
        member.agent()?.signal(Signal::HUP)?;
    }
    for role in ["replicator", "rewind_user"] {
        logs(leader, &format!("the role has its new password role={role}"), FAILOVER).await?;
    }
    // New streams log in with it.
    leader.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await?;
    team.steady(STEADY).await?;
    let after = team.members.iter().map(Member::postmaster).collect::<Result<Vec<_>>>()?;
    ensure!(servers == after, "something was restarted");
    play.end(row, Promise::QUORUM).await
}
