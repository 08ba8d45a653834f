//! The watchdog device: without it, where it is required, nobody becomes a primary.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{FAILOVER, Play};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team, merge};
use crate::scenarios::Row;
use crate::workload::Promise;

/// A pipe that nobody reads cannot be opened for writing: a device that does not work.
fn device(stage: &Stage, member: &Member) -> Result<()> {
    let device = member.folder.join("watchdog");
    crate::host::run::run(&["mkfifo", &device.display().to_string()])?;
    chown(&device, Some(stage.postgres.uid), Some(stage.postgres.gid))?;
    Ok(())
}

/// Now it works, as long as this is kept.
fn works(member: &Member) -> Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    Ok(File::options().read(true).custom_flags(flags).open(member.folder.join("watchdog"))?)
}

/// `watchdog.mode: required`: who cannot open its device never leads, even when nobody else is left; it does as soon as it can.
pub async fn required(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = Team::new(stage, Plan::new("watchdog-required")).await?;
    for member in &team.members {
        device(stage, member)?;
        let mut file = team.plan.patroni(member);
        let path = member.folder.join("watchdog");
        merge(&mut file, json!({"watchdog": {"mode": "required", "safety_margin": 2, "device": path}}));
        member.configure(&file)?;
    }
    let (first_works, with_works) = (works(&team.members[0])?, works(&team.members[2])?);
    team.start(&team.members[0])?;
    team.steady(STEADY).await?;
    team.start_all()?;
    team.steady(STEADY).await?;
    let play = Play::on(team).await?;
    let team = &play.team;
    let (first, without, with) = (&team.members[0], &team.members[1], &team.members[2]);
    first.kill_everything()?;
    let new = team.other_leader(&first.name, FAILOVER * 2).await?;
    ensure!(new.name == with.name, "{} leads without a watchdog", new.name);
    play.workload.writable(FAILOVER).await?;
    team.start(first)?;
    team.steady(STEADY).await?;
    // Nobody's works but of the dead one.
    drop(first_works);
    with.kill_everything()?;
    drop(with_works);
    tokio::time::sleep(Duration::from_secs(12)).await;
    for member in [first, without] {
        let primary = member.value("SELECT NOT pg_is_in_recovery()").await.is_ok_and(|answer| answer == "t");
        ensure!(!primary, "{} is a primary without a watchdog", member.name);
    }
    ensure!(without.logged().contains("watchdog"), "{} does not say why", without.name);
    let _works = works(without)?;
    team.other_leader(&with.name, FAILOVER * 2).await?;
    play.workload.writable(FAILOVER).await?;
    team.start(with)?;
    play.end(row, Promise::QUORUM).await
}
