//! Commands that change the configuration: edit-config, pause, resume, reload.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bare::ctl::{Ctl, drawn_row};
use crate::bare::scenarios::FAILOVER;
use crate::bare::team::{STEADY, Team, merge};
use crate::bare::wait::until;

/// Waits until every server uses a value.
pub async fn used(team: &Team<'_>, parameter: &str, wanted: &str) -> Result<()> {
    until(&format!("{parameter} is {wanted} everywhere"), STEADY, async || {
        for member in &team.members {
            let found = member.value(&format!("SHOW {parameter}")).await?;
            if found != wanted {
                return Ok(Err(format!("{found} at {}", member.name)));
            }
        }
        Ok(Ok(()))
    })
    .await
}

async fn stored(team: &Team<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&team.annotation("config", "config").await?.context("there is no config")?)?)
}

/// `edit-config` in every way that needs no editor, and with one.
pub async fn edited(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let set = ["edit-config", scope, "-s", "maximum_lag_on_failover=2097152", "-p", "work_mem=7MB", "--force"];
    let said = ctl.done(&set).await?;
    for line in ["+maximum_lag_on_failover: 2097152", "+    work_mem: 7MB", "Configuration changed"] {
        ensure!(said.lines().any(|one| one == line), "no {line:?} in {said}");
    }
    used(team, "work_mem", "7MB").await?;
    ensure!(ctl.done(&set).await?.trim() == "Not changed", "the same again is a change");

    let file = team.folder().join("edit.yml");
    let name = file.display().to_string();
    std::fs::write(&file, "postgresql:\n  parameters:\n    work_mem: 8MB\n    search_path: a, b\n")?;
    ctl.done(&["edit-config", scope, "--apply", &name, "--force", "--quiet"]).await?;
    used(team, "work_mem", "8MB").await?;
    used(team, "search_path", "a, b").await?;
    ensure!(stored(team).await?["maximum_lag_on_failover"] == 2_097_152, "--apply replaced instead of merging");
    let input = "postgresql: {parameters: {search_path: null}}";
    let asked = ctl.run_with_input(&["edit-config", scope, "--apply", "-"], input).await?;
    ensure!(asked.has("Use --force option to apply changes"), "{asked:?}");
    ctl.run_with_input(&["edit-config", scope, "--apply", "-", "--force"], input).await?;
    used(team, "search_path", "\"$user\", public").await?;

    // Everything anew, as a person does with what show-config said.
    let mut whole: Value = serde_saphyr::from_str(&ctl.done(&["show-config", scope]).await?)?;
    merge(&mut whole, json!({"maximum_lag_on_failover": null, "postgresql": {"parameters": {"work_mem": "9MB"}}}));
    std::fs::write(&file, serde_saphyr::to_string(&whole)?)?;
    ctl.done(&["edit-config", scope, "--replace", &name, "--force"]).await?;
    used(team, "work_mem", "9MB").await?;
    ensure!(stored(team).await? == whole, "--replace left something");

    let asked = ctl.run_with_input(&["edit-config", scope, "-p", "work_mem=null"], "n\n").await?;
    ensure!(asked.has("Apply these changes?") && stored(team).await? == whole, "{asked:?}");
    ctl.run_with_input(&["edit-config", scope, "-p", "work_mem=null"], "y\n").await?;
    used(team, "work_mem", "4MB").await
}

/// Edits that patronictl refuses, and edits that it takes although they are wrong: it checks nothing, so the agents must.
pub async fn bad_edits(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    ctl.refuses(&["edit-config", scope, "-s", "nonsense", "--force"], "Invalid parameter setting nonsense").await?;
    ctl.refuses(
        &["edit-config", "nowhere", "-s", "ttl=7", "--force"],
        "The config key does not exist in the cluster nowhere",
    )
    .await?;
    let before = stored(team).await?;
    let leader = team.leader().await?;
    let servers: Vec<_> = team.members.iter().map(|member| member.postmaster().ok()).collect();
    ctl.done(&[
        "edit-config",
        scope,
        "--force",
        "-s",
        "ttl=soon",
        "-s",
        "loop_wait=-3",
        "-s",
        "synchronous_node_count=[1]",
        "-p",
        "work_mem=plenty",
        "-p",
        "no_such_thing=1",
        "-p",
        "maintenance_work_mem=71MB",
    ])
    .await?;
    // What is right among it is used, and nothing is worse than before.
    used(team, "maintenance_work_mem", "71MB").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(team.leader().await?.name == leader.name, "a wrong configuration moved the lock");
    let now: Vec<_> = team.members.iter().map(|member| member.postmaster().ok()).collect();
    ensure!(now == servers, "a wrong configuration restarted a server");
    used(team, "work_mem", "4MB").await?;
    let rows = ctl.list().await?;
    ensure!(rows.values().all(|row| row.get("Pending restart").is_none()), "{rows:?}");
    let file = team.folder().join("before.yml");
    std::fs::write(&file, serde_saphyr::to_string(&before)?)?;
    ctl.done(&["edit-config", scope, "--replace", &file.display().to_string(), "--force", "-q"]).await?;
    used(team, "maintenance_work_mem", "64MB").await
}

/// `pause --wait` and `resume --wait`, and what is refused in between.
pub async fn paused(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let leader = team.leader().await?;
    ctl.refuses(&["resume", scope], "Cluster is not paused").await?;
    let said = ctl.done(&["pause", scope, "--wait"]).await?;
    ensure!(said.contains("Success: cluster management is paused"), "{said}");
    ensure!(!said.contains("didn't recognize"), "{said}");
    let list = ctl.done(&["list", scope]).await?;
    ensure!(list.lines().any(|line| line == " Maintenance mode: on"), "{list}");
    ctl.refuses(&["pause", scope], "Cluster is already paused").await?;
    ctl.says(
        &["switchover", scope, "--force"],
        "Switchover failed, details: 400, Switchover is possible only to a specific candidate in a paused state",
    )
    .await?;
    let later = ["--scheduled", "2099-01-01T00:00+00:00", "--force"];
    ctl.refuses(&[&["switchover", scope], &later[..]].concat(), "Can't schedule switchover in the paused state")
        .await?;
    ctl.refuses(
        &[&["restart", scope, &leader.name], &later[..]].concat(),
        "Can't schedule restart in the paused state",
    )
    .await?;
    let said = ctl.done(&["resume", scope, "--wait"]).await?;
    ensure!(said.contains("Success: cluster management is resumed"), "{said}");
    ensure!(!ctl.done(&["list", scope]).await?.contains("Maintenance mode"), "it is paused");
    ensure!(stored(team).await?.get("pause").is_none(), "pause was not removed");
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    Ok(())
}

/// `reload` brings what was changed in a member's file.
pub async fn reloaded(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let standby = team.standbys().await?[0];
    let mut file = team.plan.patroni(standby);
    merge(&mut file, json!({"tags": {"noloadbalance": true}, "postgresql": {"parameters": {"work_mem": "6MB"}}}));
    standby.configure(&file)?;
    let said = ctl.done(&["reload", scope, &standby.name, "--force"]).await?;
    let told = format!("Reload request received for member {} and will be processed within 1 seconds", standby.name);
    ensure!(said.contains(&told), "{said}");
    until("the tag is shown", FAILOVER, async || {
        let list = ctl.done(&["list", scope, "-e"]).await?;
        let tags = drawn_row(&list, &standby.name)?.remove("Tags").unwrap_or_default();
        Ok(if tags == "noloadbalance: true" { Ok(()) } else { Err(list) })
    })
    .await?;
    until("work_mem is its own", FAILOVER, async || {
        let found = standby.value("SHOW work_mem").await?;
        Ok(if found == "6MB" { Ok(()) } else { Err(found) })
    })
    .await?;
    ctl.refuses(&["reload", scope, "nobody", "--force"], "among provided members").await
}
