//! Nodes that are being drained: the leader moves first.
//!
//! While it is there, the primary's PodDisruptionBudget makes the eviction API answer 429, and the drain tries again.
//! Without the right to see nodes there is no such budget, and an evicted leader hands over when it is told to stop.

use super::{Step, leads, switchover};
use crate::observe::Seen;

const REASON: &str = "NodeDrain";

/// Row 9. Not to a member that scaling down removes: that would move the leader back at once.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    let why = reason(seen)?;
    // Where all nodes are closed nothing is won by moving.
    let stay = seen.cluster.spec.instances;
    let elsewhere = switchover::candidates(seen, stay).first().is_some_and(|m| !seen.drained(m));
    match switchover::ask(seen, REASON, stay, &why) {
        step @ Step::Switchover { .. } => elsewhere.then_some(step),
        // Other steps may go on while this one waits: they may be what it waits for.
        _ => None,
    }
}

/// At the end of the table: nothing else is to be done, and the drain still waits.
pub(super) fn waits(seen: &Seen) -> Option<Step> {
    let why = reason(seen)?;
    let stay = seen.cluster.spec.instances;
    let elsewhere = switchover::candidates(seen, stay).first().is_some_and(|m| !seen.drained(m));
    if elsewhere {
        return Some(switchover::ask(seen, REASON, stay, &why));
    }
    let advice = "no ready standby runs on a node that is open: let another node take pods, or uncordon this one";
    Some(Step::wait(REASON, format!("{why}, but {advice}")))
}

fn reason(seen: &Seen) -> Option<String> {
    if seen.members.len() < 2 {
        return None;
    }
    let leader = seen.members.iter().find(|m| leads(seen, m) && seen.drained(m))?;
    let node = leader.node.as_deref().unwrap_or_default();
    Some(format!("{} leads on the node {node}, which is being drained", leader.name))
}
