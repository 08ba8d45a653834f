//! Asking the agents for a switchover, and who is to take over.

use matriarch_crds::cluster::Durability;

use super::{Step, leads, restart, rolling};
use crate::config;
use crate::member::Member;
use crate::observe::Seen;
use crate::plan::locks::{RESULT_ANNOTATION, switchover_asked, switchover_is_ours, switchover_requested};

/// A switchover that failed is asked for again after so many seconds: agents refuse at once, and what they refuse for
/// (a standby that does not stream yet) passes in seconds or needs a person.
const AGAIN_AFTER: i64 = 10;
/// For so many seconds after a member has become ready nobody is asked to hand over: each change of a Service's endpoints
/// makes kube-proxy wait a second before the next (its `minSyncPeriod`), and clients would wait for the new leader's
/// address so much longer.
const QUIET: i64 = 3;
/// After so many seconds a request that no agent answered is taken back, for it would surprise everybody later.
const WITHDRAWN_AFTER: i64 = 180;

/// Somebody's request that is due now is neither done nor refused.
pub(super) fn pending(seen: &Seen) -> bool {
    let failover = seen.names().failover();
    let said = |key: &str| seen.lock_annotation(&failover, key).is_some();
    (said("leader") || said("member")) && !said("scheduled_at")
}

/// A request that waits for its time: it would be overwritten by another.
fn scheduled(seen: &Seen) -> bool {
    seen.lock_annotation(&seen.names().failover(), "scheduled_at").is_some()
}

/// What became of the operator's last request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// The agents have yet to act on it, or nobody has the lock.
    Pending,
    /// Another has taken over since.
    Done,
    /// The same member leads on, and here is why.
    Failed(&'a str),
}

/// None: there was none. Whoever takes over clears the request after it has the lock, and a leader that refuses says why
/// in the same write; all of these objects come by one watch, in the order in which they were written. So a request that
/// is gone while its leader leads on was not fulfilled.
pub(super) fn outcome(seen: &Seen) -> Option<Outcome<'_>> {
    let (from, _) = switchover_requested(seen)?;
    Some(match seen.leader() {
        _ if pending(seen) => Outcome::Pending,
        None => Outcome::Pending,
        Some(leader) if leader != from => Outcome::Done,
        Some(_) => Outcome::Failed(
            seen.lock_annotation(&seen.names().failover(), RESULT_ANNOTATION).unwrap_or("it was taken back"),
        ),
    })
}

/// For how many seconds the operator's last request has been there.
pub(super) fn asked_for(seen: &Seen) -> Option<i64> {
    switchover_asked(seen).map(|at| seen.now.as_second() - at.as_second())
}

/// Row 5. A request of the operator's own that nobody answers is taken back; of others it is only waited for.
pub(super) fn under_way(seen: &Seen) -> Option<Step> {
    if !pending(seen) {
        return super::field::unresolved(seen)
            .then(|| Step::wait("Switchover", "waiting until the new leader has the lock"));
    }
    let unanswered = asked_for(seen).is_some_and(|age| age > WITHDRAWN_AFTER) && switchover_is_ours(seen);
    if unanswered && seen.leader().is_some() {
        return Some(Step::Withdraw {
            why: format!("no agent acted on the switchover within {WITHDRAWN_AFTER} s, so it is taken back"),
        });
    }
    let failover = seen.names().failover();
    let to = seen.lock_annotation(&failover, "member").unwrap_or("any standby");
    Some(Step::wait("Switchover", format!("waiting for the switchover to {to}")))
}

/// Who may take over: below an ordinal, ready, streaming as far as `-sync` says, and not where nodes are being drained
/// if there is a choice; members of the present spec first, then those that have the most.
pub(super) fn candidates(seen: &Seen, below: i32) -> Vec<&Member> {
    let mut all: Vec<&Member> =
        seen.members.iter().filter(|m| m.ordinal < below && unfit(seen, m).is_none() && !leads(seen, m)).collect();
    all.sort_by_key(|m| {
        let old = rolling::outdated(seen, m).is_some() || restart::due(seen, m).is_some();
        (seen.drained(m), old, std::cmp::Reverse(m.report.xlog_location), m.ordinal)
    });
    all
}

/// Why it cannot take over, for people; None if it can.
pub(super) fn unfit(seen: &Seen, m: &Member) -> Option<String> {
    if seen.fenced(&m.name) {
        return Some("it is fenced".to_owned());
    }
    if m.report.nofailover {
        return Some("it is tagged nofailover".to_owned());
    }
    if !m.can_lead() {
        return Some(m.problem().map_or_else(|| "PostgreSQL does not run there".to_owned(), |(_, why)| why));
    }
    let voters = seen.voters().unwrap_or_default();
    (config::durability(seen) == Durability::Quorum && !voters.is_empty() && !voters.contains(&m.name.as_str()))
        .then(|| "it does not confirm commits yet".to_owned())
}

/// A switchover away from the leader that the operator wants by itself.
pub(super) fn ask(seen: &Seen, reason: &'static str, below: i32, why: &str) -> Step {
    let Some(from) = seen.leader() else {
        return Step::wait(reason, format!("{why}; waiting until a member leads"));
    };
    if seen.paused() {
        return Step::wait(reason, format!("{why}, which waits for the end of maintenance mode"));
    }
    if scheduled(seen) {
        return Step::wait(reason, format!("{why}; waiting for the switchover that is scheduled for later"));
    }
    match outcome(seen) {
        Some(Outcome::Pending) => return Step::wait(reason, format!("{why}; waiting for the switchover")),
        Some(Outcome::Failed(said)) if asked_for(seen).is_some_and(|age| age < AGAIN_AFTER) => {
            let message = format!("{why}; the switchover was not done ({said}), and is tried again in a few seconds");
            return Step::wait(reason, message);
        }
        Some(Outcome::Done | Outcome::Failed(_)) | None => {}
    }
    let just_back =
        |m: &Member| m.ready_since.is_some_and(|at| (0..QUIET).contains(&(seen.now.as_second() - at.as_second())));
    if let Some(m) = seen.members.iter().find(|m| m.ready && just_back(m)) {
        let message = format!("{why}; waiting a moment until the Services have taken {} up, which is back", m.name);
        return Step::wait(reason, message);
    }
    match candidates(seen, below).first() {
        Some(to) => {
            Step::Switchover { from: from.to_owned(), to: to.name.clone(), reason, why: why.to_owned(), id: None }
        }
        None => Step::wait(reason, format!("{why}, but no standby is ready to take over: waiting for one")),
    }
}
