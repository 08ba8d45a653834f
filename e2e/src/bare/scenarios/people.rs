//! What people ask for: pause, orders for later, failovers by hand; and what they do behind everybody's back.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{Timestamp, ToSpan as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{FAILOVER, Play, switch_over};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::{ended, until};
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// Pauses or resumes, and waits until every member knows it.
async fn pause(team: &Team<'_>, on: bool) -> Result<()> {
    team.edit_config(json!({"pause": if on { json!(true) } else { Value::Null }})).await?;
    until(&format!("pause is {on}"), FAILOVER, async || {
        for member in &team.members {
            let status = member.status().await?;
            if (status["pause"] == true) != on {
                return Ok(Err(format!("not yet at {}", member.name)));
            }
        }
        Ok(Ok(()))
    })
    .await
}

/// In pause a crashed primary stays down and nobody takes over; agents may end and come again. After it all is as before.
pub async fn paused(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("pause")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    pause(team, true).await?;
    // Patroni's shutdown leaves PostgreSQL alone in pause.
    let postmaster = leader.postmaster()?;
    let begin = clock::now();
    leader.terminate(Duration::from_secs(5)).await?;
    // Longer than the fence would have waited.
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(postmaster.is_alive(), "PostgreSQL was stopped in pause, or fenced");
    play.no_gap(begin, Duration::from_secs(1))?;
    team.start(leader)?;
    team.steady(STEADY).await?;
    ensure!(leader.postmaster()? == postmaster, "PostgreSQL was started anew");

    postmaster.signal(Signal::KILL)?;
    // Longer than the lock would have lasted.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for member in &team.members {
        let primary = member.value("SELECT NOT pg_is_in_recovery()").await.is_ok_and(|answer| answer == "t");
        ensure!(!primary, "{} is a primary, in pause", member.name);
    }
    pause(team, false).await?;
    play.end(row, Promise::QUORUM).await
}

/// A primary whose archiver is slow takes long to stop: the lock does not wait for it, once a standby has the end of the log; and with
/// `primary_stop_timeout` neither does anybody else.
pub async fn slow_stop(stage: &Stage, row: &mut Row) -> Result<()> {
    let slow = json!({"postgresql": {"parameters": {"archive_mode": "on", "archive_command": "sleep 8"}}});
    let play = Play::begin(stage, Plan::new("slow-stop").dcs(slow)).await?;
    let team = &play.team;
    let standbys = team.standbys().await?;
    let (old, to) = (team.leader().await?, standbys.first().context("no standby")?);
    let postmaster = old.postmaster()?;
    old.sql("SELECT pg_switch_wal()").await?;
    let begin = clock::now();
    switch_over(team, &to.name).await?;
    ensure!(postmaster.is_alive(), "the old primary had stopped: the archiver was not slow");
    play.workload.writable(FAILOVER).await?;
    play.no_gap(begin, Duration::from_secs(5))?;
    team.steady(STEADY).await?;
    ensure!(!postmaster.is_alive(), "the old primary did not stop");
    // Back, with a bound.
    team.edit_config(json!({"primary_stop_timeout": 2})).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let postmaster = to.postmaster()?;
    to.sql("SELECT pg_switch_wal()").await?;
    switch_over(team, &old.name).await?;
    ended("the primary is stopped before its archiver is done", Duration::from_secs(5), &postmaster).await?;
    play.end(row, Promise::QUORUM).await
}

/// In pause somebody stops the primary and starts it again by hand. Whatever comes of it after the resume: never two primaries,
/// nothing lost, and in the end all is well.
pub async fn restart_behind_our_back(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("restart-by-hand")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    pause(team, true).await?;
    by_hand(leader, &["stop", "-m", "fast", "-w"]).await?;
    by_hand(leader, &["start", "-w", "-l", &leader.folder.join("by-hand.log").display().to_string()]).await?;
    play.workload.writable(FAILOVER).await.context("after the restart by hand")?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    pause(team, false).await?;
    play.end(row, Promise::QUORUM).await
}

/// `pg_ctl` as PostgreSQL's user.
async fn by_hand(member: &Member, arguments: &[&str]) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(member.postgres.bin_dir.join("pg_ctl"));
    command.uid(member.postgres.uid).gid(member.postgres.gid).current_dir("/").stdin(std::process::Stdio::null());
    // pg_ctl's children keep its output open: it goes where nobody waits for its end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let address =
        format!("-c listen_addresses={} -c unix_socket_directories={}", member.address, member.folder.display());
    let status = {
        command.arg("-D").arg(member.data_dir()).args(arguments);
        if arguments.contains(&"start") {
            command.arg("-o").arg(address);
        }
        tokio::task::spawn_blocking(move || command.status()).await??
    };
    ensure!(status.success(), "pg_ctl {arguments:?} ended with {status}");
    Ok(())
}

/// A switchover for later is done when it is due, and not before; the history tells of it.
pub async fn scheduled(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("scheduled")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let to = team.standbys().await?[0];
    let at = Timestamp::now() + 6.seconds();
    let body = json!({"leader": leader.name, "candidate": to.name, "scheduled_at": at.to_string()});
    let (code, text) = leader.post("/switchover", &body).await?;
    ensure!(code == 202, "scheduling was answered {code} {text}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(team.leader().await?.name == leader.name, "it was done too early");
    let new = team.other_leader(&leader.name, FAILOVER).await?;
    ensure!(new.name == to.name, "{} leads instead of {}", new.name, to.name);
    if Timestamp::now() < at {
        bail!("it was done too early");
    }
    let text = until("the history tells it", FAILOVER, async || {
        let text = team.annotation("config", "history").await?;
        Ok(text.filter(|text| text.contains(&to.name)).ok_or_else(|| "it does not".to_owned()))
    })
    .await?;
    let history: Value = serde_json::from_str(&text)?;
    ensure!(history[0][0] == 1 && history[0][4] == to.name.as_str(), "the history is {history}");
    play.end(row, Promise::QUORUM).await
}

/// `patronictl failover` chooses a member, also when nobody leads.
pub async fn failover_by_hand(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("failover-by-hand")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let to = team.standbys().await?[1];
    let (code, text) = leader.post("/failover", &json!({"candidate": to.name})).await?;
    ensure!(code == 200, "the failover was answered {code} {text}");
    ensure!(team.leader().await?.name == to.name, "{} does not lead", to.name);
    team.steady(STEADY).await?;
    // And back, so that the cluster ends where it began.
    switch_over(team, &leader.name).await?;
    play.end(row, Promise::QUORUM).await
}

/// `patronictl restart` of every member and `patronictl reinit` of a standby.
pub async fn orders(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("orders")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let begin = clock::now();
    for member in &team.members {
        let old = member.postmaster()?;
        let (code, text) = member
            .post("/restart", &json!({"role": if member.name == leader.name { "primary" } else { "replica" }}))
            .await?;
        ensure!(code == 200, "the restart of {} was answered {code} {text}", member.name);
        ensure!(member.postmaster()? != old, "{} was not restarted", member.name);
        team.steady(STEADY).await?;
    }
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    play.no_gap(begin, Duration::from_secs(5))?;
    let standby = team.standbys().await?[0];
    let mark = standby.data_dir().join("mark");
    std::fs::write(&mark, "")?;
    let (code, text) = standby.post("/reinitialize", &json!({"force": true})).await?;
    ensure!(code == 200, "the reinitialization was answered {code} {text}");
    until("there is another copy", STEADY, async || {
        let copied = !mark.exists() && standby.postmaster().is_ok();
        Ok(if copied { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .await?;
    play.end(row, Promise::QUORUM).await
}
