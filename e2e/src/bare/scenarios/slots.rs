//! Replication slots that people count on: permanent ones, physical and logical, and those that are not ours, through a failover.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{FAILOVER, Play};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::Promise;

const ALL: &str = "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots
                    WHERE slot_name IN ('feed', 'kept', 'theirs')";
/// What the slot has to tell, which is then never told again.
const READ: &str = "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes(
      'feed', NULL, NULL, 'proto_version', '1', 'publication_names', 'events')";

/// A permanent physical and a permanent logical slot are on whoever leads; a logical consumer reads on after a failover and misses
/// nothing that was committed; a slot that `ignore_slots` names is left alone.
pub async fn failover(stage: &Stage, row: &mut Row) -> Result<()> {
    let slots = json!({
        "slots": {"kept": {"type": "physical"}},
        "ignore_slots": [{"name": "theirs", "type": "physical"}],
        "postgresql": {"parameters": {"wal_level": "logical"}},
    });
    let feed = json!({"slots": {"feed": {"type": "logical", "database": "postgres", "plugin": "pgoutput"}}});
    let play = Play::begin(stage, Plan::new("slots-failover").dcs(slots)).await?;
    let team = &play.team;
    let old = team.leader().await?;
    there(old, "kept").await?;
    old.sql("CREATE TABLE events (name text)").await?;
    old.sql("CREATE PUBLICATION events FOR TABLE events").await?;
    old.sql("SELECT pg_create_physical_replication_slot('theirs', true)").await?;
    // What is decoded by a publication has to come after it.
    team.edit_config(feed).await?;
    there(old, "feed,kept,theirs").await?;
    let mut heard = Vec::new();
    old.sql("INSERT INTO events SELECT 'early-' || n FROM generate_series(1, 5) n").await?;
    read(old, &mut heard).await?;
    ensure!(count(&heard, "early-") == 5, "the slot told {heard:?}");
    // Copied to both, and moved along with the consumer.
    for standby in team.standbys().await? {
        there(standby, "feed,kept").await?;
    }
    team.steady(STEADY).await?;
    old.sql("INSERT INTO events SELECT 'unread-' || n FROM generate_series(1, 5) n").await?;
    ensure!(old.value(ALL).await? == "feed,kept,theirs", "a slot that is not ours was touched");
    old.kill_everything()?;
    let new = team.other_leader(&old.name, FAILOVER).await?;
    play.workload.writable(FAILOVER).await?;
    new.sql("INSERT INTO events SELECT 'late-' || n FROM generate_series(1, 5) n").await?;
    read(new, &mut heard).await?;
    for what in ["unread-", "late-"] {
        ensure!(count(&heard, what) == 5, "the slot on the new leader told {heard:?}");
    }
    team.start(old)?;
    team.steady(STEADY).await?;
    // A slot that is in the configuration no more goes, everywhere.
    team.edit_config(json!({"slots": {"feed": Value::Null}})).await?;
    for member in &team.members {
        until(&format!("{} has dropped it", member.name), STEADY, async || {
            let names = member.value(ALL).await?;
            Ok(if names.contains("feed") { Err(names) } else { Ok(()) })
        })
        .await?;
    }
    play.end(row, Promise::QUORUM).await
}

async fn there(member: &Member, wanted: &str) -> Result<()> {
    until(&format!("{} has the slots {wanted}", member.name), STEADY, async || {
        let names = member.value(ALL).await?;
        Ok(if names == wanted { Ok(()) } else { Err(names) })
    })
    .await
}

/// Asks once: what was told is gone.
async fn read(member: &Member, heard: &mut Vec<String>) -> Result<()> {
    let rows = member.sql(READ).await?;
    if rows.is_empty() {
        bail!("the slot on {} tells nothing", member.name);
    }
    heard.extend(rows.concat().iter().map(|hex| text(hex)));
    Ok(())
}

/// What of a message is text.
fn text(hex: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16).unwrap_or_default();
    (0..hex.len()).step_by(2).map(byte).map(char::from).collect()
}

fn count(heard: &[String], what: &str) -> usize {
    (1..=9).filter(|n| heard.iter().any(|change| change.contains(&format!("{what}{n}")))).count()
}
