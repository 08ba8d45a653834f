//! All scenarios, in the order in which they run.

use std::time::Duration;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use super::case::Case;
use super::day_two::{changes, declared, drift, growth, killed, losses, rights, secrets, wiped, wishes};
use super::report::Row;
use super::world::World;
use super::{api, bootstrap, containers, idle, input, partition, plugin, pods, switchover, upgrade};
use crate::workload::Promise;

/// Ttl of the lock, the default: what limits a failover without notice.
pub const TTL: Duration = Duration::from_secs(10);
/// For how long the long faults last.
pub const LONG: Duration = Duration::from_secs(10 + 20);

/// The cluster that a scenario uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// Three members with the lock in a ConfigMap.
    ConfigMaps,
    /// Three members with the lock in an Endpoints object.
    Endpoints,
    /// Three members with a WAL volume each, on a storage class whose volumes can grow.
    Growing,
}

/// What a scenario does.
#[derive(Clone, Copy)]
pub enum Body {
    /// A fault under the workload. The frame starts the clients, waits for a steady cluster before and after, and checks.
    Fault(On, for<'a> fn(&'a Case) -> LocalBoxFuture<'a, Result<()>>),
    /// Anything else; it checks by itself.
    Alone(for<'a> fn(&'a World, &'a mut Row) -> LocalBoxFuture<'a, Result<()>>),
}

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, for `--filter`.
    pub name: &'static str,
    /// In milliseconds: the gap of writes that we aim at, and the one above which it fails.
    pub gap: Option<(u64, u64)>,
    /// How many nodes it needs.
    pub nodes: u8,
    /// What the checker insists on.
    pub promise: Promise,
    /// What it does.
    pub body: Body,
}

const fn alone(
    name: &'static str,
    body: for<'a> fn(&'a World, &'a mut Row) -> LocalBoxFuture<'a, Result<()>>,
) -> Scenario {
    Scenario { name, gap: None, nodes: 1, promise: Promise::QUORUM, body: Body::Alone(body) }
}

const fn fault(
    name: &'static str,
    gap: (u64, u64),
    body: for<'a> fn(&'a Case) -> LocalBoxFuture<'a, Result<()>>,
) -> Scenario {
    Scenario { name, gap: Some(gap), nodes: 1, promise: Promise::QUORUM, body: Body::Fault(On::ConfigMaps, body) }
}

/// The aim after a loss without notice: ttl and 2 s.
const TTL_AND_2: u64 = 12_000;

/// All of them.
pub const ALL: &[Scenario] = &[
    alone("bootstrap-1", |world, row| Box::pin(bootstrap::one(world, row))),
    alone("bootstrap-3", |world, row| Box::pin(bootstrap::three(world, row, On::ConfigMaps))),
    alone("idle", |world, row| Box::pin(idle::idle(world, row))),
    fault("switchover", (300, 5_000), |case| Box::pin(switchover::to_a_candidate(case))),
    alone("plugin", |world, row| Box::pin(plugin::all(world, row))),
    fault("postmaster-killed", (1_500, 15_000), |case| Box::pin(containers::postmaster(case))),
    fault("pod-deleted", (1_500, 15_000), |case| Box::pin(pods::deleted(case))),
    fault("pod-deleted-by-force", (TTL_AND_2, 20_000), |case| Box::pin(pods::deleted_by_force(case))),
    fault("pod-killed", (TTL_AND_2, 20_000), |case| Box::pin(containers::everything(case))),
    fault("agent-killed", (100, 3_000), |case| Box::pin(containers::agent(case))),
    fault("supervisor-killed", (TTL_AND_2, 20_000), |case| Box::pin(containers::supervisor(case))),
    Scenario { nodes: 2, ..fault("node-drained", (300, 5_000), |case| Box::pin(wishes::drained(case))) },
    fault("agent-upgraded", (100, 1_000), |case| Box::pin(upgrade::agents(case))),
    fault("agent-stopped", (TTL_AND_2, 20_000), |case| Box::pin(containers::agent_stopped(case))),
    fault("pod-frozen-and-cut", (TTL_AND_2, 20_000), |case| Box::pin(partition::frozen(case))),
    Scenario {
        promise: Promise::ASYNC,
        ..fault("pod-frozen-async", (TTL_AND_2, 20_000), |case| Box::pin(partition::frozen_async(case)))
    },
    Scenario { nodes: 2, ..fault("operator-killed-drained", (300, 5_000), |case| Box::pin(killed::drained(case))) },
    // Moves the member that is alone on its node, with its volume, to the others: what needs one alone comes before.
    Scenario {
        nodes: 2,
        ..fault("same-name-elsewhere", (TTL_AND_2, 25_000), |case| Box::pin(partition::same_name(case)))
    },
    fault("api-down", (500, 3_000), |case| Box::pin(api::down(case))),
    fault("api-down-member-gone", (45_000, 75_000), |case| Box::pin(api::down_with_a_member_gone(case))),
    fault("all-pods-killed", (30_000, 60_000), |case| Box::pin(pods::all_killed(case))),
    fault("everything-killed", (TTL_AND_2, 60_000), |case| Box::pin(containers::every_pod(case))),
    fault("bad-input", (100, 1_000), |case| Box::pin(input::bad(case))),
    fault("scale-3-4-2", (300, 5_000), |case| Box::pin(changes::scaled(case))),
    fault("rolling-update", (300, 5_000), |case| Box::pin(changes::image(case))),
    fault("reload", (100, 1_000), |case| Box::pin(changes::reloaded(case))),
    fault("ordered-restart", (2_000, 5_000), |case| Box::pin(changes::restarted(case))),
    fault("declared", (100, 1_000), |case| Box::pin(declared::all(case))),
    fault("secrets-changed", (100, 3_000), |case| Box::pin(secrets::rotated(case))),
    fault("switchover-by-field", (300, 5_000), |case| Box::pin(wishes::switchover(case))),
    fault("hibernate", (30_000, 90_000), |case| Box::pin(wishes::hibernate(case))),
    fault("fenced", (300, 5_000), |case| Box::pin(wishes::fence(case))),
    fault("lost-volumes", (100, 1_000), |case| Box::pin(losses::volumes(case))),
    fault("primary-damaged", (1_500, 15_000), |case| Box::pin(losses::primary(case))),
    // To members that followed several timelines meanwhile.
    fault("switchover-again", (300, 5_000), |case| Box::pin(switchover::there_and_back(case))),
    alone("drift", |world, row| Box::pin(drift::drift(world, row))),
    fault("operator-killed", (1_000, 5_000), |case| Box::pin(killed::operator(case))),
    fault("operator-killed-asleep", (30_000, 90_000), |case| Box::pin(killed::asleep(case))),
    // Where the cluster changes anyway.
    Scenario {
        body: Body::Fault(On::Growing, |case| Box::pin(growth::grown(case))),
        ..fault("volumes-grown", (100, 1_000), |case| Box::pin(growth::grown(case)))
    },
    alone("endpoints-bootstrap", |world, row| Box::pin(bootstrap::three(world, row, On::Endpoints))),
    Scenario {
        body: Body::Fault(On::Endpoints, |case| Box::pin(switchover::to_a_candidate(case))),
        ..fault("endpoints-switchover", (300, 5_000), |case| Box::pin(switchover::to_a_candidate(case)))
    },
    Scenario {
        body: Body::Fault(On::Endpoints, |case| Box::pin(containers::everything(case))),
        ..fault("endpoints-pod-killed", (TTL_AND_2, 20_000), |case| Box::pin(containers::everything(case)))
    },
    alone("endpoints-wiped-config", |world, row| Box::pin(wiped::endpoints(world, row))),
    // Last, for it judges what was asked for in all of them.
    alone("rights", |world, row| Box::pin(rights::audit(world, row))),
];
