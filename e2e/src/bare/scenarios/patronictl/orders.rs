//! Commands for single members: restart, now, with conditions and later; reinit; flush.

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan as _};

use super::config::used;
use crate::bare::ctl::{Ctl, drawn_row};
use crate::bare::member::Member;
use crate::bare::scenarios::FAILOVER;
use crate::bare::team::{STEADY, Team};
use crate::bare::wait::until;
use crate::host::process::Process;

fn servers(team: &Team<'_>) -> Result<Vec<Process>> {
    team.members.iter().map(Member::postmaster).collect()
}

/// `restart` of a member, of a role, and with conditions that are not met.
pub async fn restarts(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let (leader, standby) = (team.leader().await?, team.standbys().await?[0]);
    let restart = async |more: &[&str]| ctl.run(&[&["restart", scope, "--force"], more].concat()).await;
    for (arguments, member) in
        [(&[standby.name.as_str(), "--timeout", "30"][..], standby), (&["--role", "primary"], leader)]
    {
        let before = servers(team)?;
        let said = restart(arguments).await?;
        ensure!(said.has(&format!("Success: restart on member {}", member.name)), "{said:?}");
        for (old, one) in before.iter().zip(&team.members) {
            ensure!((one.postmaster()? == *old) == (one.name != member.name), "of {} after {said:?}", one.name);
        }
        team.steady(STEADY).await?;
    }
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    let before = servers(team)?;
    let name = standby.name.as_str();
    let old = restart(&[name, "--pg-version", "9.5.2"]).await?;
    let failed = format!("Failed: restart for member {name}, status code=");
    ensure!(old.has(&format!("{failed}503, (restart conditions are not satisfied)")), "{old:?}");
    let timeout = restart(&[name, "--timeout", "0"]).await?;
    ensure!(timeout.has(&format!("{failed}400, (Timeout should be a positive number of seconds)")), "{timeout:?}");
    ctl.refuses(&["restart", scope, "nobody", "--force"], "among provided members").await?;
    ctl.refuses(&["restart", scope, name, "--force", "--pg-version", "x"], "Error: ").await?;
    ensure!(servers(team)? == before, "something was restarted");
    Ok(())
}

/// A parameter that waits for a restart is shown with its reason, and `restart --pending` is for those that wait.
pub async fn pending(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    ctl.done(&["edit-config", scope, "-p", "shared_buffers=24MB", "--force"]).await?;
    until("all wait for a restart, and say why", FAILOVER, async || {
        let list = ctl.done(&["list", scope]).await?;
        for member in &team.members {
            let row = drawn_row(&list, &member.name)?;
            let has = |column: &str, value: &str| row.get(column).is_some_and(|cell| cell == value);
            if !has("Pending restart", "*") || !has("Pending restart reason", "shared_buffers: 16MB->24MB") {
                return Ok(Err(list));
            }
        }
        Ok(Ok(()))
    })
    .await?;
    // One of them without the word, so that the others are all that wait.
    let first = team.standbys().await?[0];
    ctl.done(&["restart", scope, &first.name, "--force"]).await?;
    until(&format!("{} no longer waits", first.name), FAILOVER, async || {
        let rows = ctl.list().await?;
        let row = rows.get(&first.name).context("it is gone")?;
        Ok(if row.get("Pending restart").is_none() { Ok(()) } else { Err(row.to_string()) })
    })
    .await?;
    let before = first.postmaster()?;
    let said = ctl.done(&["restart", scope, "--pending", "--force"]).await?;
    ensure!(said.matches("Success: restart on member").count() == 2, "{said}");
    ensure!(first.postmaster()? == before, "{} was restarted again", first.name);
    used(team, "shared_buffers", "24MB").await?;
    team.steady(STEADY).await?;
    until("nobody waits", FAILOVER, async || {
        let list = ctl.done(&["list", scope]).await?;
        Ok(if list.contains("Pending restart") { Err(list) } else { Ok(()) })
    })
    .await
}

/// `restart --scheduled`, seen, refused twice, flushed; and one that is done when it is due.
pub async fn scheduled(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let standby = team.standbys().await?[0];
    let name = standby.name.as_str();
    let flush = async || ctl.done(&["flush", scope, name, "restart", "--force"]).await;
    let none = flush().await?;
    ensure!(none.contains(&format!("No scheduled restart for member {name}")), "{none}");
    let at = (Timestamp::now() + 1.hour()).to_string();
    let order = ["restart", scope, name, "--scheduled", &at, "--pg-version", "99.0"];
    let said = ctl.done(&[&order[..], &["--force"]].concat()).await?;
    ensure!(said.contains(&format!("Success: restart scheduled on member {name}")), "{said}");
    until("it is shown", FAILOVER, async || {
        let list = ctl.done(&["list", scope]).await?;
        let cell = drawn_row(&list, name)?.remove("Scheduled restart").unwrap_or_default();
        Ok(if cell.ends_with(" if version < 99.0") { Ok(()) } else { Err(list) })
    })
    .await?;
    let twice = ctl.run_with_input(&order, "y\n").await?;
    ensure!(twice.has(&format!("Failed: another restart is already scheduled on member {name}")), "{twice:?}");
    let flushed = flush().await?;
    ensure!(flushed.contains(&format!("Success: flush scheduled restart for member {name}")), "{flushed}");
    let past = ["restart", scope, name, "--scheduled", "2020-01-01T00:00+00:00", "--force"];
    ctl.says(&past, "status code=422, (Cannot schedule restart in the past)").await?;

    let old = standby.postmaster()?;
    let at = Timestamp::now() + 8.seconds();
    ctl.done(&["restart", scope, name, "--scheduled", &at.to_string(), "--force"]).await?;
    ensure!(standby.postmaster()? == old || Timestamp::now() >= at, "it was done at once");
    until("it is restarted", FAILOVER * 2, async || {
        let now = standby.postmaster()?;
        Ok(if now == old { Err("not yet".to_owned()) } else { Ok(()) })
    })
    .await?;
    ensure!(Timestamp::now() >= at, "it was done too early");
    team.steady(STEADY).await
}

/// `reinit --wait`, also from the leader; never of the leader.
pub async fn copies(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let leader = team.leader().await?;
    ctl.refuses(&["reinit", scope, &leader.name, "--force"], "among provided members").await?;
    for (member, more) in team.standbys().await?.into_iter().zip([&["--wait"][..], &["--wait", "--from-leader"]]) {
        let mark = member.data_dir().join("mark");
        std::fs::write(&mark, "")?;
        let said = ctl.done(&[&["reinit", scope, &member.name, "--force"], more].concat()).await?;
        ensure!(said.contains(&format!("Success: reinitialize for member {}", member.name)), "{said}");
        ensure!(said.contains(&format!("Reinitialize is completed on: {}", member.name)), "{said}");
        ensure!(!mark.exists() && member.postmaster().is_ok(), "it is not copied, but that was said: {said}");
        team.steady(STEADY).await?;
    }
    Ok(())
}
