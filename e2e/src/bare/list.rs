//! All scenarios, in the order in which they run.

use anyhow::Result;
use futures::future::LocalBoxFuture;

use super::scenarios::{
    backup, cascade, configuration, data, day_two, faults, guard, haproxy, life, making, mixed, patronictl, people,
    pgbouncer, rules, slots, store, streams, takeover,
};
use super::stage::Stage;
use crate::scenarios::Row;

/// What a scenario does.
pub type Body = for<'a> fn(&'a Stage, &'a mut Row) -> LocalBoxFuture<'a, Result<()>>;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, for `--filter`; that of its cluster as well.
    pub name: &'static str,
    /// It belongs to the quick set.
    pub quick: bool,
    /// What it does.
    pub body: Body,
}

const fn quick(name: &'static str, body: Body) -> Scenario {
    Scenario { name, quick: true, body }
}

const fn long(name: &'static str, body: Body) -> Scenario {
    Scenario { name, quick: false, body }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    quick("bootstrap", |stage, row| Box::pin(life::bootstrap(stage, row))),
    quick("environment", |stage, row| Box::pin(life::environment(stage, row))),
    quick("switchover", |stage, row| Box::pin(faults::switchover(stage, row))),
    quick("agent-terminated", |stage, row| Box::pin(life::agent_terminated(stage, row))),
    quick("agent-killed", |stage, row| Box::pin(life::agent_killed(stage, row))),
    long("agent-lost", |stage, row| Box::pin(life::agent_lost(stage, row))),
    quick("agent-stopped", |stage, row| Box::pin(life::agent_stopped(stage, row))),
    quick("postmaster-killed", |stage, row| Box::pin(faults::postmaster_killed(stage, row))),
    long("supervisor-killed", |stage, row| Box::pin(faults::supervisor_killed(stage, row))),
    quick("quorum-kills", |stage, row| Box::pin(faults::quorum_kills(stage, row))),
    long("all-killed", |stage, row| Box::pin(faults::all_killed(stage, row))),
    long("frozen", |stage, row| Box::pin(faults::frozen(stage, row))),
    long("drop-to-one", |stage, row| Box::pin(faults::drop_to_one(stage, row))),
    quick("failsafe", |stage, row| Box::pin(store::failsafe(stage, row))),
    quick("wiped-config", |stage, row| Box::pin(store::wiped_config(stage, row))),
    long("wiped-all", |stage, row| Box::pin(store::wiped_all(stage, row))),
    long("pod-replaced", |stage, row| Box::pin(store::pod_replaced(stage, row))),
    quick("rewind", |stage, row| Box::pin(data::rewind(stage, row))),
    long("pid-reused", |stage, row| Box::pin(data::pid_reused(stage, row))),
    quick("data-removed", |stage, row| Box::pin(data::data_removed(stage, row))),
    long("data-lost", |stage, row| Box::pin(data::data_lost(stage, row))),
    quick("fenced", |stage, row| Box::pin(day_two::fenced(stage, row))),
    quick("passwords", |stage, row| Box::pin(day_two::passwords(stage, row))),
    quick("tags", |stage, row| Box::pin(rules::tags(stage, row))),
    long("priorities", |stage, row| Box::pin(rules::priorities(stage, row))),
    long("foreign-data", |stage, row| Box::pin(data::foreign_data(stage, row))),
    long("start-timeout-zero", |stage, row| Box::pin(rules::start_timeout_zero(stage, row))),
    quick("pause", |stage, row| Box::pin(people::paused(stage, row))),
    long("slow-stop", |stage, row| Box::pin(people::slow_stop(stage, row))),
    long("restart-by-hand", |stage, row| Box::pin(people::restart_behind_our_back(stage, row))),
    quick("scheduled", |stage, row| Box::pin(people::scheduled(stage, row))),
    quick("orders", |stage, row| Box::pin(people::orders(stage, row))),
    long("failover-by-hand", |stage, row| Box::pin(people::failover_by_hand(stage, row))),
    quick("configuration", |stage, row| Box::pin(configuration::changes(stage, row))),
    quick("patronictl", |stage, row| Box::pin(patronictl::looks(stage, row))),
    quick("patronictl-config", |stage, row| Box::pin(patronictl::configures(stage, row))),
    quick("patronictl-reload", |stage, row| Box::pin(patronictl::reloads(stage, row))),
    quick("patronictl-steers", |stage, row| Box::pin(patronictl::steers(stage, row))),
    quick("patronictl-orders", |stage, row| Box::pin(patronictl::orders(stage, row))),
    quick("patronictl-endpoints", |stage, row| Box::pin(patronictl::endpoints(stage, row))),
    long("patronictl-standby", |stage, row| Box::pin(patronictl::demoted_and_promoted(stage, row))),
    quick("haproxy", |stage, row| Box::pin(haproxy::haproxy(stage, row))),
    long("pgbouncer", |stage, row| Box::pin(pgbouncer::pgbouncer(stage, row))),
    quick("pitr", |stage, row| Box::pin(making::point_in_time(stage, row))),
    long("replica-script", |stage, row| Box::pin(making::replica_without_leader(stage, row))),
    long("pgbackrest", |stage, row| Box::pin(backup::pgbackrest(stage, row))),
    long("standby-cluster", |stage, row| Box::pin(streams::standby_cluster(stage, row))),
    long("cascade", |stage, row| Box::pin(cascade::chain(stage, row))),
    long("nostream", |stage, row| Box::pin(cascade::archive_only(stage, row))),
    long("slots-failover", |stage, row| Box::pin(slots::failover(stage, row))),
    long("watchdog-required", |stage, row| Box::pin(guard::required(stage, row))),
    quick("strict", |stage, row| Box::pin(streams::strict(stage, row))),
    quick("callbacks", |stage, row| Box::pin(streams::callbacks_and_watchdog(stage, row))),
    quick("takeover", |stage, row| Box::pin(takeover::takeover(stage, row))),
    long("takeover-endpoints", |stage, row| Box::pin(takeover::endpoints(stage, row))),
    long("takeover-attached", |stage, row| Box::pin(takeover::attached(stage, row))),
    quick("mixed", |stage, row| Box::pin(mixed::quorum(stage, row))),
    long("mixed-kills", |stage, row| Box::pin(mixed::kills(stage, row))),
    long("mixed-priority", |stage, row| Box::pin(mixed::priority(stage, row))),
    long("mixed-endpoints", |stage, row| Box::pin(mixed::endpoints(stage, row))),
    long("mixed-failsafe", |stage, row| Box::pin(mixed::failsafe(stage, row))),
];
