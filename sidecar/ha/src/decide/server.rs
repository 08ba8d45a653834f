//! Rules that come before all others: no supervisor, no PostgreSQL, a task in progress, the pod being stopped.

use super::{Action, Job, Rule, Verdict, act, hold};
use crate::event::{ControlData, DataDir};
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::snapshot::{Repair, Snapshot, TaskKind, TaskView};
use crate::types::{Lsn, Timeline};

/// A standby that does not accept connections after this is left to itself (it may need an upstream to become consistent).
const START_STANDBY_MS: u64 = 3_000;

/// A comparison with a remote cluster that takes longer is given up, milliseconds.
const COMPARE_MS: u64 = 15_000;

/// A stop that takes longer than this is looked at, milliseconds: is only the archiver left?
const EARLY_MS: u64 = 500;

/// A stopped member tries to release its lock for so long, milliseconds.
const RELEASE_MS: u64 = 3_000;

/// Nothing can be decided without a supervisor and a PostgreSQL.
pub fn gate(s: &Snapshot) -> Option<Verdict> {
    if !s.server.attached {
        return Some(hold(Rule::Detached, "the supervisor of the postgres container is not connected"));
    }
    if !s.server.installed && !s.server.running && !s.terminating {
        return Some(hold(
            Rule::NoPostgres,
            "the image has no PostgreSQL (no `postgres` in PATH nor in /usr/lib/postgresql/*/bin): set spec.image to a PostgreSQL image",
        ));
    }
    None
}

/// A task in progress is left alone unless it lost its reason.
pub fn task(s: &Snapshot) -> Option<Verdict> {
    let task = s.task.as_ref().filter(|_| !mutants::on(Mutant::TwoTasks))?;
    if let Some(verdict) = early_release(s, task) {
        return Some(verdict);
    }
    let elsewhere = matches!(s.holder, Holder::Other { .. });
    let obsolete = match task.kind {
        TaskKind::Promote | TaskKind::StartPrimary | TaskKind::PostBootstrap if elsewhere => {
            Some("the lock went elsewhere")
        }
        // In pause the fence is lifted, and a start takes as long as it takes.
        TaskKind::Promote | TaskKind::StartPrimary if s.config.pause => None,
        TaskKind::Promote | TaskKind::StartPrimary if s.deadline.is_some_and(|d| s.now >= d) => {
            Some("our tenure ran out")
        }
        // A new cluster may recover from its backup for hours; nobody else has any data.
        TaskKind::StartPrimary
            if s.now.ms_since(task.since) > s.start_timeout_ms() && !s.bootstrapping() && s.failover_possible(None) =>
        {
            Some("primary_start_timeout has passed")
        }
        TaskKind::StartPrimary if s.holder == Holder::Me && super::handover::starting(s).is_some() => {
            Some("another member is wanted to lead")
        }
        TaskKind::Compare if s.config.standby_cluster.is_none() || s.holder != Holder::Me => {
            Some("no remote cluster is followed from here any more")
        }
        TaskKind::Compare if s.now.ms_since(task.since) > COMPARE_MS => Some("the remote cluster does not answer"),
        TaskKind::StartStandby if s.now.ms_since(task.since) > START_STANDBY_MS => {
            Some("it does not accept connections yet")
        }
        _ => None,
    };
    Some(match obsolete {
        Some(why) if !task.cancelled => {
            act(Rule::TaskCancel, format!("{:?} is cancelled: {why}", task.kind), vec![Action::Cancel])
        }
        _ => hold(Rule::TaskRunning, format!("{:?} in progress", task.kind)),
    })
}

/// A primary that is being stopped for good and has written its shutdown checkpoint cannot become writable any more, whatever of
/// it still runs. Once a standby has that checkpoint, which is the end of the log, it may lead.
///
/// Died after any step: the postmaster is still fenced by the permit that it has (which is neither extended nor taken back), and the
/// released lock says how much a successor must have.
pub(super) fn early_release(s: &Snapshot, task: &TaskView) -> Option<Verdict> {
    let leaves = s.handing_over || s.terminating;
    if task.kind != TaskKind::Stop || !leaves || s.holder != Holder::Me || !s.server.running {
        return None;
    }
    if mutants::on(Mutant::ReleaseBeforeStopped) {
        return Some(act(Rule::LeaderReleaseEarly, "released at once", vec![Action::Release(None)]));
    }
    if s.now.ms_since(task.since) < EARLY_MS {
        return None;
    }
    let wait = |why: &str, action| Some(act(Rule::TaskRunning, why, vec![action]));
    // Looked at after the stop was asked for: the core has forgotten what it saw before.
    let Some((timeline, end)) = s.server.dir.as_ref().and_then(shutdown_position) else {
        return wait("Stop in progress", Action::Inspect);
    };
    let candidate = s.failover.as_ref().filter(|_| s.handing_over).and_then(|f| f.member.as_deref());
    let complete = s.standby_answers.iter().find(|(name, answer)| {
        let wanted = candidate.is_none_or(|c| c == name.as_str());
        wanted && answer.running && !answer.primary && !answer.nofailover && answer.lsn > end
    });
    match complete {
        Some((name, _)) => Some(act(
            Rule::LeaderReleaseEarly,
            format!("{name} has all of the log, up to {end}: the lock is released while PostgreSQL is still stopping"),
            vec![Action::Release(Some((timeline, end)))],
        )),
        None => wait("Stop in progress: the shutdown checkpoint is written", Action::AskStandbys),
    }
}

/// Stop in order, hand the lock over, end.
pub fn terminating(s: &Snapshot) -> Verdict {
    if let Some(task) = &s.task {
        if let Some(verdict) = early_release(s, task) {
            return verdict;
        }
        if task.kind == TaskKind::Stop || task.cancelled {
            return hold(Rule::TaskRunning, format!("{:?} in progress while the pod is being stopped", task.kind));
        }
        return act(Rule::TaskCancel, "the pod is being stopped", vec![Action::Cancel]);
    }
    if s.server.running {
        let job = Job::Stop { immediate: false };
        return act(Rule::TerminatingStop, "the pod is being stopped: PostgreSQL shuts down", vec![Action::Run(job)]);
    }
    // A lock that cannot be released expires. When a cluster is deleted, lock and rights may be gone before the pod is.
    let in_vain = s.releasing_since.is_some_and(|since| s.now.ms_since(since) >= RELEASE_MS);
    if s.holder == Holder::Me && !in_vain {
        return match &s.server.dir {
            None => act(Rule::Inspect, "where did the shutdown checkpoint end?", vec![Action::Inspect]),
            Some(dir) => {
                let at = shutdown_position(dir);
                act(
                    Rule::TerminatingRelease,
                    "PostgreSQL is stopped: the lock is handed over",
                    vec![Action::Release(at)],
                )
            }
        };
    }
    if s.unannounced {
        return hold(Rule::TerminatingWait, "stopped; the pod is deleted: waiting for the kubelet to end it");
    }
    let reason = if in_vain { "stopped; the lock could not be released and will expire" } else { "stopped" };
    act(Rule::TerminatingFinish, reason, vec![Action::Finish])
}

/// Where a cleanly stopped primary ended; none after any other end.
pub(crate) fn shutdown_position(dir: &DataDir) -> Option<(Timeline, Lsn)> {
    match dir {
        DataDir::Present(control) if control.state == "shut down" || mutants::on(Mutant::CrashedIsShutDown) => {
            Some((control.timeline, control.checkpoint))
        }
        _ => None,
    }
}

/// A data directory that could not be looked at.
pub(crate) fn unreadable(why: &str) -> Verdict {
    act(Rule::Inspect, format!("the data directory cannot be read: {why}"), vec![Action::Inspect])
}

/// The data directory of the member with the lock, which is no leader without one.
pub(crate) fn leaders_dir(dir: &DataDir) -> Result<&ControlData, Verdict> {
    match dir {
        DataDir::Present(control) => Ok(control),
        DataDir::Unknown(why) => Err(unreadable(why)),
        DataDir::Empty | DataDir::Broken(_) => {
            let why = format!("the data directory is unusable: {dir:?}");
            Err(act(Rule::LeaderNoData, why, vec![Action::Release(None)]))
        }
    }
}

/// The data directory belongs to another cluster.
pub(crate) fn wrong_system(s: &Snapshot) -> Option<Verdict> {
    use crate::store::record::Initialize;
    let (Initialize::Done(ours), Some(DataDir::Present(control))) = (&s.initialize, &s.server.dir) else { return None };
    (*ours != control.system_id).then(|| {
        hold(
            Rule::WrongSystem,
            format!(
                "system ID mismatch: the data directory belongs to {}, the cluster is {ours}; nothing was touched. If this volume \
                 is not needed, delete its PersistentVolumeClaim and the pod, and a new copy is made",
                control.system_id
            ),
        )
    })
}

/// The data directory of a stopped member without the lock, once it was looked at, may be used and is ours.
pub(crate) fn stopped_dir(s: &Snapshot) -> Result<&DataDir, Verdict> {
    let Some(dir) = &s.server.dir else {
        return Err(act(Rule::Inspect, "PostgreSQL is not running", vec![Action::Inspect]));
    };
    if s.config.pause && !s.server.commanded && !mutants::on(Mutant::PausedActs) {
        return Err(hold(Rule::PausedHold, "paused: PostgreSQL is not running and stays so"));
    }
    // What is here is to be thrown away, wherever it comes from.
    if s.reinitializing() && s.server.repair == Repair::Copy {
        return Ok(dir);
    }
    wrong_system(s).map_or(Ok(dir), Err)
}
