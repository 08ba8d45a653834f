//! Which pod is touched next, and how: one step at a time, replicas first. Pure.
//!
//! | # | situation | step |
//! |---|---|---|
//! | 1 | no StatefulSet yet | create it |
//! | 2 | fewer instances wanted, and the leader's ordinal would go | switch over to a member that stays, then scale |
//! | 3 | a pod that is not ready runs an older agent, or was made with an older spec | upgrade or replace that one first: nothing is lost |
//! | 4 | some pod is missing, stopping or not ready | wait for it |
//! | 5 | a pod runs an older agent | upgrade it in place: replicas first, the leader last |
//! | 6 | a replica was made with an older spec | replace it |
//! | 7 | the leader was made with an older spec | switch over, then it is a replica; alone, replace it |
//!
//! In maintenance mode (pause) only agents are upgraded; what would stop PostgreSQL waits.

use crate::config;
use crate::member::Member;
use crate::observe::Seen;
use crate::plan::locks::switchover_asked;
use crate::plan::restart_hash;

/// For how long, in seconds, a switchover that was asked for is not asked for again.
pub const SWITCHOVER_PATIENCE: i64 = 60;

/// For how long, in seconds, a pod's readiness may still be the old agent's after the image was patched: the kubelet
/// restarts the container within a second or two, and its probe runs every two.
pub const AGENT_SETTLES: i64 = 5;

/// The next step, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do.
    Stable,
    /// The StatefulSet does not exist yet.
    Create,
    /// The pod's agent gets the operator's sidecar image, in place; PostgreSQL runs on.
    UpgradeAgent {
        /// The pod.
        pod: String,
    },
    /// The pod is deleted, so that the StatefulSet makes it anew from the present template.
    ReplacePod {
        /// The pod.
        pod: String,
        /// Its uid, as a precondition.
        uid: String,
        /// Why, for people.
        why: String,
    },
    /// A switchover is asked for.
    Switchover {
        /// The leader.
        from: String,
        /// The candidate.
        to: String,
        /// Reason of the condition `Progressing`.
        reason: &'static str,
        /// Why, for people.
        why: String,
    },
    /// Something has to happen first.
    Wait {
        /// Reason of the condition `Progressing`.
        reason: &'static str,
        /// For what, for people.
        message: String,
    },
}

/// How many replicas the StatefulSet shall have: those wanted, but never so few that the leader goes.
pub fn replicas(seen: &Seen) -> i32 {
    let wanted = seen.cluster.spec.instances;
    match live_replicas(seen) {
        Some(live) if wanted < live && leader_blocks_scale_down(seen, wanted) => live,
        _ => wanted,
    }
}

fn live_replicas(seen: &Seen) -> Option<i32> {
    let set = seen.object(crate::kinds::Kind::StatefulSet, &seen.name())?;
    set["spec"]["replicas"].as_i64().and_then(|n| i32::try_from(n).ok())
}

fn leader_blocks_scale_down(seen: &Seen, wanted: i32) -> bool {
    match seen.leader() {
        Some(leader) => seen.members.iter().find(|m| m.name == leader).is_none_or(|m| m.ordinal >= wanted),
        // Without a leader nobody knows which member has all commits.
        None => seen.initialized(),
    }
}

/// Decides.
pub fn next_step(seen: &Seen) -> Step {
    let Some(live) = live_replicas(seen) else { return Step::Create };
    let wanted = seen.cluster.spec.instances;
    if wanted < live && leader_blocks_scale_down(seen, wanted) {
        return scale_down(seen, wanted);
    }

    let expected = restart_hash(&seen.cluster.spec);
    let is_leader = |m: &Member| seen.leader() == Some(m.name.as_str());
    let outdated = |m: &Member| outdated(seen, m, &expected);
    let old_agent = |m: &Member| m.agent_image != seen.sidecar_image;

    // A broken pod can only get better. Never the leader's: its PostgreSQL may serve although the pod is not ready.
    for m in seen.members.iter().filter(|m| !m.ready && !m.deleting) {
        if old_agent(m) {
            return Step::UpgradeAgent { pod: m.name.clone() };
        }
        if let Some(why) = outdated(m).filter(|_| !is_leader(m) && !seen.paused()) {
            return Step::ReplacePod { pod: m.name.clone(), uid: m.uid.clone(), why };
        }
    }

    let count = i32::try_from(seen.members.len()).unwrap_or(i32::MAX);
    if let Some((_, message)) = seen.members.iter().find_map(Member::problem) {
        return Step::Wait {
            reason: "MembersNotReady",
            message: format!("waiting until every member is ready: {message}"),
        };
    }
    if count != wanted {
        return Step::Wait { reason: "Scaling", message: format!("{count} of {wanted} members exist") };
    }

    let mut order: Vec<&Member> = seen.members.iter().collect();
    order.sort_by_key(|m| (is_leader(m), std::cmp::Reverse(m.ordinal)));
    if let Some(m) = order.iter().find(|m| old_agent(m)) {
        if seen.members.iter().any(|m| !settled(seen, m)) {
            return upgrading();
        }
        return Step::UpgradeAgent { pod: m.name.clone() };
    }
    if seen.members.iter().any(|m| !settled(seen, m)) {
        return upgrading();
    }
    let Some((m, why)) = order.iter().find_map(|m| outdated(m).map(|why| (*m, why))) else { return Step::Stable };
    if seen.paused() {
        return Step::Wait {
            reason: "Paused",
            message: format!("{} has to be replaced ({why}), which waits for the end of maintenance mode", m.name),
        };
    }
    if is_leader(m) && wanted > 1 {
        return switch_over(seen, "RollingUpdate", wanted, &format!("{} has to be replaced ({why})", m.name));
    }
    Step::ReplacePod { pod: m.name.clone(), uid: m.uid.clone(), why }
}

/// Whether the kubelet runs the agent that the pod's spec names, and the pod's readiness is the new agent's.
fn settled(seen: &Seen, m: &Member) -> bool {
    let recent = m.agent_upgraded.is_some_and(|at| seen.now.as_second() - at.as_second() < AGENT_SETTLES);
    m.agent_settled && !recent
}

fn upgrading() -> Step {
    Step::Wait { reason: "AgentUpgrade", message: "waiting until the upgraded agent answers".to_owned() }
}

/// Why the pod has to be made anew, if it has to.
fn outdated(seen: &Seen, m: &Member, expected: &str) -> Option<String> {
    if m.made_with.as_deref().is_some_and(|h| h != expected) {
        return Some("its image, resources or placement differ from the spec".to_owned());
    }
    let changed = config::parameters_changed(seen)?;
    (m.report.pending_restart == Some(true) && m.created.is_some_and(|c| c < changed))
        .then(|| "a setting needs a restart of PostgreSQL".to_owned())
}

fn scale_down(seen: &Seen, wanted: i32) -> Step {
    let reason = "ScaleDownWaiting";
    if seen.leader().is_none() {
        let message =
            "scaling down waits until a member leads, for without a leader nobody knows which member has every commit";
        return Step::Wait { reason, message: message.to_owned() };
    }
    switch_over(seen, reason, wanted, "the leader would be removed by scaling down")
}

fn switch_over(seen: &Seen, reason: &'static str, below: i32, why: &str) -> Step {
    let Some(from) = seen.leader() else {
        return Step::Wait { reason, message: format!("{why}; waiting until a member leads") };
    };
    if seen.paused() {
        return Step::Wait { reason, message: format!("{why}, which waits for the end of maintenance mode") };
    }
    let failover = seen.names().failover();
    let pending = ["leader", "member", "scheduled_at"].iter().any(|k| seen.lock_annotation(&failover, k).is_some());
    let recent = switchover_asked(seen).is_some_and(|at| seen.now.as_second() - at.as_second() < SWITCHOVER_PATIENCE);
    if pending || recent {
        return Step::Wait { reason, message: format!("{why}; waiting for the switchover") };
    }
    let sync = seen.lock_annotation(&seen.names().sync(), "sync_standby").unwrap_or_default();
    let sync: Vec<&str> = sync.split(',').filter(|s| !s.is_empty()).collect();
    let best = seen
        .members
        .iter()
        .filter(|m| m.name != from && m.ordinal < below && m.can_lead())
        .filter(|m| sync.is_empty() || sync.contains(&m.name.as_str()))
        .max_by_key(|m| (m.report.xlog_location, std::cmp::Reverse(m.ordinal)));
    match best {
        Some(to) => Step::Switchover { from: from.to_owned(), to: to.name.clone(), reason, why: why.to_owned() },
        None => Step::Wait { reason, message: format!("{why}, but no standby is ready to take over: waiting for one") },
    }
}
