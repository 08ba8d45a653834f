//! The status: computed from what was seen, and written only when it differs.

mod conditions;

use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, SCOPE_LABEL};
use matriarch_crds::{MemberStatus, PostgresClusterStatus};

use crate::config;
use crate::member::Member;
use crate::next_step::{Step, count, field, wait};
use crate::observe::Seen;

/// What came of the writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of them succeeded, or there were none.
    Done,
    /// All but that claims cannot grow: what the API server said.
    CannotGrow(Vec<String>),
    /// One failed.
    Failed {
        /// Category of the error.
        category: &'static str,
        /// What happened.
        message: String,
    },
}

/// The whole status.
pub fn status(seen: &Seen, step: &Step, outcome: &Outcome) -> PostgresClusterStatus {
    let old = seen.cluster.status.clone().unwrap_or_default();
    let spec = &seen.cluster.spec;
    let primary = seen.leader().map(str::to_owned);
    let leader = seen.members.iter().find(|m| Some(&m.name) == primary.as_ref());
    let position = leader.and_then(|m| m.report.xlog_location);
    let members: Vec<MemberStatus> = seen.members.iter().map(|m| member(m, leader, position)).collect();
    let ready = count(seen.members.iter().filter(|m| m.ready && !m.deleting).count());
    let wanted = if spec.hibernate { 0 } else { spec.instances };
    let lag = seen.members.iter().filter_map(|m| behind(m, leader, position)).max();
    let mut status = PostgresClusterStatus {
        observed_generation: seen.cluster.metadata.generation,
        conditions: Vec::new(),
        instances: count(seen.members.len()),
        ready_instances: ready,
        ready: Some(format!("{ready}/{wanted}")),
        selector: Some(format!("{APPLICATION_LABEL}={APPLICATION},{SCOPE_LABEL}={}", seen.name())),
        last_primary: primary.clone().or(old.last_primary),
        timeline: leader.and_then(|m| m.report.timeline).or(old.timeline),
        primary,
        lag: lag.map(megabytes),
        durability: Some(config::durability(seen)),
        version: leader.and_then(version).or(old.version),
        step: wait::status(seen, step),
        switchover: field::status(seen),
        declared: conditions::declared(seen),
        members,
    };
    status.conditions = conditions::all(seen, step, outcome, ready);
    status.conditions.extend(crate::plan::monitoring::condition(seen));
    for c in &mut status.conditions {
        c.observed_generation = seen.cluster.metadata.generation;
        let before = old.conditions.iter().find(|o| o.type_ == c.type_ && o.status == c.status);
        c.last_transition_time = before.map_or_else(|| wait::second(seen.now), |o| o.last_transition_time.clone());
    }
    status
}

fn member(m: &Member, leader: Option<&Member>, position: Option<i64>) -> MemberStatus {
    MemberStatus {
        name: m.name.clone(),
        role: m.report.role.clone(),
        state: m.state().map(str::to_owned),
        ready: m.ready && !m.deleting,
        timeline: m.report.timeline,
        lag: behind(m, leader, position).map(megabytes),
        reason: m.problem().map(|(_, message)| message),
    }
}

/// How many bytes a standby is behind the leader, as far as both said.
fn behind(m: &Member, leader: Option<&Member>, position: Option<i64>) -> Option<i64> {
    if leader.is_some_and(|l| l.name == m.name) {
        return None;
    }
    Some(position?.saturating_sub(m.report.xlog_location?).max(0))
}

/// Whole MB only, so that a busy cluster does not change its status all the time.
fn megabytes(bytes: i64) -> String {
    format!("{} MB", bytes / 1_048_576)
}

fn version(m: &Member) -> Option<String> {
    let value = m.report.matriarch.server_version.as_ref()?;
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|v| format!("{}.{}", v / 10_000, v % 10_000)))
}

/// The status to write, if the new one differs from the old in more than times.
pub fn difference(old: Option<&PostgresClusterStatus>, new: &PostgresClusterStatus) -> bool {
    old != Some(new)
}
