//! Rules of a leader that a person asked to hand over: switchover and failover, now and scheduled.

use super::{Action, Job, Rule, Verdict, act};
use crate::config::SyncMode;
use crate::event::ServerStatus;
use crate::snapshot::Snapshot;
use crate::store::record::{Failover, When};

/// A scheduled switchover that is later than this is not done any more, milliseconds: nobody expects it then. (Patroni: 1.5 ×
/// loop_wait, which is 15 s by its default.)
const STALE_MS: i64 = 15_000;

/// None: nothing to do about it now.
pub(super) fn switchover(s: &Snapshot, status: &ServerStatus, failover: &Failover) -> Option<Verdict> {
    let refuse = |why: String| Some(act(Rule::LeaderRefuse, why.clone(), vec![Action::ClearFailover(Some(why))]));
    let from_us = failover.leader.as_deref().is_none_or(|l| l == s.name);
    match failover.member.as_deref() {
        Some(member) if member == s.name && failover.leader.as_deref() == Some(member) => {
            return refuse("Switchover target and source are the same".to_owned());
        }
        Some(member) if member == s.name => {
            return Some(act(Rule::Lead, "the wanted leader leads", vec![Action::ClearFailover(None)]));
        }
        None if !from_us => {
            return Some(act(Rule::Lead, "the former leader leads no more", vec![Action::ClearFailover(None)]));
        }
        Some(_) if !from_us => return refuse(format!("leader name does not match: the leader is {}", s.name)),
        _ => {}
    }
    match &failover.when {
        When::Now => {}
        When::Unreadable(text) => return refuse(format!("the time of the switchover cannot be read: {text}")),
        When::At(_) if s.config.pause => return None,
        When::At(at) => {
            let late = s.wall.ms_since(*at);
            return match late {
                ..0 => None,
                0..STALE_MS => Some(act(
                    Rule::LeaderScheduled,
                    format!("the switchover scheduled for {at} is due"),
                    vec![Action::FailoverIsDue],
                )),
                _ => refuse(format!("the switchover scheduled for {at} was missed by {} s", late / 1000)),
            };
        }
    }
    if s.config.pause && failover.member.is_none() {
        return refuse("Switchover is possible only to a specific candidate in a paused state".to_owned());
    }
    Some(match candidate(s, status, failover) {
        // Stop, then release, then follow. Died in between: before the stop nothing happened; stopped with the lock held, it is
        // started again as the primary, or expires; the candidate leads only with all of the log, or by the rules of every race.
        Ok(name) => act(
            Rule::LeaderHandOver,
            format!("switchover to {name}: demoting myself"),
            vec![Action::HandOver, Action::Run(Job::Stop { immediate: false })],
        ),
        Err(why) => return refuse(format!("Switchover is not possible: {why}")),
    })
}

/// The same while PostgreSQL starts, when nobody streams: as far as the members' descriptions tell. A fast stop ends a recovery; the
/// next leader is found as after any crash.
pub(super) fn starting(s: &Snapshot) -> Option<Verdict> {
    let failover = s.failover.as_ref().filter(|f| f.when == When::Now)?;
    let from_us = failover.leader.as_deref().is_none_or(|l| l == s.name);
    let candidate = failover.member.as_deref();
    if !from_us || candidate == Some(s.name.as_str()) || (s.config.pause && candidate.is_none()) {
        return None;
    }
    s.failover_possible(candidate).then(|| {
        act(
            Rule::LeaderHandOver,
            "a switchover while PostgreSQL starts: demoting myself",
            vec![Action::HandOver, Action::Run(Job::Stop { immediate: false })],
        )
    })
}

/// Who can take over, or why nobody can.
fn candidate(s: &Snapshot, status: &ServerStatus, failover: &Failover) -> Result<String, String> {
    match &failover.member {
        Some(name) => fit(s, status, name, failover.leader.is_none()).map(|()| name.clone()),
        None => {
            any_candidate(s, status).ok_or_else(|| "no good candidates have been found: no standby streams".to_owned())
        }
    }
}

/// The first that could take over.
pub(super) fn any_candidate(s: &Snapshot, status: &ServerStatus) -> Option<String> {
    status.standbys.iter().map(|st| st.member.clone()).find(|name| fit(s, status, name, false).is_ok())
}

/// A clean shutdown sends everything to every standby that streams, and the candidate leads by its votes or with all of the log: what
/// is asked here is only whether that will come soon.
fn fit(s: &Snapshot, status: &ServerStatus, name: &str, by_hand: bool) -> Result<(), String> {
    let Some(member) = s.member(name) else { return Err(format!("{name} does not exist")) };
    if member.tags.nofailover {
        return Err(format!("{name} is tagged nofailover"));
    }
    if member.deleting {
        return Err(format!("{name} is being deleted"));
    }
    if s.config.fenced.contains(name) {
        return Err(format!("{name} is fenced"));
    }
    let Some(standby) = status.standbys.iter().find(|st| st.member == name && st.state == "streaming") else {
        return Err(format!("{name} does not stream from {}", s.name));
    };
    let listed = s.sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name));
    if s.config.sync_mode == SyncMode::Priority && !by_hand && !listed {
        return Err(format!("{name} is not among the synchronous standbys ({})", s.sync.voters.join(", ")));
    }
    let lag = status.flush.0.saturating_sub(standby.flush.0);
    if lag > s.config.maximum_lag_on_failover {
        return Err(format!("{name} is {lag} bytes behind"));
    }
    Ok(())
}
