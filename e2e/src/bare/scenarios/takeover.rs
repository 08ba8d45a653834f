//! Patroni itself and our agent in one cluster: a takeover there and back, member by member, under the clients.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{Play, switch_over};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// Patroni's agent stops PostgreSQL and ends.
const ENDS: Duration = Duration::from_secs(30);

/// As Patroni's users write it: its smallest ttl, and hba rules for its own connections.
pub fn patronis(name: &str) -> Plan {
    Plan::new(name).dcs(json!({
        "ttl": 20, "loop_wait": 1, "retry_timeout": 3,
        "postgresql": {"pg_hba": [
            "local all all scram-sha-256", "host all all all scram-sha-256", "host replication all all scram-sha-256"
        ]},
    }))
}

/// Makes a cluster of which every member runs Patroni.
pub async fn patroni_team(stage: &Stage, plan: Plan) -> Result<Team<'_>> {
    let team = Team::new(stage, plan).await?;
    for member in &team.members {
        member.run_patroni(true);
    }
    team.start_all()?;
    team.steady(STEADY).await.context("Patroni alone")?;
    Ok(team)
}

/// Stops a member's agent, and with it its PostgreSQL, and starts the other one on the same data with the same file.
pub async fn exchange(team: &Team<'_>, member: &Member, patroni: bool) -> Result<()> {
    let status = member.terminate(ENDS).await?;
    ensure!(status.success(), "the agent of {} ended with {status}", member.name);
    member.nothing_runs()?;
    member.run_patroni(patroni);
    team.start(member)?;
    team.steady(STEADY).await.with_context(|| format!("{} runs {}", member.name, program(patroni)))
}

fn program(patroni: bool) -> &'static str {
    if patroni { "Patroni" } else { "Matriarch" }
}

/// All members but the leader, then a switchover to one of them, then the last.
async fn exchange_all(play: &Play<'_>, patroni: bool) -> Result<()> {
    let team = &play.team;
    let begin = clock::now();
    let last = team.leader().await?;
    for standby in team.standbys().await? {
        exchange(team, standby, patroni).await?;
        ensure!(team.leader().await?.name == last.name, "the lock moved");
    }
    // Standbys that come and go are not noticed.
    play.no_gap(begin, Duration::from_secs(2)).context("while standbys were exchanged")?;
    let to = team.standbys().await?[0].name.clone();
    let begin = clock::now();
    switch_over(team, &to).await.with_context(|| format!("from {}", program(!patroni)))?;
    team.steady(STEADY).await?;
    play.no_gap(begin, Duration::from_secs(8)).context("at the switchover")?;
    let begin = clock::now();
    exchange(team, last, patroni).await?;
    play.no_gap(begin, Duration::from_secs(2)).context("while the last one was exchanged")?;
    if team.leader().await?.name != to {
        bail!("the lock moved");
    }
    Ok(())
}

/// From Patroni to Matriarch and back, with the same files and the same data.
pub async fn there_and_back(stage: &Stage, row: &mut Row, plan: Plan) -> Result<()> {
    let team = patroni_team(stage, plan).await?;
    let system = team.leader().await?.value("SELECT system_identifier FROM pg_control_system()").await?;
    let play = Play::on(team).await?;
    exchange_all(&play, false).await.context("there")?;
    exchange_all(&play, true).await.context("back")?;
    let same = play.team.leader().await?.value("SELECT system_identifier FROM pg_control_system()").await?;
    ensure!(same == system, "another cluster was made");
    play.end(row, Promise::QUORUM).await
}

/// In quorum durability, the lock in a ConfigMap.
pub async fn takeover(stage: &Stage, row: &mut Row) -> Result<()> {
    there_and_back(stage, row, patronis("takeover")).await
}

/// The lock and the address in the Service's Endpoints, as Spilo has them.
pub async fn endpoints(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = patronis("takeover-endpoints").file(json!({"kubernetes": {"use_endpoints": true}}));
    there_and_back(stage, row, plan).await
}

/// Patroni dies and leaves its PostgreSQL: our agent goes on with it, under the same postmaster. The leader's keeps its lock.
pub async fn attached(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = patroni_team(stage, patronis("takeover-attached")).await?;
    let play = Play::on(team).await?;
    let (team, begin) = (&play.team, clock::now());
    let leader = team.leader().await?;
    for member in team.standbys().await?.into_iter().chain([leader]) {
        let postmaster = member.postmaster()?;
        member.kill_agent()?;
        member.run_patroni(false);
        team.start(member)?;
        team.steady(STEADY).await.with_context(|| format!("{} runs Matriarch", member.name))?;
        ensure!(member.postmaster()? == postmaster, "PostgreSQL of {} was started again", member.name);
    }
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    play.no_gap(begin, Duration::from_secs(3))?;
    play.end(row, Promise::QUORUM).await
}
