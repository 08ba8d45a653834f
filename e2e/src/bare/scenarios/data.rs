//! Data directories: diverged, removed, of another cluster, with a `postmaster.pid` that names a stranger.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{FAILOVER, Play, logs};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::{ended, until};
use crate::scenarios::Row;
use crate::workload::Promise;

/// A leader that wrote what nobody else has is killed; it comes back by `pg_rewind`, and what it wrote alone is gone.
pub async fn rewind(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = Plan::new("rewind").asynchronous();
    let play = Play::begin(stage, plan).await?;
    let team = &play.team;
    let old = team.leader().await?;
    old.sql("CREATE TABLE branches (name text)").await?;
    let senders = old.sql("SELECT pid FROM pg_stat_replication").await?;
    ensure!(senders.len() == 2, "two standbys expected: {senders:?}");
    for sender in senders {
        let pid = sender.first().and_then(|pid| pid.parse().ok()).context("no pid")?;
        crate::host::process::Process::of(pid).context("no walsender")?.signal(Signal::STOP)?;
    }
    old.sql("INSERT INTO branches VALUES ('dead')").await?;
    old.kill_everything()?;
    let new = team.other_leader(&old.name, FAILOVER).await?;
    new.sql("INSERT INTO branches VALUES ('living')").await?;
    play.workload.writable(FAILOVER).await?;
    team.start(old)?;
    logs(old, "running pg_rewind from", STEADY).await?;
    // It crashed: pg_rewind wants a clean end first, which a server for one person alone makes.
    logs(old, "to complete crash recovery", STEADY).await?;
    team.steady(STEADY).await?;
    until("the old leader has the new one's rows", STEADY, async || {
        let rows = old.sql("SELECT name FROM branches").await?.concat();
        Ok(if rows == ["living"] { Ok(()) } else { Err(format!("{rows:?}")) })
    })
    .await?;
    ensure!(!old.logged().contains("trying to bootstrap from leader"), "it was copied, not rewound");
    play.end(row, Promise { keeps: false, ..Promise::QUORUM }).await
}

/// `postmaster.pid` names a living process that is no server: the start is not refused.
pub async fn pid_reused(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("pid-reused")).await?;
    let team = &play.team;
    for member in [team.leader().await?, team.standbys().await?[0]] {
        member.kill_everything()?;
        let file = member.data_dir().join("postmaster.pid");
        let text = fs::read_to_string(&file).context("postmaster.pid is gone")?;
        let (_, rest) = text.split_once('\n').context("postmaster.pid is empty")?;
        // Process 1 lives, and is no server.
        fs::write(&file, format!("1\n{rest}"))?;
        team.start(member)?;
        team.steady(STEADY).await?;
    }
    play.end(row, Promise::QUORUM).await
}

/// A data directory disappears under a standby, then under the leader: a new copy is made, and another leads.
pub async fn data_removed(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("data-removed")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    for member in [team.standbys().await?[0], leader] {
        let postmaster = member.postmaster()?;
        fs::remove_dir_all(member.data_dir()).or_else(|_| fs::remove_dir_all(member.data_dir()))?;
        // It notices within a minute by itself; nobody wants to wait for that.
        postmaster.signal(Signal::KILL)?;
        if member.name == leader.name {
            team.other_leader(&leader.name, FAILOVER).await?;
        }
        until("there is a copy, and a server on it", STEADY, async || {
            let copied = member.data_dir().join("PG_VERSION").is_file() && member.postmaster()? != postmaster;
            Ok(if copied { Ok(()) } else { Err("there is none".to_owned()) })
        })
        .await?;
        team.steady(STEADY).await?;
    }
    play.end(row, Promise::QUORUM).await
}

/// The leader's data directory disappears and nobody helps: PostgreSQL itself ends within a minute, another leads, and there is a new
/// copy.
pub async fn data_lost(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("data-lost")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let postmaster = leader.postmaster()?;
    fs::remove_dir_all(leader.data_dir()).or_else(|_| fs::remove_dir_all(leader.data_dir()))?;
    ended("the old server has ended", STEADY * 2, &postmaster).await?;
    team.other_leader(&leader.name, FAILOVER).await?;
    play.workload.writable(FAILOVER).await?;
    team.steady(STEADY).await?;
    logs(leader, "trying to bootstrap from leader", FAILOVER).await?;
    play.end(row, Promise::QUORUM).await
}

/// A member comes with the data of another cluster: it is refused with a reason, and not touched.
pub async fn foreign_data(stage: &Stage, row: &mut Row) -> Result<()> {
    let other = Team::running(stage, Plan { members: 1, first: 11, ..Plan::new("foreign-data-other") }).await?;
    let play = Play::begin(stage, Plan::new("foreign-data")).await?;
    let team = &play.team;
    let stranger = team.standbys().await?[0];
    let source = &other.members[0];
    source.sql("CREATE TABLE precious AS SELECT 1").await?;
    source.terminate(Duration::from_secs(15)).await?;
    stranger.terminate(Duration::from_secs(15)).await?;
    let kept = stranger.folder.join("kept");
    fs::rename(stranger.data_dir(), &kept)?;
    crate::host::run::run(&[
        "cp",
        "-a",
        &source.data_dir().display().to_string(),
        &stranger.data_dir().display().to_string(),
    ])?;
    let before = fs::metadata(stranger.data_dir().join("global/pg_control"))?.modified()?;
    team.start(stranger)?;
    logs(stranger, "system ID mismatch", FAILOVER).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(stranger.postmaster().is_err(), "a server was started on it");
    let after = fs::metadata(stranger.data_dir().join("global/pg_control"))?.modified()?;
    ensure!(before == after, "it was touched");
    stranger.terminate(Duration::from_secs(15)).await?;
    fs::remove_dir_all(stranger.data_dir())?;
    fs::rename(kept, stranger.data_dir())?;
    team.start(stranger)?;
    play.end(row, Promise::QUORUM).await
}
