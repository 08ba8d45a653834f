//! Kubernetes events: what a person wants to find in `kubectl describe`, computed from the status before and after.

use kube::runtime::events::{Event, EventType};
use matriarch_crds::cluster::SwitchoverState;
use matriarch_crds::{Condition, MemberStatus, PostgresClusterStatus};

use crate::member::COPYING;
use crate::next_step::Step;

/// Events that tell how `old` became `new`, and which step was taken.
pub fn events(old: Option<&PostgresClusterStatus>, new: &PostgresClusterStatus, taken: Option<&Step>) -> Vec<Event> {
    let mut events = Vec::new();
    if old.is_none() {
        events.push(event(EventType::Normal, "Created", "Create", "the objects of the cluster are being created"));
    }
    let before = old.and_then(|o| o.last_primary.as_deref());
    match (before, new.primary.as_deref()) {
        (None, Some(now)) => {
            events.push(event(EventType::Normal, "PrimaryElected", "Elect", &format!("{now} is the first primary")));
        }
        (Some(before), Some(now)) if before != now => {
            events.push(event(
                EventType::Normal,
                "PrimaryChanged",
                "Elect",
                &format!("the primary is {now}, it was {before}"),
            ));
        }
        _ => {}
    }
    let told =
        ["Ready", "ConfigurationApplied", "MonitoringApplied", "Reconciled", "StorageResized", "DeclaredStateApplied"];
    for type_ in told {
        let was = old.and_then(|o| find(o, type_));
        let Some(is) = find(new, type_) else { continue };
        let was_bad = was.is_some_and(|c| c.status == "False" && !passing(&c.reason));
        let bad = is.status == "False" && !passing(&is.reason);
        if bad && was.is_none_or(|w| w.reason != is.reason) {
            events.push(event(EventType::Warning, &is.reason, "Reconcile", &is.message));
        }
        if was_bad && is.status == "True" {
            let reason = was.map(|w| w.reason.as_str()).unwrap_or_default();
            events.push(event(
                EventType::Normal,
                "ProblemResolved",
                "Reconcile",
                &format!("{reason} is over: {}", is.message),
            ));
        }
    }
    events.extend(copied(old, new));
    match taken {
        Some(Step::UpgradeAgent { pod }) => {
            events.push(event(
                EventType::Normal,
                "AgentUpgraded",
                "Upgrade",
                &format!("the agent of {pod} gets the operator's sidecar image; PostgreSQL runs on"),
            ));
        }
        Some(Step::ReplacePod { pod, why, .. }) => {
            events.push(event(EventType::Normal, "MemberReplaced", "Replace", &format!("{pod} is replaced: {why}")));
        }
        Some(Step::Restart { pod, why, .. }) => {
            let note = format!("PostgreSQL of {pod} is restarted in place {why}");
            events.push(event(EventType::Normal, "PostgresRestarted", "Restart", &note));
        }
        Some(Step::Switchover { from, to, why, .. }) => {
            events.push(event(
                EventType::Normal,
                "SwitchoverAsked",
                "Switchover",
                &format!("from {from} to {to}: {why}"),
            ));
        }
        Some(Step::ReplaceVolume { pod, why, .. }) => {
            let note = format!("{pod} gets a new volume and is copied anew: {why}");
            events.push(event(EventType::Warning, "VolumeReplaced", "Replace", &note));
        }
        Some(Step::RecreateSet { .. }) => {
            let note = "the StatefulSet is made anew with another size of its claim template; the pods run on";
            events.push(event(EventType::Normal, "StatefulSetRecreated", "Resize", note));
        }
        Some(Step::Withdraw { why }) => {
            events.push(event(EventType::Warning, "SwitchoverWithdrawn", "Switchover", why));
        }
        _ => {}
    }
    if let Some((message, state)) = ended(old, new) {
        let (type_, reason) = match state {
            SwitchoverState::Done => (EventType::Normal, "SwitchoverDone"),
            _ => (EventType::Warning, "SwitchoverFailed"),
        };
        events.push(event(type_, reason, "Switchover", message));
    }
    let stalled = find(new, "Stalled").filter(|c| c.status == "True");
    if let Some(stalled) = stalled.filter(|s| old.and_then(|o| find(o, "Stalled")).is_none_or(|w| w.reason != s.reason))
    {
        events.push(event(EventType::Warning, &stalled.reason, "Reconcile", &stalled.message));
    }
    events
}

/// Members whose data directory is being copied since: a warning where they served until then.
fn copied(old: Option<&PostgresClusterStatus>, new: &PostgresClusterStatus) -> Vec<Event> {
    let before = |name: &str| old?.members.iter().find(|m| m.name == name);
    let copying = |m: &MemberStatus| m.state.as_deref() == Some(COPYING);
    let began = new.members.iter().filter(|m| copying(m) && before(&m.name).is_some_and(|old| !copying(old)));
    began
        .filter_map(|m| {
            let served = before(&m.name).is_some_and(|old| old.ready);
            let type_ = if served { EventType::Warning } else { EventType::Normal };
            Some(event(type_, "MemberCopied", "Copy", m.reason.as_deref()?))
        })
        .collect()
}

/// What came of `spec.switchover`, if it came now.
fn ended<'a>(
    old: Option<&PostgresClusterStatus>,
    new: &'a PostgresClusterStatus,
) -> Option<(&'a str, SwitchoverState)> {
    let now = new.switchover.as_ref().filter(|s| s.state != SwitchoverState::Running)?;
    let known = old.and_then(|o| o.switchover.as_ref()).is_some_and(|s| s.id == now.id && s.state == now.state);
    (!known).then(|| (now.message.as_deref().unwrap_or_default(), now.state))
}

/// Reasons that come and go with every start and stop of a member.
fn passing(reason: &str) -> bool {
    matches!(
        reason,
        "MemberStarting"
            | "MemberStopping"
            | "MembersMissing"
            | "NoPrimary"
            | "PendingRestart"
            | "Hibernated"
            | "Resizing"
            | "Applying"
    )
}

fn find<'a>(status: &'a PostgresClusterStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// Kubernetes allows 1024 characters in a note.
fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    let note = note.chars().take(1000).collect();
    Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None }
}
