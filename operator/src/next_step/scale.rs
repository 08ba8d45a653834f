//! Scaling down: one pod at a time, never the leader, and only when all that stay are ready.

use super::{Step, count, leads, serving_leader, set, switchover};
use crate::observe::Seen;

/// Row 7: the leader leaves the ordinals that go.
pub(super) fn hand_over(seen: &Seen) -> Option<Step> {
    let wanted = seen.cluster.spec.instances;
    let live = set::live(seen).filter(|live| wanted < *live)?;
    let reason = "ScaleDownWaiting";
    let Some(leader) = seen.leader() else {
        return (seen.initialized() && !some_are_broken(seen, live)).then(|| {
            Step::wait(
                reason,
                "scaling down waits until a member leads, for without a leader nobody knows which member has every commit",
            )
        });
    };
    let stays = seen.members.iter().find(|m| m.name == leader).is_some_and(|m| m.ordinal < wanted);
    if stays || serving_leader(seen).is_none() {
        return None;
    }
    Some(switchover::ask(seen, reason, wanted, "the leader would be removed by scaling down"))
}

/// Members that have to be repaired, or waited for, before anybody can lead.
fn some_are_broken(seen: &Seen, live: i32) -> bool {
    count(seen.members.len()) < live || seen.members.iter().any(|m| !m.ready)
}

/// Row 12: why the next pod may not go yet.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    let wanted = seen.cluster.spec.instances;
    let live = set::live(seen).filter(|live| wanted < *live)?;
    let message = match refusal(seen, live) {
        Some(why) => format!("scaling down from {live} to {wanted} members waits: {why}"),
        None => format!("scaling down from {live} to {wanted} members, one at a time"),
    };
    Some(Step::wait(if may_shrink(seen, live) { "ScaleDown" } else { "ScaleDownWaiting" }, message))
}

/// Whether the pod with the highest ordinal may go now.
pub(super) fn may_shrink(seen: &Seen, live: i32) -> bool {
    refusal(seen, live).is_none()
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
