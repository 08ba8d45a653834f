//! The restart of a member's PostgreSQL in its pod, and the note on the pod that says for which change it was done.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Write;
use crate::config;
use crate::next_step::Turn;
use crate::observe::Seen;

/// On pods: for which change of the settings the operator had PostgreSQL restarted (JSON, [`Restarted`]).
pub const RESTARTED_ANNOTATION: &str = "matriarch.dev/restarted";

/// What is noted when the agent has taken the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// Which change: when it was made, as the `-config` object says.
    pub change: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// The turns that it has had in the order of this change.
    pub turns: Vec<String>,
}

/// A restart of PostgreSQL by the agent of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// The role that the member must have, in Patroni's words.
    pub role: String,
    /// The note.
    pub note: Restarted,
    /// Where the agent cannot be reached, the pod is made anew: nobody has to lead in its place meanwhile.
    pub replaceable: bool,
}

/// The write of a step.
pub fn write(seen: &Seen, pod: &str, uid: &str, turn: Turn) -> Option<Write> {
    let member = seen.members.iter().find(|m| m.name == pod)?;
    let change = config::change_id(seen)?.to_owned();
    let before = member.restarted.as_ref().filter(|r| r.change == change);
    let mut turns = before.map(|r| r.turns.clone()).unwrap_or_default();
    turns.push(turn.word().to_owned());
    let role = if turn == Turn::Primary { "primary" } else { "replica" };
    let older = config::parameters_changed(seen).is_some_and(|at| member.created.is_some_and(|c| c <= at));
    Some(Write::Restart(Restart {
        pod: pod.to_owned(),
        uid: uid.to_owned(),
        // That of a standby cluster's leader is a word of its own.
        role: member.report.role.clone().filter(|said| said == "standby_leader").unwrap_or_else(|| role.to_owned()),
        note: Restarted { change, at: seen.now, turns },
        replaceable: older && (turn == Turn::Standby || seen.members.len() == 1),
    }))
}
