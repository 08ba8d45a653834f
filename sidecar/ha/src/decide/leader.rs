//! Rules of the member that has the lock.

use super::bootstrap::{evidence, failed};
use super::handover::{starting, switchover};
use super::server::{leaders_dir, shutdown_position, wrong_system};
use super::{Action, Job, Rule, Verdict, act, hold, run};
use crate::config::SyncMode;
use crate::event::{DataDir, ServerStatus};
use crate::mutants::{self, Mutant};
use crate::quorum::{SyncNames, claim};
use crate::snapshot::{Snapshot, position};
use crate::store::record::{Initialize, SyncState};

/// A start or promotion is begun only with so much tenure left, milliseconds.
const TENURE_TO_BEGIN_MS: u64 = 1_000;
/// Failed starts after which the lock is released.
const STARTS: u32 = 3;

pub(super) fn decide(s: &Snapshot) -> Verdict {
    if s.deadline.is_some_and(|d| s.now >= d) && s.server.running && primary_or_latched(s) && !s.config.pause {
        let job = Job::Stop { immediate: true };
        return act(Rule::LeaderFenced, "the lock could not be renewed in time", vec![Action::Run(job)]);
    }
    match (s.server.running, &s.server.status) {
        (false, _) => stopped(s),
        // A new cluster may recover from its backup for hours; nobody else has any data.
        (true, None) if s.bootstrapping() => act(Rule::Starting, "PostgreSQL does not answer yet", vec![Action::Query]),
        (true, None)
            if s.now.ms_since(s.server.started) > s.start_timeout_ms()
                && s.failover_possible(None)
                && !s.config.pause =>
        {
            act(
                Rule::LeaderStartTimeout,
                "stopped PostgreSQL because of startup timeout",
                vec![Action::HandOver, Action::Run(Job::Stop { immediate: true })],
            )
        }
        (true, None) if s.now.ms_since(s.server.started) > s.start_timeout_ms() => act(
            Rule::Starting,
            "primary start has timed out, but continuing to wait because failover is not possible",
            vec![Action::Query],
        ),
        (true, None) => {
            starting(s).unwrap_or_else(|| act(Rule::Starting, "PostgreSQL does not answer yet", vec![Action::Query]))
        }
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
    if let Some(why) = s.server.bootstrap_failed.as_ref().filter(|_| s.bootstrapping()) {
        return match dir {
            DataDir::Present(_) if s.config.pause => hold(Rule::PausedHold, format!("paused: {}", failed(why))),
            DataDir::Present(_) => evidence(why),
            _ => act(Rule::BootstrapFailed, failed(why), vec![Action::CancelBootstrap]),
        };
    }
    if s.handing_over {
        let at = shutdown_position(dir);
        return act(Rule::LeaderHandOver, "stopped for a switchover: the lock is released", vec![Action::Release(at)]);
    }
    // No process of it is left, and none is started before the lock is ours anew: others may lead if a person says so.
    if s.config.pause && !s.server.commanded && !mutants::on(Mutant::PausedActs) {
        return match s.initialize {
            Initialize::Done(_) => act(
                Rule::LeaderPausedRelease,
                "removed leader lock because postgres is not running",
                vec![Action::Release(shutdown_position(dir))],
            ),
            _ => hold(Rule::PausedHold, "paused: PostgreSQL is not running and stays so"),
        };
    }
    if let Some(verdict) = wrong_system(s) {
        return Verdict { actions: vec![Action::Release(None)], ..verdict };
    }
    let control = match leaders_dir(dir) {
        Ok(control) => control,
        Err(verdict) => return verdict,
    };
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
    // It did not end in order, and nobody shall wait for its recovery. What was acknowledged is with those who are asked for votes.
    let crashed = !control.standby_signal && !control.state.starts_with("shut down");
    if crashed && s.config.primary_start_timeout_ms == 0 && replaceable && s.failover_possible(None) {
        return act(Rule::LeaderCrashed, "stopped PostgreSQL to fail over after a crash", vec![Action::Release(None)]);
    }
    if let Some(verdict) = promised(s) {
        return verdict;
    }
    if let Some(verdict) = barred(s) {
        return verdict;
    }
    if !s.tenure(TENURE_TO_BEGIN_MS) {
        return hold(Rule::LeaderConfirm, "waiting for a renewal before PostgreSQL is started as primary");
    }
    if !control.standby_signal && s.sync.leader.is_some() && !s.sync_kept && !claimed(s) {
        if s.sync.leader.as_deref() != Some(s.name.as_str()) {
            let reason = "the synchronous state is another leader's: the lock is released";
            return act(Rule::LeaderSyncMoved, reason, vec![Action::Release(None)]);
        }
        return act(
            Rule::LeaderSync,
            "the synchronous state is claimed before the start",
            vec![Action::WriteSync(claim(&s.sync, &s.name, s.config.sync_mode, s.config.sync_strict).0)],
        );
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

/// Somebody else may lead instead. Of a cluster in the making nobody else has anything.
fn barred(s: &Snapshot) -> Option<Verdict> {
    let why = s.barred()?;
    let reason = format!("not promoting: {why}");
    Some(if s.bootstrapping() { hold(Rule::LeaderBarred, reason) } else { give_up(s, Rule::LeaderBarred, reason) })
}

/// The lock is released, once a promotion that was begun is over: it may still come to something.
fn give_up(s: &Snapshot, rule: Rule, reason: String) -> Verdict {
    let begun = s.server.running && s.server.latched;
    let action = if begun { Action::Run(Job::Stop { immediate: true }) } else { Action::Release(None) };
    act(rule, reason, vec![action])
}

fn promote(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if s.bootstrapping() {
        return hold(
            Rule::BootstrapRecovery,
            format!("waiting for the end of recovery after the bootstrap, which is at {}", position(status)),
        );
    }
    if s.config.pause && !s.candidate() && !s.server.commanded {
        // A standby cannot become writable but by us or by a person: the lock would keep others from leading for nothing.
        return if s.server.latched {
            hold(Rule::LeaderPaused, "paused: a standby with the lock is not promoted")
        } else {
            act(
                Rule::LeaderPausedRelease,
                "removed leader lock because postgres is not running as primary",
                vec![Action::Release(None)],
            )
        };
    }
    if let Some(verdict) = promised(s) {
        return verdict;
    }
    if let Some(verdict) = barred(s) {
        return verdict;
    }
    if !s.tenure(TENURE_TO_BEGIN_MS) {
        return hold(Rule::LeaderConfirm, "waiting for a renewal before the promotion");
    }
    // What was reserved with the lock may be a timeline of the cluster that this one has followed since.
    let blind = mutants::on(Mutant::TimelineNotReserved)
        || mutants::on(Mutant::ClusterTimelineNotReserved)
        || mutants::on(Mutant::StandbyLeaderPromoted);
    if !s.timeline_reserved && !s.server.latched && !blind {
        return hold(Rule::LeaderConfirm, "waiting for a timeline of its own before the promotion");
    }
    // Ours, another's or nobody's: a write of a former life may still land, and what we see of it may be old.
    if !claimed(s) && !mutants::on(Mutant::SyncNotClaimed) {
        let moved = s.won_on.as_ref().map_or(s.sync.leader.is_some(), |won| *won != s.sync);
        if moved && !mutants::on(Mutant::SyncMovedIgnored) {
            let reason = "the synchronous state was changed since the race: the lock is released".to_owned();
            return give_up(s, Rule::LeaderSyncMoved, reason);
        }
        let (state, names) = promotion(s);
        if status.sync_names != names.guc() && !mutants::on(Mutant::NamesAfterPromotion) {
            let reason = format!("synchronous_standby_names becomes {} before the promotion", names.guc());
            return act(Rule::LeaderSync, reason, vec![Action::Follow(None)]);
        }
        if names.n > 0 && !s.sync_loaded {
            let reason = "synchronous_standby_names is not in force in all of PostgreSQL's processes yet";
            // An agent that was started anew knows of no change that succeeded.
            let unknown = s.server.upstream.is_none().then_some(Action::Follow(None));
            return act(Rule::LeaderSync, reason, unknown.into_iter().collect());
        }
        return act(
            Rule::LeaderSync,
            "the synchronous state is claimed before the promotion",
            vec![Action::WriteSync(state)],
        );
    }
    run(s, Rule::LeaderPromote, "promoted self to leader by acquiring session lock", Job::Promote)
}

/// `/sync` says what we wrote since we have the lock, and nothing else can land there.
fn claimed(s: &Snapshot) -> bool {
    (s.sync_settled || mutants::on(Mutant::OwnSyncNotClaimed))
        && s.sync.leader.as_deref().is_none_or(|leader| leader == s.name)
}

/// What is written before a promotion, and the setting with which it begins. Where no commit rests on votes nobody is named:
/// should the promotion fail, others may lead. The write alone makes sure that what we saw was not old.
fn promotion(s: &Snapshot) -> (SyncState, SyncNames) {
    let (mode, strict) = (s.config.sync_mode, s.config.sync_strict);
    match (&s.sync.leader, mode) {
        (None, SyncMode::Off) => (SyncState::default(), SyncNames::default()),
        (None, _) => (SyncState::default(), claim(&s.sync, &s.name, mode, strict).1),
        (Some(_), _) => claim(&s.sync, &s.name, mode, strict),
    }
}

fn lead(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if !s.tenure(0) && s.config.pause {
        return hold(Rule::LeaderPaused, "continue to run as primary after failing to update leader lock in DCS");
    }
    if !s.tenure(0) {
        return hold(Rule::LeaderConfirm, "waiting for the renewal of the lock");
    }
    if s.config.pause && !matches!(s.initialize, Initialize::Done(_)) {
        return hold(Rule::LeaderPaused, "paused: the cluster is not completed");
    }
    if !matches!(s.initialize, Initialize::Done(_)) {
        if let Some(why) = s.server.bootstrap_failed.as_ref().filter(|_| s.bootstrapping()) {
            return act(Rule::BootstrapFailed, failed(why), vec![Action::Run(Job::Stop { immediate: true })]);
        }
        // An absent key was wiped: this cluster was made long ago, and no script of a bootstrap runs in it again.
        if s.server.post_bootstrapped || s.initialize == Initialize::Absent {
            let id = Action::WriteInitialize(status.system_id.clone());
            return act(Rule::LeaderPostBootstrap, "the cluster is complete", vec![id]);
        }
        return run(s, Rule::LeaderPostBootstrap, "roles and database are made", Job::PostBootstrap);
    }
    if let Some(verdict) = s.failover.as_ref().and_then(|failover| switchover(s, status, failover)) {
        return verdict;
    }
    if s.config.pause {
        return hold(Rule::LeaderPaused, "paused: the leader with the lock");
    }
    hold(Rule::Lead, format!("no action. I am ({}), the leader with the lock", s.name))
}
