//! Changes of the configuration: in force by reload, or after a restart that says why it waits; in the order that PostgreSQL needs;
//! with values that cannot be used; read again by a member; lost by the store while no agent lives.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{FAILOVER, Play, logs};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::Promise;

/// All of it, one after another.
pub async fn changes(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("configuration")).await?;
    let team = &play.team;
    ordered_restarts(team).await?;
    bad_values(team).await?;
    read_again(team).await?;
    wiped_without_agents(team).await?;
    play.end(row, Promise::QUORUM).await
}

/// More connections: standbys first, and the primary waits for them. Fewer: the primary first, and standbys wait for it.
async fn ordered_restarts(team: &Team<'_>) -> Result<()> {
    let (leader, standbys) = (team.leader().await?, team.standbys().await?);
    let all: Vec<&Member> = team.members.iter().collect();
    parameters(team, json!({"work_mem": "7MB", "Max_Connections": 60, "max_connections": null})).await?;
    for member in &all {
        shows(member, "work_mem", "7MB").await?;
        waits(member, Some(("40", "60"))).await?;
    }
    // The right one would be the last: too early, it changes nothing.
    written(leader, "max_connections = '40'").await?;
    restart(leader).await?;
    shows(leader, "max_connections", "40").await?;
    waits(leader, Some(("40", "60"))).await?;
    team.steady(STEADY).await?;
    for standby in &standbys {
        restart(standby).await?;
        shows(standby, "max_connections", "60").await?;
        waits(standby, None).await?;
    }
    team.steady(STEADY).await?;
    written(leader, "max_connections = '60'").await?;
    restart(leader).await?;
    shows(leader, "max_connections", "60").await?;
    for member in &all {
        waits(member, None).await?;
    }
    team.steady(STEADY).await?;

    parameters(team, json!({"Max_Connections": 50})).await?;
    let last = standbys[0];
    waits(last, Some(("60", "50"))).await?;
    restart(last).await?;
    shows(last, "max_connections", "60").await?;
    team.steady(STEADY).await?;
    restart(leader).await?;
    shows(leader, "max_connections", "50").await?;
    team.steady(STEADY).await?;
    restart(last).await?;
    shows(last, "max_connections", "50").await?;
    waits(last, None).await?;
    team.steady(STEADY).await
}

/// What cannot be used changes nothing, and is told.
async fn bad_values(team: &Team<'_>) -> Result<()> {
    let leader = team.leader().await?;
    team.edit_config(json!({"ttl": "soon", "loop_wait": [], "postgresql": {"parameters": {"work_mem": "lots"}}}))
        .await?;
    logs(leader, "ttl: \"soon\" cannot be used", FAILOVER).await?;
    logs(leader, "PostgreSQL refuses work_mem", FAILOVER).await?;
    let ttl = team.annotation("leader", "ttl").await?;
    ensure!(ttl.as_deref() == Some("6"), "ttl is {ttl:?}");
    team.edit_config(json!({"ttl": 6, "loop_wait": 1, "postgresql": {"parameters": {"work_mem": "7MB"}}})).await
}

/// SIGHUP after a change of one member's file.
async fn read_again(team: &Team<'_>) -> Result<()> {
    let member = team.standbys().await?[0];
    let mut file = team.plan.patroni(member);
    file["postgresql"]["parameters"]["work_mem"] = json!("9MB");
    file["postgresql"]["parameters"]["max_connections"] = json!(500);
    file["postgresql"]["pg_ident"] = json!(["people tusk postgres"]);
    file["tags"]["noloadbalance"] = json!(true);
    file["scope"] = json!("another");
    file["log"] = json!({"format": "[%(levelname)s] %(message)s", "deduplicate_heartbeat_logs": false});
    member.configure(&file)?;
    let (agent, postmaster) = (member.agent()?, member.postmaster()?);
    agent.signal(Signal::HUP)?;
    shows(member, "work_mem", "9MB").await?;
    shows(member, "max_connections", "50").await?;
    logs(member, "scope has changed: it comes into force when the agent is started anew", FAILOVER).await?;
    until("the tag is told", FAILOVER, async || {
        let tags = member.status().await?["tags"].clone();
        Ok(if tags["noloadbalance"] == true { Ok(()) } else { Err(format!("tags are {tags}")) })
    })
    .await?;
    ensure!(std::fs::read_to_string(member.data_dir().join("pg_ident.conf"))?.contains("people tusk postgres"));
    // What is in force is said again and again, in the new form.
    let heartbeats = || member.logged().matches("\n[INFO] no action. I am (").count();
    until("it says what is in force", FAILOVER, async || {
        Ok(if heartbeats() > 1 { Ok(()) } else { Err(format!("{} times until now", heartbeats())) })
    })
    .await?;
    // A broken file changes nothing.
    std::fs::write(member.config(), "scope: [")?;
    agent.signal(Signal::HUP)?;
    logs(member, "the configuration is not reloaded", FAILOVER).await?;
    ensure!(agent.is_alive() && member.postmaster()? == postmaster, "something was restarted");
    shows(member, "work_mem", "9MB").await?;
    member.configure(&team.plan.patroni(member))?;
    agent.signal(Signal::HUP)?;
    shows(member, "work_mem", "7MB").await
}

/// The store loses the configuration while no agent lives: the next leader has it from its data directory.
async fn wiped_without_agents(team: &Team<'_>) -> Result<()> {
    let before: Value =
        serde_json::from_str(&team.annotation("config", "config").await?.context("there is no config")?)?;
    let cached = team.leader().await?.data_dir().join("patroni.dynamic.json");
    until("it is kept", FAILOVER, async || {
        let kept = std::fs::read_to_string(&cached).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        Ok(if kept.as_ref() == Some(&before) { Ok(()) } else { Err(format!("kept is {kept:?}")) })
    })
    .await?;
    for member in &team.members {
        member.kill_agent()?;
    }
    let none = json!({"metadata": {"annotations": {"config": null}}});
    let name = format!("{}-config", team.plan.name);
    team.objects().patch(&name, &PatchParams::default(), &Patch::Merge(none)).await?;
    team.start_all()?;
    until("it is stored again", STEADY, async || {
        let after =
            team.annotation("config", "config").await?.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        Ok(if after.as_ref() == Some(&before) { Ok(()) } else { Err(format!("it is {after:?}")) })
    })
    .await?;
    team.steady(STEADY).await
}

async fn parameters(team: &Team<'_>, parameters: Value) -> Result<()> {
    team.edit_config(json!({"postgresql": {"parameters": parameters}})).await
}

async fn restart(member: &Member) -> Result<()> {
    let (code, text) = member.post("/restart", &json!({})).await?;
    ensure!(code == 200, "the restart of {} was answered {code} {text}", member.name);
    Ok(())
}

/// Waits for a line of postgresql.conf.
async fn written(member: &Member, line: &str) -> Result<()> {
    let file = member.data_dir().join("postgresql.conf");
    until(&format!("{} is told {line}", member.name), FAILOVER, async || {
        let text = std::fs::read_to_string(&file)?;
        Ok(if text.lines().any(|other| other == line) { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .await
}

async fn shows(member: &Member, name: &str, value: &str) -> Result<()> {
    until(&format!("{name} of {} is {value}", member.name), FAILOVER, async || {
        Ok(match member.value(&format!("SHOW {name}")).await {
            Ok(shown) if shown == value => Ok(()),
            Ok(shown) => Err(format!("it is {shown}")),
            Err(error) => Err(format!("{error:#}")),
        })
    })
    .await
}

/// Whether `max_connections` waits for a restart, and for which change.
async fn waits(member: &Member, change: Option<(&str, &str)>) -> Result<()> {
    let expected =
        change.map_or(Value::Null, |(old, new)| json!({"max_connections": {"old_value": old, "new_value": new}}));
    until(&format!("what waits for a restart of {} is {expected}", member.name), Duration::from_secs(10), async || {
        let status = member.status().await?;
        let fine =
            status["pending_restart_reason"] == expected && status["pending_restart"].is_null() == change.is_none();
        Ok(if fine { Ok(()) } else { Err(format!("it is {}", status["pending_restart_reason"])) })
    })
    .await
}
