//! The store: gone, wiped, and Pod objects that are replaced.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::DeleteParams;

use super::{FAILOVER, Play};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY};
use crate::bare::wait::{ended, until};
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// While the API server is away and all members agree, the primary goes on; when one of them is gone as well it stops, and nobody
/// takes over behind its back.
pub async fn failsafe(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("failsafe")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    goes_on_without_api(stage, &play, leader, Duration::from_secs(12)).await?;

    let standby = team.members.iter().find(|member| member.name != leader.name).context("no standby")?;
    stops_without(stage, &play, leader, standby, FAILOVER).await?;
    play.end(row, Promise::QUORUM).await
}

/// The API server goes away, and after so long clients have hardly noticed. It stays away.
pub async fn goes_on_without_api(stage: &Stage, play: &Play<'_>, leader: &Member, away: Duration) -> Result<()> {
    let begin = clock::now();
    stage.plane.stop_api_server();
    tokio::time::sleep(away).await;
    let when = || format!("{} s after the API server went away", away.as_secs());
    play.workload.writable(Duration::from_secs(1)).await.with_context(when)?;
    play.no_gap(begin, Duration::from_secs(1))?;
    let status = leader.status().await?;
    ensure!(status["failsafe_mode_is_active"] == true, "failsafe mode is not active: {status}");
    Ok(())
}

/// With the API server away a member dies: the primary stops. Then both come back.
pub async fn stops_without(
    stage: &Stage,
    play: &Play<'_>,
    leader: &Member,
    member: &Member,
    limit: Duration,
) -> Result<()> {
    let postmaster = leader.postmaster()?;
    member.kill_everything()?;
    ended("the primary stops", limit, &postmaster).await?;
    stage.plane.start_api_server()?;
    stage.plane.ready().await?;
    play.workload.writable(STEADY).await?;
    play.team.start(member)
}

/// The `config` object vanishes: settings stay in force, nobody makes a new cluster, and the object comes back.
pub async fn wiped_config(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = Plan::new("wiped-config");
    let play = Play::begin(stage, plan).await?;
    let team = &play.team;
    let (leader, begin) = (team.leader().await?, clock::now());
    let system = leader.value("SELECT system_identifier FROM pg_control_system()").await?;
    team.wipe("config").await?;
    until("the object is there again", FAILOVER, async || {
        let id = team.annotation("config", "initialize").await?;
        let config = team.annotation("config", "config").await?;
        let whole = id.as_deref() == Some(system.as_str()) && config.is_some_and(|text| text.contains("quorum"));
        Ok(if whole { Ok(()) } else { Err(format!("initialize is {id:?}")) })
    })
    .await?;
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    play.no_gap(begin, Duration::from_secs(1))?;
    play.end(row, Promise::QUORUM).await
}

/// Every object of the cluster vanishes at once: the leader goes on and makes them anew.
pub async fn wiped_all(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("wiped-all")).await?;
    let team = &play.team;
    let (leader, begin) = (team.leader().await?, clock::now());
    let system = leader.value("SELECT system_identifier FROM pg_control_system()").await?;
    for suffix in ["leader", "config", "sync"] {
        team.wipe(suffix).await?;
    }
    until("the objects are there again", FAILOVER, async || {
        let id = team.annotation("config", "initialize").await?;
        let holder = team.annotation("leader", "leader").await?;
        let whole = id.as_deref() == Some(system.as_str()) && holder.as_deref() == Some(leader.name.as_str());
        Ok(if whole { Ok(()) } else { Err(format!("initialize is {id:?}, the leader {holder:?}")) })
    })
    .await?;
    play.no_gap(begin, Duration::from_secs(2))?;
    play.end(row, Promise::QUORUM).await
}

/// The leader's Pod object is another one of the same name: the agent ends in order, and started again it is that pod.
pub async fn pod_replaced(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("pod-replaced")).await?;
    let team = &play.team;
    let old = team.leader().await?;
    team.pods().delete(&old.name, &DeleteParams::default().grace_period(0)).await?;
    team.create_pod(&old.name).await?;
    let status = old.ended(Duration::from_secs(20)).await?;
    ensure!(status.success(), "the agent ended with {status}");
    team.other_leader(&old.name, FAILOVER).await?;
    play.workload.writable(FAILOVER).await?;
    team.start(old)?;
    play.end(row, Promise::QUORUM).await
}
