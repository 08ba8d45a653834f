//! How long each wait may take before it is suspicious, and whether the cluster is stuck.

use jiff::{SignedDuration, Timestamp};
use matriarch_crds::cluster::StepStatus;

use super::{Step, rolling};
use crate::observe::Seen;

/// After how many seconds a step is suspicious; None: it may take as long as it takes.
fn patience(reason: &str) -> Option<i64> {
    Some(match reason {
        "StatefulSetRecreate" | "AgentUpgrade" => 120,
        "Switchover" | "RollingUpdate" | "Restart" | "NoPrimary" => 180,
        "Hibernating" | "HibernateWaiting" | "ScaleDown" | "ScaleDownWaiting" | "NodeDrain" => 300,
        "MembersNotReady" | "Creating" | "ReplaceVolume" => 600,
        // A new member is copied, which takes as long as there is data.
        "Scaling" => 3600,
        _ => return None,
    })
}

/// Reason of the condition `Progressing`; None if nothing is under way.
pub fn reason(step: &Step) -> Option<&'static str> {
    Some(match step {
        Step::Stable | Step::Hibernated => return None,
        Step::Create => "Creating",
        Step::RecreateSet { .. } => "StatefulSetRecreate",
        Step::UpgradeAgent { .. } => "AgentUpgrade",
        Step::ReplacePod { .. } => "RollingUpdate",
        Step::Restart { .. } => "Restart",
        Step::ReplaceVolume { .. } => "ReplaceVolume",
        Step::Withdraw { .. } => "Switchover",
        Step::Switchover { reason, .. } | Step::Wait { reason, .. } => reason,
    })
}

/// Whether it waits for a person or for the clock, and may take as long as it takes.
pub fn patient(step: &Step) -> bool {
    matches!(step, Step::Wait { reason, .. } if patience(reason).is_none())
}

/// What is under way, in a sentence.
pub fn message(step: &Step) -> String {
    match step {
        Step::Stable => "nothing is under way".to_owned(),
        Step::Hibernated => {
            "all pods are stopped and all volumes are kept; hibernate: false wakes the cluster".to_owned()
        }
        Step::Create => "the StatefulSet is being created".to_owned(),
        Step::RecreateSet { .. } => {
            "the StatefulSet is made anew with another size of its claim template; the pods run on".to_owned()
        }
        Step::UpgradeAgent { pod } => format!("the agent of {pod} is being upgraded in place; PostgreSQL runs on"),
        Step::ReplacePod { pod, why, .. } => format!("{pod} is being replaced: {why}"),
        Step::Restart { pod, why, .. } => format!("PostgreSQL of {pod} is being restarted in place {why}"),
        Step::ReplaceVolume { pod, why, .. } => format!("{pod} gets a new volume and is copied anew: {why}"),
        Step::Switchover { from, to, why, .. } => format!("{why}: switching over from {from} to {to}"),
        Step::Withdraw { why } => why.clone(),
        Step::Wait { message, .. } => message.clone(),
    }
}

/// `status.step`: since when, and by when it should be over.
pub fn status(seen: &Seen, step: &Step) -> Option<StepStatus> {
    let reason = reason(step)?;
    let before = seen.cluster.status.as_ref().and_then(|s| s.step.as_ref()).filter(|s| s.reason == reason);
    let since = before.and_then(|s| s.since.parse::<Timestamp>().ok()).unwrap_or(seen.now);
    Some(StepStatus {
        reason: reason.to_owned(),
        message: message(step),
        since: second(since),
        deadline: patience(reason)
            .and_then(|seconds| since.checked_add(SignedDuration::from_secs(seconds)).ok())
            .map(second),
    })
}

/// Why nothing goes on without a person, as reason and message of the condition `Stalled`.
pub fn stalled(seen: &Seen, step: &Step) -> Option<(String, String)> {
    let late = status(seen, step).filter(|s| {
        s.deadline.as_ref().and_then(|d| d.parse::<Timestamp>().ok()).is_some_and(|deadline| deadline <= seen.now)
    });
    if let Some(m) = rolling::stuck_on(seen) {
        let hopeless = m.trouble.as_ref().is_some_and(|t| hopeless(t.reason));
        if hopeless || late.is_some() {
            let (_, why) = m.problem().unwrap_or(("", m.name.clone()));
            return Some((
                "UpgradeStuck".to_owned(),
                format!(
                    "the rolling update stopped at {}, and the other members run on as they were: {why}; correct the spec, or put it back as it was, and the broken pod is replaced first",
                    m.name
                ),
            ));
        }
    }
    let broken = seen.members.iter().filter(|m| !m.deleting).find_map(|m| m.trouble.as_ref().map(|t| (m, t)));
    if let Some((m, t)) = broken.filter(|(_, t)| hopeless(t.reason)) {
        return Some((t.reason.to_owned(), format!("{}: {}", m.name, t.message)));
    }
    late.map(|s| (s.reason, format!("this takes longer than it should: {}", s.message)))
}

/// Troubles that do not pass by themselves.
fn hopeless(reason: &str) -> bool {
    matches!(reason, "ImagePullFailed" | "ContainerCreateFailed" | "CrashLooping")
}

/// To the second, as Kubernetes writes times.
pub fn second(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}
