//! Clients that reach the cluster through HAProxy, as it is set up for Patroni.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{FAILOVER, Play, switch_over};
use crate::bare::haproxy::Balancer;
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::host::process::command_line;
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// Two looks of HAProxy at everybody, and an agent that has to see it first.
const NOTICED: Duration = Duration::from_secs(10);

/// Follows a switchover and the death of the primary; a standby that is too far behind gets no reads.
pub async fn haproxy(stage: &Stage, row: &mut Row) -> Result<()> {
    let team = Team::running(stage, Plan::new("haproxy")).await?;
    let _balancer = Balancer::start(&team)?;
    pools(&team).await?;
    let play = Play::through(team, Balancer::primary(), None).await?;
    let team = &play.team;

    let begin = clock::now();
    switch_over(team, &team.standbys().await?[0].name).await?;
    let gap = play.gap_since(begin).await?;
    ensure!(gap < Duration::from_secs(5), "clients waited {gap:?} at a switchover");
    row.note(format!("switchover {:.2} s", gap.as_secs_f64()));
    team.steady(STEADY).await?;
    pools(team).await?;

    let old = team.leader().await?;
    let begin = clock::now();
    old.kill_everything()?;
    team.other_leader(&old.name, FAILOVER).await?;
    let gap = play.gap_since(begin).await?;
    ensure!(gap < FAILOVER, "clients waited {gap:?} when the primary was killed");
    row.note(format!("kill {:.2} s", gap.as_secs_f64()));
    team.start(old)?;
    team.steady(STEADY).await?;
    pools(team).await?;

    behind(team).await?;
    play.end(row, Promise::QUORUM).await
}

/// The pools are what the cluster is, and connections go there.
async fn pools(team: &Team<'_>) -> Result<()> {
    let (leader, standbys) = (team.leader().await?, team.standbys().await?);
    Balancer::pool_is("primary", &[leader], NOTICED).await?;
    Balancer::pool_is("replicas", &standbys, NOTICED).await?;
    let who = "SELECT host(inet_server_addr()), pg_is_in_recovery()";
    let rows = Balancer::primary().query(who, FAILOVER).await?;
    ensure!(rows == [[leader.address.to_string(), "f".to_owned()]], "writes go to {rows:?}");
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.extend(Balancer::replicas().query(who, FAILOVER).await?.concat());
    }
    let wanted = standbys.iter().map(|one| one.address.to_string()).chain(["t".to_owned()]).collect();
    ensure!(seen == wanted, "reads go to {seen:?}");
    Ok(())
}

/// A standby that cannot replay leaves the pool of reads when it is more than a megabyte behind, and comes back.
async fn behind(team: &Team<'_>) -> Result<()> {
    let (leader, standbys) = (team.leader().await?, team.standbys().await?);
    let [slow, other] = standbys[..] else { anyhow::bail!("two standbys are needed") };
    let replay = replaying(slow)?;
    replay.signal(Signal::STOP)?;
    leader.sql("SELECT pg_logical_emit_message(false, 'haproxy', repeat('x', 3000000)), pg_switch_wal()").await?;
    let left = Balancer::pool_is("replicas", &[other], NOTICED).await;
    replay.signal(Signal::CONT)?;
    left?;
    Balancer::pool_is("replicas", &standbys, NOTICED).await
}

/// The process that replays WAL.
fn replaying(member: &Member) -> Result<crate::host::process::Process> {
    let of_it = |pid: u32| command_line(pid).contains("startup recovering");
    member.processes().into_iter().find(|one| of_it(one.pid)).context("nothing replays")
}
