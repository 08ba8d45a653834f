//! The status: computed from what was seen, and written only when it differs.

use jiff::Timestamp;
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, SCOPE_LABEL};
use matriarch_crds::{Condition, MemberStatus, PostgresClusterStatus};

use crate::config;
use crate::member::Member;
use crate::next_step::Step;
use crate::observe::Seen;

/// What came of the writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of them succeeded, or there were none.
    Done,
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
    let lag = seen.members.iter().filter_map(|m| behind(m, leader, position)).max();
    let mut status = PostgresClusterStatus {
        observed_generation: seen.cluster.metadata.generation,
        conditions: Vec::new(),
        instances: count(seen.members.len()),
        ready_instances: ready,
        ready: Some(format!("{ready}/{}", spec.instances)),
        selector: Some(format!("{APPLICATION_LABEL}={APPLICATION},{SCOPE_LABEL}={}", seen.name())),
        last_primary: primary.clone().or(old.last_primary),
        timeline: leader.and_then(|m| m.report.timeline).or(old.timeline),
        primary,
        lag: lag.map(megabytes),
        durability: Some(config::durability(seen)),
        version: leader.and_then(version).or(old.version),
        step: None,
        switchover: old.switchover,
        declared: old.declared,
        members,
    };
    status.conditions = vec![
        ready_condition(seen, ready),
        progressing(step),
        configuration(seen),
        match outcome {
            Outcome::Done => condition(
                "Reconciled",
                true,
                "Reconciled",
                "everything is as the spec says, as far as the operator writes it",
            ),
            Outcome::Failed { category, message } => condition("Reconciled", false, category, message),
        },
    ];
    status.conditions.extend(crate::plan::monitoring::condition(seen));
    for c in &mut status.conditions {
        c.observed_generation = seen.cluster.metadata.generation;
        let before = old.conditions.iter().find(|o| o.type_ == c.type_ && o.status == c.status);
        c.last_transition_time = before.map_or_else(|| second(seen.now), |o| o.last_transition_time.clone());
    }
    status
}

fn second(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn condition(type_: &str, holds: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: String::new(),
        observed_generation: None,
    }
}

fn ready_condition(seen: &Seen, ready: i32) -> Condition {
    let wanted = seen.cluster.spec.instances;
    let no = |reason: &str, message: &str| condition("Ready", false, reason, message);
    if let Some(secret) = seen.user_secrets.iter().find(|s| s.lacks.is_some()) {
        let field = if secret.user == "app" { "application" } else { secret.user };
        let username = match secret.user {
            "superuser" => "postgres",
            "replication" => "replicator",
            "rewind" => "rewinder",
            _ => &seen.cluster.spec.application.owner,
        };
        let message = format!(
            "the Secret {name} of spec.secrets.{field} {lacks}: make it with `kubectl -n {namespace} create secret generic {name} \
             --from-literal=username={username} --from-literal=password=...`, or remove spec.secrets.{field} to have one generated; \
             until then the pods stay as they are",
            name = secret.name,
            lacks = secret.lacks.as_deref().unwrap_or_default(),
            namespace = seen.namespace(),
        );
        return no("SecretMissing", &message);
    }
    let mut problems: Vec<(&'static str, String)> = seen.members.iter().filter_map(Member::problem).collect();
    // What a user has to correct first; then what passes by itself.
    problems.sort_by_key(|(reason, _)| match *reason {
        "ImagePullFailed" => 0,
        "ContainerCreateFailed" => 1,
        "CrashLooping" => 2,
        "Unschedulable" => 3,
        "MemberNotReady" => 4,
        _ => 5,
    });
    if let Some((reason, _)) = problems.first() {
        let all: Vec<&str> = problems.iter().map(|(_, message)| message.as_str()).collect();
        return no(reason, &all.join("; "));
    }
    if seen.leader().is_none() {
        return no("NoPrimary", "no member holds the leader lock");
    }
    if ready < wanted {
        return no("MembersMissing", &format!("{ready} of {wanted} members exist and are ready"));
    }
    condition("Ready", true, "AllMembersReady", &format!("{ready} of {wanted} members are ready"))
}

fn progressing(step: &Step) -> Condition {
    let yes = |reason: &str, message: &str| condition("Progressing", true, reason, message);
    match step {
        Step::Stable => condition("Progressing", false, "Stable", "nothing is under way"),
        Step::Create => yes("Creating", "the StatefulSet is being created"),
        Step::UpgradeAgent { pod } => {
            yes("AgentUpgrade", &format!("the agent of {pod} is being upgraded in place; PostgreSQL runs on"))
        }
        Step::ReplacePod { pod, why, .. } => yes("RollingUpdate", &format!("{pod} is being replaced: {why}")),
        Step::Switchover { from, to, reason, why } => {
            yes(reason, &format!("{why}: switching over from {from} to {to}"))
        }
        Step::Wait { reason, message } => yes(reason, message),
    }
}

fn configuration(seen: &Seen) -> Condition {
    let invalid: Vec<String> = seen
        .members
        .iter()
        .flat_map(|m| &m.report.matriarch.invalid_parameters)
        .map(|(name, why)| format!("{name}: {why}"))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !invalid.is_empty() {
        let message = format!(
            "PostgreSQL does not take what spec.postgresql.parameters says, and runs on without it: {}: correct or remove it there",
            invalid.join("; ")
        );
        return condition("ConfigurationApplied", false, "InvalidParameters", &message);
    }
    let waiting: Vec<&str> =
        seen.members.iter().filter(|m| m.report.pending_restart == Some(true)).map(|m| m.name.as_str()).collect();
    if !waiting.is_empty() {
        let message = format!("a setting takes effect when PostgreSQL is restarted on {}", waiting.join(", "));
        return condition("ConfigurationApplied", false, "PendingRestart", &message);
    }
    condition("ConfigurationApplied", true, "Applied", "no member reports a setting that is not in effect")
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
