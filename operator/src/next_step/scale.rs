//! Scaling down: one pod at a time, never the leader, and only when all that stay are ready.

use super::{Step, leads, serving_leader, set, switchover};
use crate::observe::Seen;

const SHRINKS: &str = "ScaleDown";
const WAITS: &str = "ScaleDownWaiting";

/// Row 7: the leader leaves the ordinals that go.
pub(super) fn hand_over(seen: &Seen) -> Option<Step> {
    // While that waits for a standby other steps go on: they may be what it waits for.
    leaves(seen).filter(|step| matches!(step, Step::Switchover { .. }))
}

/// The switchover that it takes before any pod may go, or what that waits for.
fn leaves(seen: &Seen) -> Option<Step> {
    let wanted = seen.cluster.spec.instances;
    set::live(seen).filter(|live| wanted < *live)?;
    let leader = serving_leader(seen).filter(|leader| leader.ordinal >= wanted)?;
    let why = format!("{} leads and would be removed by scaling down", leader.name);
    Some(switchover::ask(seen, WAITS, wanted, &why))
}

/// Row 8: the pod with the highest ordinal goes.
pub(super) fn shrink(seen: &Seen) -> Option<Step> {
    let wanted = seen.cluster.spec.instances;
    let live = set::live(seen).filter(|live| wanted < *live && refusal(seen, *live).is_none())?;
    Some(Step::wait(SHRINKS, format!("scaling down from {live} to {wanted} members, one at a time")))
}

/// Whether that is the step that is taken now, and no other.
pub(super) fn shrinks(step: &Step) -> bool {
    matches!(step, Step::Wait { reason: SHRINKS, .. })
}

/// Row 13: why the next pod may not go yet.
pub(super) fn waits(seen: &Seen) -> Option<Step> {
    let wanted = seen.cluster.spec.instances;
    let live = set::live(seen).filter(|live| wanted < *live)?;
    let why = refusal(seen, live)?;
    if let Some(step) = leaves(seen) {
        return Some(step);
    }
    Some(Step::wait(WAITS, format!("scaling down from {live} to {wanted} members waits: {why}")))
}

fn refusal(seen: &Seen, live: i32) -> Option<String> {
    if set::being_deleted(seen) {
        return Some("the StatefulSet is being made anew".to_owned());
    }
    if !seen.initialized() && seen.members.is_empty() {
        return None;
    }
    if seen.paused() {
        return Some("it stops a PostgreSQL, which waits for the end of maintenance mode".to_owned());
    }
    if switchover::pending(seen) {
        return Some("a switchover is under way".to_owned());
    }
    let Some(leader) = serving_leader(seen) else {
        return Some("no leader is ready, and nobody knows which member has every commit".to_owned());
    };
    // Against the end, not only the next one: a leader that has to move moves before anything goes.
    if leader.ordinal >= seen.cluster.spec.instances {
        return Some(format!("{} leads and would be removed", leader.name));
    }
    if !set::complete(seen) {
        return Some("another pod is still being made or removed".to_owned());
    }
    // Those that stay must carry the cluster: without them the leader would be alone.
    let last = live - 1;
    seen.members
        .iter()
        .filter(|m| m.ordinal < last && !leads(seen, m))
        .filter(|m| seen.cluster.spec.instances > 1 || m.deleting)
        .find(|m| !m.ready || m.deleting)
        .map(|m| format!("{} is not ready, and removing another would leave too few copies", m.name))
}
