//! What happens to running servers: kills, freezes, switchovers, members that leave.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kube::api::DeleteParams;
use rustix::process::Signal;

use super::{FAILOVER, Play, switch_over};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY};
use crate::bare::wait::{ended, until};
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// There and back by REST, as patronictl does.
pub async fn switchover(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("switchover")).await?;
    let team = &play.team;
    let begin = clock::now();
    for _ in 0..2 {
        let to = team.standbys().await?[0].name.clone();
        switch_over(team, &to).await?;
        ensure!(team.leader().await?.name == to, "{to} does not lead");
        team.steady(STEADY).await?;
    }
    play.no_gap(begin, Duration::from_secs(2))?;
    play.end(row, Promise::QUORUM).await
}

/// A killed postmaster is started again in its place, whoever's it is.
pub async fn postmaster_killed(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("postmaster-killed")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let standby = team.standbys().await?[0];
    for member in [standby, leader] {
        let begin = clock::now();
        let old = member.postmaster()?;
        old.signal(Signal::KILL)?;
        until("another postmaster runs", STEADY, async || {
            Ok(if member.postmaster()? == old { Err("the old one") } else { Ok(()) }.map_err(str::to_owned))
        })
        .await?;
        team.steady(STEADY).await?;
        play.workload.writable(STEADY).await?;
        play.no_gap(begin, Duration::from_secs(5))?;
    }
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    play.end(row, Promise::QUORUM).await
}

/// Without its supervisor no server lives on, and the agent starts another one.
pub async fn supervisor_killed(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("supervisor-killed")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let (supervisor, postmaster) = (leader.supervisor()?, leader.postmaster()?);
    supervisor.signal(Signal::KILL)?;
    ended("the postmaster is gone", Duration::from_secs(2), &postmaster).await?;
    until("another supervisor runs", Duration::from_secs(10), async || Ok(Ok(leader.supervisor()?))).await?;
    play.workload.writable(FAILOVER).await?;
    play.end(row, Promise::QUORUM).await
}

/// Three times everything of the leader is killed at once; nothing that was acknowledged is lost.
pub async fn quorum_kills(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("quorum-kills")).await?;
    let team = &play.team;
    for _ in 0..3 {
        let old = team.leader().await?;
        old.kill_everything()?;
        team.other_leader(&old.name, FAILOVER).await?;
        play.workload.writable(FAILOVER).await?;
        team.start(old)?;
        team.steady(STEADY).await?;
    }
    play.end(row, Promise::QUORUM).await
}

/// Everything of all members is killed in one moment, and started again: a leader is found, and nothing that was acknowledged is lost.
pub async fn all_killed(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("all-killed")).await?;
    let team = &play.team;
    for _ in 0..3 {
        let begin = clock::now();
        let all: Vec<_> = team.members.iter().flat_map(Member::processes).collect();
        for process in all {
            process.signal(Signal::KILL)?;
        }
        for member in &team.members {
            member.kill_everything()?;
        }
        team.start_all()?;
        play.workload.writable(STEADY).await?;
        play.no_gap(begin, Duration::from_secs(30))?;
        team.steady(STEADY).await?;
    }
    play.end(row, Promise::QUORUM).await
}

/// Agent, supervisor and `PostgreSQL` of the leader stand still until another leads, and then go on.
pub async fn frozen(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("frozen")).await?;
    let team = &play.team;
    let old = team.leader().await?;
    let all = old.freeze()?;
    let outcome = async {
        team.other_leader(&old.name, FAILOVER).await?;
        play.workload.writable(FAILOVER).await
    }
    .await;
    for process in all {
        process.signal(Signal::CONT)?;
    }
    outcome?;
    play.end(row, Promise::QUORUM).await
}

/// Both standbys leave for good, and the last one goes on alone; then they come again.
pub async fn drop_to_one(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("drop-to-one")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let standbys = team.standbys().await?;
    for standby in &standbys {
        let status = standby.terminate(Duration::from_secs(15)).await?;
        ensure!(status.success(), "the agent of {} ended with {status}", standby.name);
        team.pods().delete(&standby.name, &DeleteParams::default().grace_period(0)).await?;
    }
    play.workload.writable(FAILOVER).await?;
    until("no standby is waited for", FAILOVER, async || {
        let names = leader.value("SHOW synchronous_standby_names").await?;
        Ok(if names.is_empty() { Ok(()) } else { Err(names) })
    })
    .await?;
    if team.leader().await?.name != leader.name {
        bail!("the lock moved");
    }
    for standby in standbys {
        team.create_pod(&standby.name).await?;
        team.start(standby)?;
    }
    play.end(row, Promise::QUORUM).await
}
