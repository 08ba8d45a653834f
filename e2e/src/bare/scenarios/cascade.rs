//! Members that stream from another standby, or from nobody.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::making::{archiving, folder};
use super::streams::{has, streams_to};
use super::{FAILOVER, tagged};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::Promise;

/// `replicatefrom`: a chain of three. Its middle dies, and the end streams from the leader; it comes back, and the chain is whole
/// again. The leader dies, and the chain ends at whoever leads.
pub async fn chain(stage: &Stage, row: &mut Row) -> Result<()> {
    let tags = [json!({}), json!({}), json!({"replicatefrom": "cascade-1"})];
    let play = tagged(stage, Plan::new("cascade").asynchronous(), &tags).await?;
    let team = &play.team;
    let (leader, middle, end) = (&team.members[0], &team.members[1], &team.members[2]);
    streams_to(leader, &[&middle.name]).await?;
    streams_to(middle, &[&end.name]).await?;
    leader.sql("CREATE TABLE facts AS SELECT 1 AS n").await?;
    has(end, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1").await?;
    middle.kill_everything()?;
    streams_to(leader, &[&end.name]).await?;
    leader.sql("INSERT INTO facts VALUES (2)").await?;
    has(end, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1,2").await?;
    team.start(middle)?;
    streams_to(leader, &[&middle.name]).await?;
    streams_to(middle, &[&end.name]).await?;
    leader.sql("INSERT INTO facts VALUES (3)").await?;
    has(end, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1,2,3").await?;
    team.steady(STEADY).await?;
    leader.kill_everything()?;
    let new = team.other_leader(&leader.name, FAILOVER).await?;
    play.workload.writable(FAILOVER).await?;
    let follower = if new.name == middle.name { end } else { middle };
    streams_to(new, &[&follower.name]).await?;
    team.start(leader)?;
    row.note("the leader's last commits may be lost: asynchronous");
    play.end(row, Promise { keeps: false, ..Promise::QUORUM }).await
}

/// `nostream`: a member takes its WAL from the archive alone, also across a failover, and is asked by nobody to lead.
pub async fn archive_only(stage: &Stage, row: &mut Row) -> Result<()> {
    let archive = folder(stage, "nostream-archive")?;
    let tags = [json!({}), json!({}), json!({"nostream": true})];
    let restore =
        json!({"postgresql": {"recovery_conf": {"restore_command": format!("cp {}/%f %p", archive.display())}}});
    let plan = Plan::new("nostream").dcs(archiving(&archive)).dcs(restore);
    let play = tagged(stage, plan, &tags).await?;
    let team = &play.team;
    let (leader, still) = (&team.members[0], &team.members[2]);
    streams_to(leader, &[&team.members[1].name]).await?;
    leader.sql("CREATE TABLE facts AS SELECT 1 AS n").await?;
    leader.sql("SELECT pg_switch_wal()").await?;
    has(still, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1").await?;
    let receivers = still.value("SELECT count(*) FROM pg_stat_wal_receiver").await?;
    ensure!(receivers == "0", "{} has a WAL receiver", still.name);
    let voters = team.annotation("sync", "sync_standby").await?.unwrap_or_default();
    ensure!(!voters.contains(&still.name), "{} votes: {voters}", still.name);
    leader.kill_everything()?;
    let new = team.other_leader(&leader.name, FAILOVER).await?;
    ensure!(new.name == team.members[1].name, "{} leads", new.name);
    play.workload.writable(FAILOVER).await?;
    new.sql("INSERT INTO facts VALUES (2)").await?;
    new.sql("SELECT pg_switch_wal()").await?;
    has(still, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1,2").await?;
    team.start(leader)?;
    until("the archive is used up to the new timeline", STEADY, async || {
        let newer = fs::read_dir(&archive)?.flatten().any(|file| file.file_name() == "00000002.history");
        Ok(if newer { Ok(()) } else { Err("no history".to_owned()) })
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    play.end(row, Promise::QUORUM).await
}
