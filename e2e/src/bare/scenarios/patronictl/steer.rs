//! Commands that move the lead.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use crate::bare::ctl::{Ctl, drawn_row};
use crate::bare::scenarios::FAILOVER;
use crate::bare::team::{STEADY, Team};

/// `switchover` now: with all arguments, and with a person who answers its questions. The history tells of both.
pub async fn switchover(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let (old, new) = (team.leader().await?, team.standbys().await?[0]);
    let said = ctl.done(&["switchover", scope, "--leader", &old.name, "--candidate", &new.name, "--force"]).await?;
    ensure!(said.starts_with("Current cluster topology"), "{said}");
    ensure!(said.contains(&format!("Successfully switched over to \"{}\"", new.name)), "{said}");
    // The table after it is of all members; patronictl draws it from its own watches, which may not have heard of the lock yet.
    let after = said.split("Successfully").nth(1).unwrap_or_default();
    drawn_row(after, &new.name)?;
    ensure!(team.leader().await?.name == new.name, "{} does not lead", new.name);
    team.steady(STEADY).await?;
    let listed = ctl.list().await?;
    ensure!(listed.get(&new.name).is_some_and(|row| row["Role"] == "Leader"), "{listed:?}");

    let said = ctl.run_with_input(&["switchover", scope], &format!("\n{}\nnow\ny\n", old.name)).await?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(said.has(&format!("Successfully switched over to \"{}\"", old.name)), "{said:?}");
    team.steady(STEADY).await?;

    let history: Value = serde_json::from_str(&ctl.done(&["history", scope, "--format", "json"]).await?)?;
    for (index, leader) in [new, old].into_iter().enumerate() {
        let line = &history[index];
        ensure!(line["TL"] == index + 1 && line["New Leader"] == leader.name.as_str(), "{history}");
        ensure!(line["LSN"].as_u64() > Some(0) && line["Reason"] == "no recovery target specified", "{history}");
        let at = line["Timestamp"].as_str().unwrap_or_default();
        ensure!(at.parse::<Timestamp>().is_ok(), "{history}");
    }
    Ok(())
}

/// Wrong leaders and candidates; a candidate that is down.
pub async fn refusals(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let leader = team.leader().await?;
    let [one, two] = team.standbys().await?[..] else { anyhow::bail!("two standbys are needed") };
    let switchover = async |more: &[&str], words: &str| {
        ctl.refuses(&[&["switchover", scope, "--force"], more].concat(), words).await
    };
    switchover(
        &["--candidate", &leader.name],
        &format!("Member {} is already the leader of cluster {scope}", leader.name),
    )
    .await?;
    switchover(&["--leader", &one.name], &format!("Member {} is not the leader of cluster {scope}", one.name)).await?;
    switchover(&["--candidate", "nobody"], &format!("Member nobody does not exist in cluster {scope}")).await?;
    switchover(&["--scheduled", "soon"], "Unable to parse scheduled timestamp").await?;
    ctl.refuses(&["failover", scope, "--force"], "Failover could be performed only to a specific candidate").await?;
    ctl.says(
        &["switchover", scope, "--force", "--scheduled", "2020-01-01T00:00+00:00"],
        "Switchover failed, details: 422, Cannot schedule switchover in the past",
    )
    .await?;
    let no = ctl.run_with_input(&["switchover", scope], &format!("\n{}\nnow\nn\n", one.name)).await?;
    ensure!(no.code == Some(1) && no.has("Aborting switchover"), "{no:?}");

    two.kill_everything()?;
    for action in ["switchover", "failover"] {
        let words = format!(
            "{}{} failed, details: 412, {action} is not possible: no good candidates have been found",
            action[..1].to_uppercase(),
            &action[1..]
        );
        ctl.says(&[action, scope, "--candidate", &two.name, "--force"], &words).await?;
    }
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    team.start(two)?;
    team.steady(STEADY).await
}

/// `switchover --scheduled`, seen, flushed; and another one that is done when it is due.
pub async fn scheduled(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let (leader, to) = (team.leader().await?, team.standbys().await?[0]);
    let none = ctl.done(&["flush", scope, "switchover", "--force"]).await?;
    ensure!(none.contains("No pending scheduled switchover"), "{none}");
    let schedule = async |at: Timestamp| {
        let at = at.to_string();
        ctl.done(&["switchover", scope, "--candidate", &to.name, "--scheduled", &at, "--force"]).await
    };
    let said = schedule(Timestamp::now() + 1.hour()).await?;
    ensure!(said.contains("Switchover scheduled"), "{said}");
    let list = ctl.done(&["list", scope]).await?;
    ensure!(list.contains(" Switchover scheduled at: "), "{list}");
    for (word, name) in [("from", &leader.name), ("to", &to.name)] {
        ensure!(list.lines().any(|line| line.trim() == format!("{word}: {name}")), "{list}");
    }
    let flushed = ctl.done(&["flush", scope, "switchover", "--force"]).await?;
    ensure!(flushed.contains("Success: scheduled switchover deleted"), "{flushed}");
    ensure!(!ctl.done(&["list", scope]).await?.contains("scheduled"), "it is shown still");

    let at = Timestamp::now() + 10.seconds();
    schedule(at).await?;
    ensure!(team.leader().await?.name == leader.name, "it was done at once");
    let new = team.other_leader(&leader.name, FAILOVER + Duration::from_secs(10)).await?;
    ensure!(Timestamp::now() >= at && new.name == to.name, "{} leads at {}", new.name, Timestamp::now());
    team.steady(STEADY).await
}

/// `failover` to a member.
pub async fn failover(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let to = team.standbys().await?[1];
    let said = ctl.done(&["failover", &team.plan.name, "--candidate", &to.name, "--force"]).await?;
    ensure!(said.contains(&format!("Successfully failed over to \"{}\"", to.name)), "{said}");
    ensure!(team.leader().await?.name == to.name, "{} does not lead", to.name);
    team.steady(STEADY).await
}
