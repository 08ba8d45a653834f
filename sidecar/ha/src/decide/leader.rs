//! Rules of the member that has the lock.

use super::server::{shutdown_position, wrong_system};
use super::{Action, Job, Rule, Verdict, act, hold, run};
use crate::event::{DataDir, ServerStatus};
use crate::quorum::takeover;
use crate::snapshot::Snapshot;
use crate::store::record::{Failover, Initialize};

/// A start or promotion is begun only with so much tenure left, milliseconds.
const TENURE_TO_BEGIN_MS: u64 = 1_000;
/// Failed starts after which the lock is released.
const STARTS: u32 = 3;

pub(super) fn decide(s: &Snapshot) -> Verdict {
    if s.deadline.is_some_and(|d| s.now >= d) && s.server.running && primary_or_latched(s) {
        let job = Job::Stop { immediate: true };
        return act(Rule::LeaderFenced, "the lock could not be renewed in time", vec![Action::Run(job)]);
    }
    match (s.server.running, &s.server.status) {
        (false, _) => stopped(s),
        (true, None) if s.now.ms_since(s.server.started) > s.config.primary_start_timeout_ms && s.members.len() > 1 => {
            act(
                Rule::LeaderStartTimeout,
                "PostgreSQL does not come up",
                vec![Action::HandOver, Action::Run(Job::Stop { immediate: true })],
            )
        }
        (true, None) => act(Rule::Starting, "PostgreSQL does not answer yet", vec![Action::Query]),
        (true, Some(status)) if status.in_recovery => promote(s, status),
        (true, Some(status)) => lead(s, status),
    }
}

fn primary_or_latched(s: &Snapshot) -> bool {
    s.server.latched || s.server.status.as_ref().is_some_and(|st| !st.in_recovery)
}

fn stopped(s: &Snapshot) -> Verdict {
    let Some(dir) = &s.server.dir else {
        return act(Rule::Inspect, "PostgreSQL is not running", vec![Action::Inspect]);
    };
    if s.handing_over {
        let at = shutdown_position(dir);
        return act(Rule::LeaderHandOver, "stopped for a switchover: the lock is released", vec![Action::Release(at)]);
    }
    if let Some(verdict) = wrong_system(s) {
        return Verdict { actions: vec![Action::Release(None)], ..verdict };
    }
    let control = match dir {
        DataDir::Present(control) => control,
        DataDir::Unknown(why) => {
            return act(Rule::Inspect, format!("the data directory cannot be read: {why}"), vec![Action::Inspect]);
        }
        DataDir::Empty | DataDir::Broken(_) => {
            return act(
                Rule::LeaderNoData,
                format!("the data directory is unusable: {dir:?}"),
                vec![Action::Release(None)],
            );
        }
    };
    if s.config.pause {
        return hold(Rule::PausedHold, "paused: PostgreSQL is not running and stays so");
    }
    // Before the cluster is complete nobody else has any data: giving up would help nobody.
    let replaceable = s.members.len() > 1 && matches!(s.initialize, Initialize::Done(_));
    if s.server.failures >= STARTS && replaceable {
        let why = s.server.last_error.as_deref().unwrap_or("unknown");
        return act(
            Rule::LeaderGiveUp,
            format!("PostgreSQL could not be started {} times: {why}", s.server.failures),
            vec![Action::Release(None)],
        );
    }
    if let Some(verdict) = promised(s) {
        return verdict;
    }
    if !s.tenure(TENURE_TO_BEGIN_MS) {
        return hold(Rule::LeaderConfirm, "waiting for a renewal before PostgreSQL is started as primary");
    }
    if control.standby_signal {
        return run(s, Rule::LeaderStartStandby, "the data directory is a standby's", Job::StartStandby(None));
    }
    run(s, Rule::LeaderStart, "starting primary after failure", Job::StartPrimary)
}

/// A write of the lock whose answer was lost may land after a promise to another leader: the promise wins.
fn promised(s: &Snapshot) -> Option<Verdict> {
    s.promised_until
        .is_some_and(|until| s.now < until)
        .then(|| hold(Rule::Promised, "the former leader goes on in failsafe mode, as agreed with us"))
}

fn promote(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if s.config.pause {
        return hold(Rule::LeaderPaused, "paused: a standby with the lock is not promoted");
    }
    if let Some(verdict) = promised(s) {
        return verdict;
    }
    if !s.tenure(TENURE_TO_BEGIN_MS) {
        return hold(Rule::LeaderConfirm, "waiting for a renewal before the promotion");
    }
    if s.quorum() && s.sync.leader.as_deref() != Some(s.name.as_str()) && s.sync.leader.is_some() {
        if s.won_on.as_ref() != Some(&s.sync) {
            return act(
                Rule::LeaderSyncMoved,
                "the synchronous state was changed since the race: the lock is released",
                vec![Action::Release(None)],
            );
        }
        let (state, names) = takeover(&s.sync, &s.name);
        if status.sync_names != names.guc() {
            let reason = format!("synchronous_standby_names becomes {} before the promotion", names.guc());
            return act(Rule::LeaderSync, reason, vec![Action::Follow(None)]);
        }
        return act(
            Rule::LeaderSync,
            "the synchronous state is claimed before the promotion",
            vec![Action::WriteSync(state)],
        );
    }
    run(s, Rule::LeaderPromote, "promoted self to leader by acquiring session lock", Job::Promote)
}

fn lead(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if !s.tenure(0) {
        return hold(Rule::LeaderConfirm, "waiting for the renewal of the lock");
    }
    if !matches!(s.initialize, Initialize::Done(_)) {
        if s.server.post_bootstrapped {
            let id = Action::WriteInitialize(status.system_id.clone());
            return act(Rule::LeaderPostBootstrap, "the cluster is complete", vec![id]);
        }
        return run(s, Rule::LeaderPostBootstrap, "roles and database are made", Job::PostBootstrap);
    }
    if let Some(failover) = &s.failover {
        return switchover(s, status, failover);
    }
    if s.config.pause {
        return hold(Rule::LeaderPaused, "paused: the leader with the lock");
    }
    hold(Rule::Lead, format!("no action. I am ({}), the leader with the lock", s.name))
}

fn switchover(s: &Snapshot, status: &ServerStatus, failover: &Failover) -> Verdict {
    let refuse = |why: String| act(Rule::LeaderRefuse, why.clone(), vec![Action::ClearFailover(Some(why))]);
    let from_us = failover.leader.as_deref().is_none_or(|l| l == s.name);
    match failover.member.as_deref() {
        Some(member) if member == s.name && failover.leader.as_deref() == Some(member) => {
            return refuse("Switchover target and source are the same".to_owned());
        }
        Some(member) if member == s.name => {
            return act(Rule::Lead, "the wanted leader leads", vec![Action::ClearFailover(None)]);
        }
        None if !from_us => {
            return act(Rule::Lead, "the former leader leads no more", vec![Action::ClearFailover(None)]);
        }
        Some(_) if !from_us => return refuse(format!("leader name does not match: the leader is {}", s.name)),
        _ => {}
    }
    if failover.scheduled_at.is_some() {
        return refuse("scheduled switchovers are not supported yet: ask again without a time".to_owned());
    }
    let fit = |name: &str| {
        let Some(member) = s.member(name) else { return Err(format!("{name} does not exist")) };
        if member.tags.nofailover {
            return Err(format!("{name} is tagged nofailover"));
        }
        if member.deleting {
            return Err(format!("{name} is being deleted"));
        }
        let Some(standby) = status.standbys.iter().find(|st| st.member == name && st.state == "streaming") else {
            return Err(format!("{name} does not stream from {}", s.name));
        };
        if s.quorum() && !s.sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name)) {
            return Err(format!("{name} is not among the synchronous standbys ({})", s.sync.voters.join(", ")));
        }
        let lag = status.flush.0.saturating_sub(standby.flush.0);
        if lag > s.config.maximum_lag_on_failover {
            return Err(format!("{name} is {lag} bytes behind"));
        }
        Ok(())
    };
    let verdict = match &failover.member {
        Some(name) => fit(name).map(|()| name.clone()),
        None => status
            .standbys
            .iter()
            .map(|st| st.member.clone())
            .find(|name| fit(name).is_ok())
            .ok_or_else(|| "no good candidates have been found: no standby streams".to_owned()),
    };
    match verdict {
        Ok(name) => act(
            Rule::LeaderHandOver,
            format!("switchover to {name}: demoting myself"),
            vec![Action::HandOver, Action::Run(Job::Stop { immediate: false })],
        ),
        Err(why) => refuse(format!("Switchover is not possible: {why}")),
    }
}
