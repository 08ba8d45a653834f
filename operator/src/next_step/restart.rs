//! Settings that need a restart of PostgreSQL: its agent restarts it in the running pod, one member at a time.
//!
//! Of [`AS_MUCH`] a standby must have at least what its primary has, or it stops replaying. So a raised one goes to the
//! standbys first; then another leads, and the former leader, by now a standby, is restarted. A lowered one is the other
//! way round: the primary is restarted in place, writes the lower value into the log, and then standbys may follow. No
//! switchover helps there, for whoever takes over runs with the higher value. The agents keep to this as well, whatever
//! is restarted when: a standby starts with no less than `pg_control` names, a primary with no more than its standbys
//! have. So an order that is wrong because what members say is a moment old costs a restart and nothing else.
//!
//! What is lost if it ends between two steps: nothing that was acknowledged. A standby that is restarted confirms nothing
//! for a second or two; the others do, or the commit waits, and none is restarted before all are ready. A leader that is
//! restarted holds its lock: with the shutdown's checkpoint in its log it is the same primary on the same timeline, and if
//! it does not come back in `primary_start_timeout`, the agents elect whoever has every acknowledged commit. An operator
//! that dies before the agent was asked asks again. One that dies after it finds nothing pending, or asks an agent that
//! refuses, since the request holds only for a member that waits for a restart and has the role that it had. Only if the
//! restart has not helped is it done once more.
//!
//! Each member is restarted at most once for each [`Turn`] of a change, so a setting that no restart brings into force
//! (somebody's `ALTER SYSTEM` is in the way) restarts nobody again and again. What the spec never set is not touched:
//! whoever changed it elsewhere chooses the moment.

use jiff::Timestamp;

use super::rolling::{hindered, in_order};
use super::set::expected;
use super::{Step, leads, serving_leader, switchover};
use crate::config;
use crate::member::{AgentReport, Member};
use crate::observe::Seen;

/// PostgreSQL's settings of which a standby must have at least what its primary has.
const AS_MUCH: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];
/// For so many seconds after a change agents read it, and say what waits for a restart.
const READ: i64 = 5;
/// For so many seconds after a restart a member may not say yet that it is away.
const SETTLES: i64 = 5;
/// A member that was restarted is waited for no longer than this, if its pod is ready.
const RETURNS: i64 = 60;

/// When in the order of a change a member is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A standby, before its primary.
    Standby,
    /// The primary, in place.
    Primary,
    /// A standby, after its primary runs with less.
    AfterPrimary,
}

impl Turn {
    /// As the pod's annotation has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Primary => "primary",
            Self::AfterPrimary => "after-primary",
        }
    }
}

/// The settings that a member waits for and that the spec has changed; None: none. An agent may not say which.
fn waits_for(seen: &Seen, m: &Member) -> Option<Vec<(String, bool)>> {
    if m.report.pending_restart != Some(true) {
        return None;
    }
    let ours = config::changed_names(seen);
    let all = &m.report.pending;
    let names: Vec<(String, bool)> = all
        .iter()
        .filter(|(name, _)| ours.as_ref().is_none_or(|ours| ours.contains(*name)))
        .map(|(name, _)| (name.clone(), lowered(&m.report, name)))
        .collect();
    (all.is_empty() || !names.is_empty()).then_some(names)
}

/// Whether it is to have less, and its standbys may only follow.
fn lowered(report: &AgentReport, name: &str) -> bool {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let values = report.pending.get(name).and_then(|[old, new]| Some((number(old)?, number(new)?)));
    AS_MUCH.contains(&name) && values.is_some_and(|(old, new)| new < old)
}

/// Whether the member's PostgreSQL is to be restarted now, as far as the order of the change says.
pub(super) fn due(seen: &Seen, m: &Member) -> Option<Turn> {
    let change = config::change_id(seen)?;
    let waits = waits_for(seen, m)?;
    let less = waits.iter().any(|(_, lowered)| *lowered);
    let turn = if leads(seen, m) {
        if less || seen.members.len() == 1 { Turn::Primary } else { Turn::Standby }
    } else if waits.is_empty() || waits.iter().any(|(_, lowered)| !lowered) {
        Turn::Standby
    } else {
        let leader = serving_leader(seen)?;
        let has_more = waits.iter().any(|(name, _)| lowered(&leader.report, name));
        if has_more {
            return None;
        }
        Turn::AfterPrimary
    };
    let done = m.restarted.as_ref().is_some_and(|r| r.change == change && r.turns.iter().any(|t| t == turn.word()));
    (!done).then_some(turn)
}

/// Row 15: one that was restarted is back before anything else is stopped.
pub(super) fn settles(seen: &Seen) -> Option<Step> {
    let away = |m: &Member| {
        let running = m.report.state.as_deref() == Some("running");
        !running || !(leads(seen, m) || m.report.replication_state.is_some())
    };
    let m = expected(seen).find(|m| {
        let age = m.restarted.as_ref().map(|r| since(seen, r.at));
        age.is_some_and(|age| age < SETTLES || (age < RETURNS && away(m)))
    })?;
    Some(Step::wait("Restart", format!("waiting until {} is back after the restart of its PostgreSQL", m.name)))
}

fn since(seen: &Seen, at: Timestamp) -> i64 {
    seen.now.as_second() - at.as_second()
}

/// Rows 18 to 20.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    let (m, turn) = in_order(seen).into_iter().find_map(|m| due(seen, m).map(|turn| (m, turn)))?;
    let names: Vec<String> = waits_for(seen, m)?.into_iter().map(|(name, _)| name).collect();
    let what = if names.is_empty() { "a setting".to_owned() } else { names.join(", ") };
    let must = format!("PostgreSQL of {} has to be restarted for {what}", m.name);
    if let Some(wait) = hindered(seen, &must) {
        return Some(wait);
    }
    if config::parameters_changed(seen).is_some_and(|at| since(seen, at) < READ) {
        return Some(Step::wait("Restart", format!("{must}; waiting until every member has read the change")));
    }
    if leads(seen, m) && turn == Turn::Standby {
        return Some(switchover::ask(seen, "Restart", i32::MAX, &must));
    }
    Some(Step::Restart { pod: m.name.clone(), uid: m.uid.clone(), turn, why: format!("for {what}") })
}
