//! Commands for whole clusters; and the wire that differs: lock and configuration in Endpoints.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::ListParams;
use serde_json::json;

use super::{keeper, plan};
use crate::bare::ctl::drawn;
use crate::bare::scenarios::{FAILOVER, Play};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::Promise;

/// In Endpoints mode; and `remove` takes the objects of a stopped cluster away, while its data is there still.
pub async fn endpoints(stage: &Stage, row: &mut Row) -> Result<()> {
    let file = json!({"kubernetes": {"use_endpoints": true}});
    let play = Play::begin(stage, plan("patronictl-endpoints").file(file)).await?;
    let (team, scope) = (&play.team, "patronictl-endpoints");
    let ctl = keeper(stage, team)?;
    let (old, new) = (team.leader().await?, team.standbys().await?[0]);
    let rows = ctl.list().await?;
    ensure!(rows.len() == 3 && rows[&old.name]["Role"] == "Leader", "{rows:?}");
    let said = ctl.done(&["edit-config", scope, "-p", "work_mem=7MB", "--force"]).await?;
    ensure!(said.contains("Configuration changed"), "{said}");
    super::config::used(team, "work_mem", "7MB").await?;
    let said = ctl.done(&["switchover", scope, "--candidate", &new.name, "--force"]).await?;
    ensure!(said.contains(&format!("Successfully switched over to \"{}\"", new.name)), "{said}");
    team.steady(STEADY).await?;
    ctl.done(&["pause", scope, "--wait"]).await?;
    ctl.done(&["resume", scope, "--wait"]).await?;

    let id = team.annotation("config", "initialize").await?;
    let count = new.value("SELECT count(*) > 0 FROM workload").await?;
    ensure!(count == "t", "the clients wrote nothing");
    for member in team.standbys().await?.into_iter().chain([new]) {
        member.terminate(Duration::from_secs(20)).await?;
    }
    let wrong = ctl.run_with_input(&["remove", scope], "other\n").await?;
    ensure!(wrong.code == Some(1) && wrong.has("Cluster names specified do not match"), "{wrong:?}");
    let answers = format!("{scope}\nYes I am aware\n");
    let said = ctl.run_with_input(&["remove", scope], &answers).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let left = team.objects().list(&ListParams::default().labels(&format!("cluster-name={scope}"))).await?;
    ensure!(left.items.is_empty(), "objects are left: {:?}", left.items);
    // The data is where it was: the cluster is as it was, in new objects.
    team.start_all()?;
    team.steady(STEADY).await.context("after remove")?;
    ensure!(team.annotation("config", "initialize").await? == id, "another system identifier");
    play.end(row, Promise::QUORUM).await
}

/// `demote-cluster` makes a cluster follow another one, `promote-cluster` lets it go.
pub async fn demoted_and_promoted(stage: &Stage, row: &mut Row) -> Result<()> {
    let name = "patronictl-standby";
    let source = Plan { members: 1, first: 11, ..Plan::new("patronictl-standby-source") }.asynchronous();
    let source = Team::running(stage, source).await?;
    let main = &source.members[0];
    main.sql("CREATE TABLE facts AS SELECT 1 AS n").await?;
    let (host, port) = (main.address.to_string(), "5432");
    let follows = json!({"standby_cluster": {"host": host, "port": 5432, "create_replica_methods": ["basebackup"]}});
    let team = Team::running(stage, plan(name).asynchronous().dcs(follows)).await?;
    let ctl = keeper(stage, &team)?;
    let list = ctl.done(&["list", name]).await?;
    let roles: Vec<String> = drawn(&list).into_iter().skip(1).filter_map(|row| row.into_iter().nth(2)).collect();
    ensure!(roles.iter().any(|role| role == "Standby Leader"), "{list}");
    let demote = ["demote-cluster", name, "--host", &host, "--port", port, "--force"];
    ctl.refuses(&demote, "Cluster is already in the required state").await?;
    ctl.refuses(&["demote-cluster", name, "--force"], "At least --host, --port or --restore-command").await?;

    let said = ctl.done(&["promote-cluster", name, "--force"]).await?;
    ensure!(said.contains("cluster is successfully promoted"), "{said}");
    ctl.refuses(&["promote-cluster", name, "--force"], "Cluster is already in the required state").await?;
    let leader = team.leader().await?;
    leader.sql("INSERT INTO facts VALUES (2)").await?;
    team.steady(STEADY).await?;

    main.sql("INSERT INTO facts VALUES (3)").await?;
    let said = ctl.done(&demote).await?;
    ensure!(said.contains("cluster is successfully demoted"), "{said}");
    for member in &team.members {
        until(&format!("{} has what the other cluster has", member.name), FAILOVER * 4, async || {
            let found = member.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM facts").await?;
            Ok(if found == "1,3" { Ok(()) } else { Err(found) })
        })
        .await?;
    }
    team.steady(STEADY).await?;
    row.note("no clients");
    Ok(())
}
