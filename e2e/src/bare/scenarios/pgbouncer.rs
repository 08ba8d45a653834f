//! Clients that reach the cluster through PgBouncer, as its example in `docs` sets it up.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{FAILOVER, Play, switch_over};
use crate::bare::pgbouncer::{Pooler, application, certified, is_accepted};
use crate::bare::proxy::Proxy;
use crate::bare::sandbox::SERVICE;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::scenarios::Row;
use crate::workload::{Outcome, Promise, clock};

/// Follows a switchover, one between PAUSE and RESUME, and the death of the primary.
pub async fn pgbouncer(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = Plan::new("pgbouncer");
    let encrypted = certified(stage, &stage.root.join(&plan.name))?;
    let team = Team::running(stage, plan.file(encrypted)).await?;
    is_accepted(stage, &team.plan.name).await?;
    application(team.leader().await?).await?;
    let proxy = Proxy::start(SERVICE, team.members.iter().map(|member| member.address).collect()).await?;
    let _pooler = Pooler::start(stage, &team)?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ssl = Pooler::application().query(sql, FAILOVER).await?;
    ensure!(ssl == [["t"]], "PgBouncer's connection to the server is not encrypted: {ssl:?}");
    let play = Play::through(team, Pooler::application(), Some(proxy)).await?;
    let team = &play.team;

    let begin = clock::now();
    switch_over(team, &team.standbys().await?[0].name).await?;
    let gap = play.gap_since(begin).await?;
    ensure!(gap < Duration::from_secs(5), "clients waited {gap:?} at a switchover");
    row.note(format!("switchover {:.2} s, {} errors", gap.as_secs_f64(), errors(&play, begin).len()));
    team.steady(STEADY).await?;

    let begin = clock::now();
    let console = Pooler::console();
    console.query("PAUSE", Duration::ZERO).await?;
    let switched = switch_over(team, &team.standbys().await?[0].name).await;
    console.query("RESUME", FAILOVER).await?;
    switched?;
    let gap = play.gap_since(begin).await?;
    let errors = errors(&play, begin);
    ensure!(errors.is_empty(), "clients were told of a switchover between PAUSE and RESUME: {errors:?}");
    row.note(format!("paused switchover {:.2} s, no errors", gap.as_secs_f64()));
    team.steady(STEADY).await?;

    let old = team.leader().await?;
    let begin = clock::now();
    old.kill_everything()?;
    team.other_leader(&old.name, FAILOVER).await?;
    let gap = play.gap_since(begin).await?;
    ensure!(gap < FAILOVER, "clients waited {gap:?} when the primary was killed");
    row.note(format!("kill {:.2} s", gap.as_secs_f64()));
    team.start(old)?;
    play.end(row, Promise::QUORUM).await
}

/// What clients of PgBouncer were told since then instead of an acknowledgement. One that gave up by its own clock was told nothing.
fn errors(play: &Play<'_>, since: Duration) -> Vec<String> {
    let attempts = play.workload.history().attempts();
    let told = attempts.iter().filter(|one| one.through_service() && one.sent >= since);
    told.filter_map(|one| match &one.outcome {
        Outcome::Unknown(text) | Outcome::Refused(text) if !text.starts_with("no answer in") => Some(text.clone()),
        _ => None,
    })
    .collect()
}
