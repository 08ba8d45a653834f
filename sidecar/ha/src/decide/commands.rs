//! Rules of what a person ordered of this member: restart and reinitialize.

use super::{Action, Job, Rule, Verdict, act, hold};
use crate::lease::Holder;
use crate::snapshot::{CommandKind, Repair, Snapshot, TaskKind};

/// None: nothing was ordered, or the other rules go on with it (a stopped server is started or copied as its situation asks for).
pub(super) fn decide(s: &Snapshot) -> Option<Verdict> {
    let command = s.command.filter(|c| !c.begun)?;
    match command.kind {
        CommandKind::Restart => restart(s),
        CommandKind::Reinitialize { .. } => reinitialize(s),
    }
}

/// Died after the stop: the server is started again by the rules of a stopped member, the primary under its lock.
fn restart(s: &Snapshot) -> Option<Verdict> {
    if s.task.is_some() || !s.server.running || s.handing_over {
        return None;
    }
    let primary = s.server.status.as_ref().is_some_and(|st| !st.in_recovery);
    if primary && s.holder == Holder::Me && !s.config.pause && !s.tenure(RESTART_TENURE_MS) {
        return Some(hold(Rule::Restart, "waiting for a renewal before PostgreSQL is restarted"));
    }
    Some(act(
        Rule::Restart,
        "a restart was asked for",
        vec![Action::BeginCommand, Action::Run(Job::Stop { immediate: false })],
    ))
}

/// So much tenure has to be left, milliseconds: the start needs it.
const RESTART_TENURE_MS: u64 = 3_000;

/// Nothing is removed here: the copy begins when the leader has said that it is the primary. Died before: the member is what it was.
/// Without a leader the order is void, because an election may need what this member has.
fn reinitialize(s: &Snapshot) -> Option<Verdict> {
    if !matches!(&s.holder, Holder::Other { name, .. } if *name != s.name) {
        return None;
    }
    match &s.task {
        Some(task) if task.cancelled || task.kind == TaskKind::Stop => {
            Some(hold(Rule::TaskRunning, format!("{:?} ends before the reinitialization", task.kind)))
        }
        Some(task) => {
            let reason = format!("{:?} is cancelled: a reinitialization was asked for", task.kind);
            Some(act(Rule::Reinitialize, reason, vec![Action::Cancel]))
        }
        None => {
            let mut actions = vec![Action::BeginCommand, Action::Repair(Repair::Copy)];
            if s.server.running {
                actions.push(Action::Run(Job::Stop { immediate: true }));
            }
            Some(act(Rule::Reinitialize, "a reinitialization was asked for: a new copy is made", actions))
        }
    }
}
