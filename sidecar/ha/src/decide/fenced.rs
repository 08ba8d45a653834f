//! Rules of a member that a person fenced (`matriarch.fenced` in the dynamic configuration): its PostgreSQL is stopped and stays so,
//! while the agent goes on, answers, and promises what failsafe asks of it.
//!
//! A leader hands over as for a switchover: fast stop with a checkpoint first, so that standbys get everything, then the lock is released
//! with the position of the shutdown checkpoint (early, once a standby has it). Where nobody can take over it is stopped all the same:
//! that is what was asked for. Nobody is promoted that would not be after any other release, and whoever comes back first with the whole
//! log leads. In pause the fence wins, as both are a person's wish and this one names the member: it is stopped, the lock is released, and
//! nobody takes it before the end of pause.
//!
//! Died after any step: the stop has lost nothing; a stopped leader with the lock is found by the next agent, which releases it.

use super::server::{early_release, shutdown_position};
use super::{Action, Job, Rule, Verdict, act, handover, hold};
use crate::lease::Holder;
use crate::snapshot::{Snapshot, TaskKind};

/// What is shown while nothing is left to do.
const STOPPED: &str =
    "this member is fenced: PostgreSQL is stopped and stays so until the name is taken out of matriarch.fenced";

/// None: this member is not fenced, or nothing is known of the cluster yet.
pub(super) fn decide(s: &Snapshot) -> Option<Verdict> {
    if !s.config.fenced.contains(&s.name) || s.holder == Holder::Unknown {
        return None;
    }
    if let Some(task) = &s.task {
        let verdict = early_release(s, task);
        return Some(verdict.unwrap_or_else(|| match task.kind {
            // Short, or better whole than half done; none of them leaves a server that runs.
            TaskKind::Stop | TaskKind::Rewind | TaskKind::Initdb | TaskKind::MoveAside => {
                hold(Rule::TaskRunning, format!("{:?} in progress, of a member that is fenced", task.kind))
            }
            _ if task.cancelled => hold(Rule::TaskRunning, format!("{:?} ends: this member is fenced", task.kind)),
            _ => act(
                Rule::TaskCancel,
                format!("{:?} is cancelled: this member is fenced", task.kind),
                vec![Action::Cancel],
            ),
        }));
    }
    Some(match (s.server.running, s.holder == Holder::Me, &s.server.dir) {
        (true, _, _) => stop(s),
        (false, true, None) => {
            act(Rule::Inspect, "fenced: where did the shutdown checkpoint end?", vec![Action::Inspect])
        }
        (false, true, Some(dir)) => act(
            Rule::FencedRelease,
            "this member is fenced, and PostgreSQL is stopped: the lock is released",
            vec![Action::Release(shutdown_position(dir))],
        ),
        (false, false, _) => hold(Rule::Fenced, STOPPED),
    })
}

fn stop(s: &Snapshot) -> Verdict {
    let status = s.server.status.as_ref();
    let primary = s.server.latched || status.is_some_and(|st| !st.in_recovery);
    if s.holder == Holder::Me && !s.deadline.is_some_and(|d| s.now >= d && primary && !s.config.pause) {
        let candidate = status.and_then(|status| handover::any_candidate(s, status));
        let reason = match candidate {
            Some(name) => format!("this member is fenced: {name} can take over, PostgreSQL is stopped"),
            None => "this member is fenced: PostgreSQL is stopped, although nobody can take over now".to_owned(),
        };
        return act(Rule::FencedHandOver, reason, vec![Action::HandOver, Action::Run(Job::Stop { immediate: false })]);
    }
    // What may write without the lock does not get the time to end in order.
    let immediate = primary && !s.config.pause;
    act(Rule::FencedStop, "this member is fenced: PostgreSQL is stopped", vec![Action::Run(Job::Stop { immediate })])
}
