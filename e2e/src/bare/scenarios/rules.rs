//! Who leads, and when nobody decides by itself: tags, priorities, start timeouts.

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::{FAILOVER, tagged};
use crate::bare::member::get;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::Promise;

/// A member with `nofailover` never leads; who has `noloadbalance` is no replica for balancers.
pub async fn tags(stage: &Stage, row: &mut Row) -> Result<()> {
    let tags = [json!({}), json!({"nofailover": true}), json!({"noloadbalance": true, "zone": "b"})];
    let play = tagged(stage, Plan::new("tags"), &tags).await?;
    let team = &play.team;
    let (old, never) = (&team.members[0], &team.members[1]);
    let (code, _) = get(team.members[2].address, "/replica").await?;
    ensure!(code == 503, "a member with noloadbalance says {code}");
    let (code, text) = old.post("/switchover", &json!({"leader": old.name, "candidate": never.name})).await?;
    ensure!(code != 200, "a switchover to a member with nofailover was answered {code} {text}");
    old.kill_everything()?;
    let new = team.other_leader(&old.name, FAILOVER).await?;
    ensure!(new.name == team.members[2].name, "{} leads", new.name);
    team.start(old)?;
    play.end(row, Promise::QUORUM).await
}

/// Of two standbys that have the same, the one of higher priority leads.
pub async fn priorities(stage: &Stage, row: &mut Row) -> Result<()> {
    let tags = [json!({}), json!({"failover_priority": 1}), json!({"failover_priority": 5})];
    let play = tagged(stage, Plan::new("priorities"), &tags).await?;
    let team = &play.team;
    for round in 0..2 {
        let old = team.leader().await?;
        let best = if round == 0 { &team.members[2] } else { &team.members[0] };
        if round == 1 {
            // The best one is away: any other will do.
            ensure!(old.name == team.members[2].name, "{} leads", old.name);
        }
        old.terminate(FAILOVER).await?;
        let new = team.other_leader(&old.name, FAILOVER).await?;
        if round == 0 && new.name != best.name {
            bail!("{} leads, although {} has the higher priority and the same data", new.name, best.name);
        }
        play.workload.writable(FAILOVER).await?;
        team.start(old)?;
        team.steady(STEADY).await?;
    }
    play.end(row, Promise::QUORUM).await
}

/// `primary_start_timeout: 0` means that a crashed primary is not waited for.
pub async fn start_timeout_zero(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = super::Play::begin(stage, Plan::new("start-timeout-zero")).await?;
    let team = &play.team;
    team.edit_config(json!({"primary_start_timeout": 0})).await?;
    until("all know it", FAILOVER, async || {
        for member in &team.members {
            let (_, config) = get(member.address, "/config").await?;
            if !config.contains("primary_start_timeout") {
                return Ok(Err(member.name.clone()));
            }
        }
        Ok(Ok(()))
    })
    .await?;
    let old = team.leader().await?;
    old.postmaster()?.signal(rustix::process::Signal::KILL)?;
    team.other_leader(&old.name, FAILOVER).await?;
    play.end(row, Promise::QUORUM).await
}
