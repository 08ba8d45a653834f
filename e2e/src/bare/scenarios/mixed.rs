//! Members that run Patroni and members that run our agent in one cluster: each elects, follows and rejoins under the other.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::store::{goes_on_without_api, stops_without};
use super::takeover::{exchange, patroni_team, patronis};
use super::{Play, switch_over};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::Promise;

/// Patroni's smallest ttl, and what follows.
const FAILOVER: Duration = Duration::from_secs(35);

/// From its agent's next start on it never leads, and no commit rests on it.
fn bystander(team: &Team<'_>, member: &Member) -> Result<()> {
    let mut file = team.plan.patroni(member);
    file["tags"] = json!({"nofailover": true, "nosync": true});
    member.configure(&file)
}

/// Waits until this standby may lead.
async fn listed(team: &Team<'_>, member: &str) -> Result<()> {
    until(&format!("{member} is a synchronous standby"), STEADY, async || {
        let names = team.annotation("sync", "sync_standby").await?.unwrap_or_default();
        Ok(if names.split(',').any(|name| name == member) { Ok(()) } else { Err(names) })
    })
    .await
}

/// Kills all of the leader and waits for another one; then the old one comes back, by pg_rewind.
async fn killed(play: &Play<'_>) -> Result<String> {
    let team = &play.team;
    let old = team.leader().await?;
    old.kill_everything()?;
    let new = team.other_leader(&old.name, FAILOVER).await?;
    play.workload.writable(FAILOVER).await?;
    team.start(old)?;
    team.steady(STEADY).await.with_context(|| format!("{} is back under {}", old.name, new.name))?;
    Ok(new.name.clone())
}

/// A leader that runs Patroni is killed, ours is elected with Patroni's vote; ours is killed, and Patroni is elected with ours.
async fn there_and_back(stage: &Stage, row: &mut Row, plan: Plan) -> Result<()> {
    let team = patroni_team(stage, plan).await?;
    let play = Play::on(team).await?;
    let team = &play.team;
    let first = team.leader().await?;
    let standbys = team.standbys().await?;
    // One that could be ahead of all who may lead would keep them from it.
    bystander(team, standbys[1])?;
    exchange(team, standbys[1], true).await?;
    exchange(team, standbys[0], false).await?;
    listed(team, &standbys[0].name).await?;
    let new = killed(&play).await.context("Patroni's leader was killed")?;
    ensure!(new == standbys[0].name, "{new} leads");
    listed(team, &first.name).await?;
    let new = killed(&play).await.context("our leader was killed")?;
    ensure!(new == first.name, "{new} leads");
    play.end(row, Promise::QUORUM).await
}

/// Quorum durability.
pub async fn quorum(stage: &Stage, row: &mut Row) -> Result<()> {
    there_and_back(stage, row, patronis("mixed")).await
}

/// Whoever leads is killed, three times: all that are left elect together, each by its own rules.
pub async fn kills(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = patroni_team(stage, patronis("mixed-kills")).await?;
    let play = Play::on(team).await?;
    let standby = play.team.standbys().await?[0].name.clone();
    exchange(&play.team, play.team.member(&standby)?, false).await?;
    for _ in 0..3 {
        killed(&play).await?;
    }
    play.end(row, Promise::QUORUM).await
}

/// Priority mode.
pub async fn priority(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = patronis("mixed-priority").dcs(json!({"synchronous_mode": true}));
    there_and_back(stage, row, plan).await
}

/// Lock and address in the Service's Endpoints.
pub async fn endpoints(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = patronis("mixed-endpoints").file(json!({"kubernetes": {"use_endpoints": true}}));
    there_and_back(stage, row, plan).await
}

/// The API server is away: a leader of either kind goes on with the promises of both, and stops when one of them is gone.
pub async fn failsafe(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = patroni_team(stage, patronis("mixed-failsafe")).await?;
    let play = Play::on(team).await?;
    let team = &play.team;
    let standbys = team.standbys().await?;
    exchange(team, standbys[0], false).await?;
    outage(stage, &play).await.context("Patroni leads")?;
    let ours = standbys[0];
    switch_over(team, &ours.name).await?;
    team.steady(STEADY).await?;
    outage(stage, &play).await.context("Matriarch leads")?;

    stage.plane.stop_api_server();
    tokio::time::sleep(Duration::from_secs(8)).await;
    stops_without(stage, &play, ours, standbys[1], FAILOVER).await?;
    play.end(row, Promise::QUORUM).await
}

/// For longer than a ttl.
async fn outage(stage: &Stage, play: &Play<'_>) -> Result<()> {
    let leader = play.team.leader().await?;
    goes_on_without_api(stage, play, leader, Duration::from_secs(26)).await?;
    stage.plane.start_api_server()?;
    stage.plane.ready().await?;
    play.team.steady(STEADY).await?;
    ensure!(play.team.leader().await?.name == leader.name, "the lock moved");
    Ok(())
}
