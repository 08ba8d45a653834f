//! Sleep: all pods are stopped at once, and all volumes stay.
//!
//! Why at once, and not the standbys first: as long as the leader serves, a commit that it acknowledges shall be on as
//! many volumes as durability says. Standbys that stop before it would leave commits on the leader's volume alone, for
//! as long as it takes; the other way round, a leader that stops first is what a failover is made of, and a standby would
//! promote only to be stopped. With `replicas: 0` the controller deletes all pods within milliseconds: every agent stops
//! its PostgreSQL, the leader's with a shutdown checkpoint that its standbys mostly still receive, and the lock is
//! released with the position of that checkpoint. A member whose pod is being deleted is no candidate. When the cluster
//! wakes, agents elect whoever has the most WAL by the usual rules (in quorum durability with votes), so an acknowledged
//! commit is there even if a volume was lost meanwhile. All that led or voted last come back first: see `set.rs`.
//!
//! The write is a single one (`replicas`), so an operator that dies has done it or has not.

use super::{Step, leads, rolling, serving_leader, set, switchover};
use crate::member::Member;
use crate::observe::Seen;

/// Row 4. What is broken is repaired while it waits, for that may be what it waits for.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    if !seen.cluster.spec.hibernate {
        return None;
    }
    if let Some(message) = blocked(seen).filter(|_| set::live(seen).is_some_and(|live| live > 0)) {
        let waits = || Some(Step::Wait { reason: "HibernateWaiting", message });
        return switchover::under_way(seen).or_else(|| rolling::repair(seen)).or_else(waits);
    }
    if seen.members.is_empty() {
        return Some(Step::Hibernated);
    }
    let names: Vec<&str> = seen.members.iter().map(|m| m.name.as_str()).collect();
    Some(Step::wait("Hibernating", format!("all pods are being stopped: {}", names.join(", "))))
}

/// Whether the cluster is without pods because it shall be.
pub fn sleeps(seen: &Seen) -> bool {
    seen.cluster.spec.hibernate && seen.members.is_empty()
}

/// What has to end before all pods are stopped; None: nothing, or it has begun.
///
/// A rolling update that is stuck does not hinder: a broken pod that is stopped loses nothing, and all pods are made
/// from the present spec when the cluster wakes.
pub(super) fn blocked(seen: &Seen) -> Option<String> {
    if seen.paused() {
        return Some("hibernation waits for the end of maintenance mode".to_owned());
    }
    if switchover::pending(seen) {
        return Some("hibernation waits for the switchover that is under way".to_owned());
    }
    if let Some(m) = seen.members.iter().find(|m| m.deleting && m.gone_by.is_none_or(|by| by > seen.now)) {
        return Some(format!("hibernation waits until {} is replaced", m.name));
    }
    // Where no PostgreSQL runs, nobody is about to lead.
    let runs = |m: &Member| !seen.fenced(&m.name) && !m.postgres_down && m.report.state.as_deref() == Some("running");
    if seen.initialized() && serving_leader(seen).is_none() && seen.members.iter().any(runs) {
        let who = seen.members.iter().find(|m| leads(seen, m)).map(|m| m.name.as_str());
        return Some(match who {
            Some(leader) => format!("hibernation waits until the leader {leader} is ready, or another leads"),
            None => "hibernation waits until a member leads".to_owned(),
        });
    }
    if !seen.initialized() && !seen.members.is_empty() {
        return Some("hibernation waits until the cluster is initialized".to_owned());
    }
    None
}
