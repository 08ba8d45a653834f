//! New agents and new pods, one at a time: broken ones first, then replicas, then a switchover, then the former leader.

use matriarch_crds::cluster::Durability;

use super::set::{complete, expected};
use super::window::{Window, window};
use super::{Step, count, leads, restart, serving_leader, set, switchover};
use crate::config;
use crate::member::Member;
use crate::observe::Seen;
use crate::plan::restart_hash;

/// For how long, in seconds, a pod's readiness may still be the old agent's after the image was patched: the kubelet
/// restarts the container within a second or two, and its probe runs every two.
pub const AGENT_SETTLES: i64 = 5;
/// For how long, in seconds, a member that is back is waited for until it confirms commits. The leader's agent sees to
/// that within a second or two; one with a tag against it never does.
const CONFIRMS: i64 = 30;

/// Row 11: a broken pod can only get better, and so a spec that was wrong can be corrected.
pub(super) fn repair(seen: &Seen) -> Option<Step> {
    let broken = || seen.members.iter().filter(|m| !m.ready && !m.deleting);
    if let Some(m) = broken().find(|m| old_agent(seen, m)) {
        return Some(Step::UpgradeAgent { pod: m.name.clone() });
    }
    if seen.paused() || !complete(seen) || seen.members.iter().any(|m| m.deleting) {
        return None;
    }
    broken().filter(|m| !seen.fenced(&m.name) && may_go(seen, m)).find_map(|m| {
        let why = outdated(seen, m).or_else(|| waits_since_it_was_made(seen, m))?;
        Some(Step::ReplacePod { pod: m.name.clone(), uid: m.uid.clone(), why })
    })
}

/// Whether stopping a pod that is not ready takes nothing away. Its PostgreSQL may run all the same: confirm commits,
/// vote, or even serve as the leader.
fn may_go(seen: &Seen, m: &Member) -> bool {
    let state = m.report.state.as_deref();
    if leads(seen, m) {
        return m.postgres_down || matches!(state, Some("start failed" | "crashed"));
    }
    let others_are_ready = || expected(seen).all(|o| o.name == m.name || o.ready);
    m.postgres_down || state != Some("running") || (serving_leader(seen).is_some() && others_are_ready())
}

/// Row 12.
pub(super) fn wait_for_members(seen: &Seen) -> Option<Step> {
    if let Some((_, message)) = expected(seen).find_map(Member::problem) {
        return Some(Step::wait("MembersNotReady", format!("waiting until every member is ready: {message}")));
    }
    if complete(seen) {
        return None;
    }
    let wanted = set::live(seen).unwrap_or_default();
    Some(Step::wait("Scaling", format!("{} of {wanted} members exist", count(seen.members.len()))))
}

/// Row 14.
pub(super) fn agents(seen: &Seen) -> Option<Step> {
    if seen.members.iter().any(|m| !settled(seen, m)) {
        return Some(Step::wait("AgentUpgrade", "waiting until the upgraded agent answers"));
    }
    in_order(seen).into_iter().find(|m| old_agent(seen, m)).map(|m| Step::UpgradeAgent { pod: m.name.clone() })
}

/// A broken pod whose PostgreSQL has to be restarted anyway is made anew.
fn waits_since_it_was_made(seen: &Seen, m: &Member) -> Option<String> {
    let change = config::parameters_changed(seen)?;
    (restart::due(seen, m).is_some() && m.created.is_some_and(|at| at <= change))
        .then(|| "a setting needs a restart of PostgreSQL".to_owned())
}

/// Rows 16 and 17.
pub(super) fn replace(seen: &Seen) -> Option<Step> {
    let (m, why) = in_order(seen).into_iter().find_map(|m| outdated(seen, m).map(|why| (m, why)))?;
    let must = format!("{} has to be replaced ({why})", m.name);
    if let Some(wait) = hindered(seen, &must) {
        return Some(wait);
    }
    if leads(seen, m) && seen.members.len() > 1 {
        return Some(switchover::ask(seen, "RollingUpdate", i32::MAX, &must));
    }
    Some(Step::ReplacePod { pod: m.name.clone(), uid: m.uid.clone(), why })
}

/// Why no PostgreSQL is stopped now that could be stopped later.
pub(super) fn hindered(seen: &Seen, must: &str) -> Option<Step> {
    if seen.paused() {
        return Some(Step::wait("Paused", format!("{must}, which waits for the end of maintenance mode")));
    }
    if let Some(fenced) = seen.members.iter().find(|m| seen.fenced(&m.name)) {
        return Some(Step::wait("Fenced", format!("{must}, which waits until {} is no longer fenced", fenced.name)));
    }
    if seen.initialized() && serving_leader(seen).is_none() {
        return Some(Step::wait("NoPrimary", format!("{must}; waiting until a member leads")));
    }
    if let Window::Closed(next) = window(&seen.cluster.spec.maintenance_windows, seen.now) {
        let when = next.map_or_else(|| "that never opens".to_owned(), |next| format!("at {next}"));
        return Some(Step::wait("MaintenanceWindow", format!("{must}, which waits for the maintenance window {when}")));
    }
    let back = unconfirmed(seen)?;
    Some(Step::wait("RollingUpdate", format!("{must}; waiting until {}, which is back, confirms commits", back.name)))
}

/// A member that came back lately and does not confirm commits yet. Without it those of another that stops would be
/// missed, and after a switchover the new leader's writes would wait until it counts.
fn unconfirmed(seen: &Seen) -> Option<&Member> {
    let lately = |m: &Member| m.ready_since.is_some_and(|at| seen.now.as_second() - at.as_second() < CONFIRMS);
    let quorum = config::durability(seen) == Durability::Quorum;
    let voters = seen.voters().filter(|_| quorum)?;
    expected(seen).find(|m| m.ready && lately(m) && !leads(seen, m) && !voters.contains(&m.name.as_str()))
}

/// Replicas first, the highest ordinal first, the leader last.
pub(super) fn in_order(seen: &Seen) -> Vec<&Member> {
    let mut order: Vec<&Member> = seen.members.iter().filter(|m| !seen.fenced(&m.name) || leads(seen, m)).collect();
    order.sort_by_key(|m| (leads(seen, m), std::cmp::Reverse(m.ordinal)));
    order
}

fn old_agent(seen: &Seen, m: &Member) -> bool {
    m.agent_image != seen.sidecar_image
}

/// Whether the kubelet runs the agent that the pod's spec names, and the pod's readiness is the new agent's.
fn settled(seen: &Seen, m: &Member) -> bool {
    let recent = m.agent_upgraded.is_some_and(|at| seen.now.as_second() - at.as_second() < AGENT_SETTLES);
    (m.agent_settled || old_agent(seen, m)) && !recent
}

/// Why the pod has to be made anew, if it has to.
pub(super) fn outdated(seen: &Seen, m: &Member) -> Option<String> {
    (m.made_with.as_deref().is_some_and(|h| h != restart_hash(&seen.cluster.spec)))
        .then(|| "its image, resources or placement differ from the spec".to_owned())
}

/// Whether a rolling update is half way: some pods are of the present spec and some are not.
pub(super) fn half_way(seen: &Seen) -> bool {
    let hash = restart_hash(&seen.cluster.spec);
    let new = |m: &Member| m.made_with.as_deref() == Some(hash.as_str());
    seen.members.iter().any(new) && seen.members.iter().any(|m| m.made_with.is_some() && !new(m))
}

/// The pod of the present spec that does not become ready, while others still wait for their turn.
pub(super) fn stuck_on(seen: &Seen) -> Option<&Member> {
    let hash = restart_hash(&seen.cluster.spec);
    half_way(seen)
        .then(|| expected(seen).find(|m| !m.ready && !m.deleting && m.made_with.as_deref() == Some(hash.as_str())))
        .flatten()
}
