//! The StatefulSet itself: how many replicas it has, and making it anew where Kubernetes lets nobody change it.
//!
//! Making it anew takes two steps: it is deleted with `propagationPolicy: Orphan` (the garbage collector takes the pods'
//! and claims' ownerReferences away, then the set is gone), and created again by the plan's next round, whereupon its
//! controller adopts the pods. Pods are not touched. An operator that dies between the two leaves pods that run and
//! fail over as ever; only one that dies is not made anew until the operator is back. The new set is made for no fewer
//! pods than there are, so that it never begins by removing one: scaling down goes its own way, leader last.

use super::{Step, count, hibernate, leads, next_step, scale};
use crate::kinds::Kind;
use crate::observe::Seen;
use crate::plan::claims;

/// Rows 1 to 3.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    let Some(set) = seen.object(Kind::StatefulSet, &seen.name()) else {
        return if hibernate::sleeps(seen) { None } else { Some(Step::Create) };
    };
    if being_deleted(seen) {
        return Some(Step::wait(
            "StatefulSetRecreate",
            "the StatefulSet is deleted without its pods, and then made anew with the claim template that the spec asks for",
        ));
    }
    claims::template_differs(seen)
        .then(|| Step::RecreateSet { uid: set["metadata"]["uid"].as_str().unwrap_or_default().to_owned() })
}

/// Whether it is on its way out: nothing is applied to it then.
pub fn being_deleted(seen: &Seen) -> bool {
    seen.object(Kind::StatefulSet, &seen.name()).is_some_and(|set| !set["metadata"]["deletionTimestamp"].is_null())
}

/// How many replicas it has now; without one, as many as it takes to keep every pod that exists.
pub(super) fn live(seen: &Seen) -> Option<i32> {
    if let Some(set) = seen.object(Kind::StatefulSet, &seen.name()) {
        return set["spec"]["replicas"].as_i64().and_then(|n| i32::try_from(n).ok());
    }
    seen.members.iter().map(|m| m.ordinal.saturating_add(1)).max()
}

/// How many replicas it shall have: those wanted, or none in hibernation; fewer than now only one by one, and never so
/// few that the leader goes. After a sleep all come back that may have the last commits, also if fewer are wanted by now.
pub fn replicas(seen: &Seen) -> i32 {
    let wanted = seen.cluster.spec.instances;
    let live = live(seen);
    if seen.cluster.spec.hibernate {
        return match live {
            Some(live) if live > 0 && hibernate::blocked(seen).is_some() => live,
            _ => 0,
        };
    }
    match live {
        None | Some(0) => {
            // A cluster that is woken before its pods were told to stop keeps them.
            let stay = seen.members.iter().filter(|m| !m.deleting).map(|m| m.ordinal.saturating_add(1)).max();
            wanted.max(last_leaders(seen)).max(stay.unwrap_or(0))
        }
        Some(live) if wanted < live => {
            // One step at a time: nothing is removed beside another step.
            if scale::shrinks(&next_step(seen)) { live - 1 } else { live }
        }
        Some(_) => wanted,
    }
}

/// How many pods it takes, by ordinals, so that whoever led or confirmed commits last is among them.
fn last_leaders(seen: &Seen) -> i32 {
    if !seen.initialized() {
        return 0;
    }
    let sync = seen.names().sync();
    let last = seen.cluster.status.as_ref().and_then(|s| s.last_primary.as_deref());
    [seen.leader(), last, seen.lock_annotation(&sync, "leader")]
        .into_iter()
        .flatten()
        .chain(seen.voters().unwrap_or_default())
        .filter_map(|name| name.trim().strip_prefix(&format!("{}-", seen.name()))?.parse::<i32>().ok())
        .filter(|ordinal| (0..9).contains(ordinal))
        .map(|ordinal| ordinal + 1)
        .max()
        .unwrap_or(0)
}

/// Whether every replica of the set exists, and none more.
pub(super) fn complete(seen: &Seen) -> bool {
    live(seen).is_none_or(|live| live == count(seen.members.len()) && seen.members.iter().all(|m| m.ordinal < live))
}

/// The members that are expected to serve: not fenced, or leading all the same.
pub(super) fn expected(seen: &Seen) -> impl Iterator<Item = &crate::member::Member> {
    seen.members.iter().filter(|m| !seen.fenced(&m.name) || leads(seen, m))
}
