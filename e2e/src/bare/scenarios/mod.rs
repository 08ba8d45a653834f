//! What the scenarios have in common: a team, clients that write through the proxy and to each member, and the checker.

pub mod backup;
pub mod cascade;
pub mod configuration;
pub mod data;
pub mod day_two;
pub mod faults;
pub mod guard;
pub mod haproxy;
pub mod life;
pub mod making;
pub mod mixed;
pub mod patronictl;
pub mod people;
pub mod pgbouncer;
pub mod rules;
pub mod slots;
pub mod store;
pub mod streams;
pub mod takeover;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::member::database;
use super::proxy::Proxy;
use super::sandbox::SERVICE;
use super::stage::Stage;
use super::team::{Plan, STEADY, Team, merge};
use super::wait::until;
use crate::scenarios::Row;
use crate::workload::{Database, Promise, Workload, clock, longest_gap};

/// A failover without notice: ttl 6 and what follows.
pub const FAILOVER: Duration = Duration::from_secs(15);

/// For how long clients write when all is well again.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A team under workload.
pub struct Play<'a> {
    /// The clients.
    pub workload: Workload,
    _proxy: Option<Proxy>,
    /// The members.
    pub team: Team<'a>,
}

impl<'a> Play<'a> {
    /// Makes the team and starts the clients.
    pub async fn begin(stage: &'a Stage, plan: Plan) -> Result<Self> {
        let team = Team::running(stage, plan).await.context("at the beginning")?;
        Self::on(team).await
    }

    /// Starts the clients of a team that runs.
    pub async fn on(team: Team<'a>) -> Result<Self> {
        let addresses = team.members.iter().map(|member| member.address).collect();
        let proxy = Proxy::start(SERVICE, addresses).await?;
        Self::through(team, database(SERVICE), Some(proxy)).await
    }

    /// Starts the clients of a team that runs, which reach it at `way`.
    pub async fn through(team: Team<'a>, way: Database, proxy: Option<Proxy>) -> Result<Self> {
        let run = format!("{} {}", team.plan.name, clock::now().as_millis());
        let file = team.folder().join("workload.jsonl");
        let workload = Workload::start(way, None, &run, &file).await?;
        for member in &team.members {
            workload.watch_pod(None, &member.address.to_string())?;
        }
        workload.writable(STEADY).await?;
        Ok(Self { workload, _proxy: proxy, team })
    }

    /// Waits until all is well, and judges what the clients were told.
    pub async fn end(self, row: &mut Row, promise: Promise) -> Result<()> {
        self.workload.writable(STEADY).await.context("at the end")?;
        self.team.steady(STEADY).await.context("at the end")?;
        tokio::time::sleep(AFTERWARDS).await;
        let verdict = self.workload.finish().await?;
        let failures = verdict.failures(promise);
        row.verdict = Some(verdict);
        if !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        Ok(())
    }

    /// The longest time that clients waited from `since` until they write again.
    pub async fn gap_since(&self, since: Duration) -> Result<Duration> {
        self.workload.writable(FAILOVER).await?;
        Ok(longest_gap(&self.workload.history().attempts(), since).map_or(Duration::ZERO, |gap| gap.length))
    }

    /// Fails when clients had to wait for longer than this from `since` on.
    pub fn no_gap(&self, since: Duration, limit: Duration) -> Result<()> {
        match longest_gap(&self.workload.history().attempts(), since) {
            Some(gap) if gap.length > limit => bail!("clients waited too long: {gap}"),
            _ => Ok(()),
        }
    }
}

/// A team whose members have tags of their own, by number.
pub async fn tagged<'a>(stage: &'a Stage, plan: Plan, tags: &[serde_json::Value]) -> Result<Play<'a>> {
    let team = Team::new(stage, plan).await?;
    for (member, tags) in team.members.iter().zip(tags) {
        let mut file = team.plan.patroni(member);
        merge(&mut file, json!({"tags": tags}));
        member.configure(&file)?;
    }
    // The first one makes the cluster.
    team.start(&team.members[0])?;
    team.steady(STEADY).await?;
    team.start_all()?;
    team.steady(STEADY).await?;
    Play::on(team).await
}

/// Asks the leader for a switchover and waits for its answer.
pub async fn switch_over(team: &Team<'_>, to: &str) -> Result<()> {
    let leader = team.leader().await?;
    let (code, text) = leader.post("/switchover", &json!({"leader": leader.name, "candidate": to})).await?;
    if code != 200 {
        bail!("the switchover to {to} was answered {code} {text}");
    }
    Ok(())
}

/// Waits until a log says something.
pub async fn logs(member: &super::member::Member, what: &str, deadline: Duration) -> Result<()> {
    until(&format!("the log of {} says {what:?}", member.name), deadline, async || {
        Ok(if member.logged().contains(what) { Ok(()) } else { Err("it does not".to_owned()) })
    })
    .await
}
