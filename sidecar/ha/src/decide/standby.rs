//! Rules of the member that leads a standby cluster: it has the lock, follows a remote cluster, and is never writable. Only an edit of
//! the configuration that removes `standby_cluster` makes it a primary.

use super::bootstrap::failed;
use super::handover::switchover;
use super::server::{leaders_dir, shutdown_position, wrong_system};
use super::{Action, Job, Rule, Verdict, act, hold, run};
use crate::effect::Upstream;
use crate::event::{DataDir, ServerStatus};
use crate::mutants::{self, Mutant};
use crate::snapshot::{Repair, Snapshot};
use crate::store::record::Initialize;

/// A standby leader that has not streamed for so long is compared with the remote cluster, milliseconds.
const STUCK_MS: u64 = 12_000;
/// And again after this, milliseconds.
const COMPARE_AGAIN_MS: u64 = 30_000;

pub(super) fn decide(s: &Snapshot) -> Verdict {
    match (s.server.running, &s.server.status) {
        (false, _) => stopped(s),
        // Also one whose promotion was on its way when the configuration changed.
        (true, status)
            if (s.server.latched || status.as_ref().is_some_and(|st| !st.in_recovery))
                && !mutants::on(Mutant::StandbyKeepsPrimary) =>
        {
            act(
                Rule::StandbyDemote,
                "cannot be a real primary in standby cluster",
                vec![Action::Run(Job::Stop { immediate: false })],
            )
        }
        (true, None) => match wanted(s) {
            wanted if s.server.upstream.as_ref().is_some_and(|upstream| *upstream != wanted) => follow(wanted),
            _ => act(Rule::Starting, "PostgreSQL does not answer yet", vec![Action::Query]),
        },
        (true, Some(status)) => running(s, status),
    }
}

/// The remote server; none: only its archive is followed.
fn wanted(s: &Snapshot) -> Option<Upstream> {
    s.remote().filter(|remote| !remote.host.is_empty() && !s.tags.nostream)
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
    if s.bootstrapping() && matches!(dir, DataDir::Empty | DataDir::Broken(_)) {
        let why = "the copy of the remote cluster is gone";
        return act(Rule::BootstrapFailed, failed(why), vec![Action::CancelBootstrap]);
    }
    if s.config.pause {
        return hold(Rule::PausedHold, "paused: PostgreSQL is not running and stays so");
    }
    // All that this cluster may have is the remote one's: what is beyond it was given up when it became a standby cluster.
    let useless = matches!(dir, DataDir::Empty | DataDir::Broken(_)) && !s.failover_possible(None);
    if let Some(remote) = wanted(s).filter(|_| useless || s.server.repair == Repair::Copy) {
        let job = Job::BaseBackup { leader: remote.clone(), from: remote };
        return run(s, Rule::StandbyCopy, "a new copy of the remote cluster", job);
    }
    let control = match leaders_dir(dir) {
        Ok(control) => control,
        Err(verdict) => return verdict,
    };
    let compared = control.standby_signal && s.server.repair != Repair::Rewind;
    match wanted(s) {
        Some(remote) if !compared && s.server.repair != Repair::Rewound => {
            run(s, Rule::StandbyRewind, "comparing with the remote cluster, as a former primary", Job::Rewind(remote))
        }
        wanted => run(
            s,
            Rule::StandbyStart,
            "starting as a standby leader because i had the session lock",
            Job::StartStandby(wanted),
        ),
    }
}

fn follow(wanted: Option<Upstream>) -> Verdict {
    let whom = wanted.as_ref().map_or("the archive", |remote| remote.host.as_str());
    act(Rule::StandbyFollow, format!("following {whom}"), vec![Action::Follow(wanted), Action::Query])
}

fn running(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if !matches!(s.initialize, Initialize::Done(_)) {
        let id = Action::WriteInitialize(status.system_id.clone());
        return act(Rule::LeaderPostBootstrap, "the standby cluster is complete", vec![id]);
    }
    let wanted = wanted(s);
    if s.server.upstream.as_ref() != Some(&wanted) {
        return follow(wanted);
    }
    if let Some(verdict) = s.failover.as_ref().and_then(|failover| switchover(s, status, failover)) {
        return verdict;
    }
    if let Some(verdict) = wanted.as_ref().and_then(|remote| stuck(s, status, remote)) {
        return verdict;
    }
    let state = if status.streaming || wanted.is_none() { "" } else { " (the remote cluster sends nothing)" };
    hold(Rule::StandbyLead, format!("no action. I am ({}), the standby leader with the lock{state}", s.name))
}

/// Nothing comes from the remote cluster. It may be away: then we wait, and go on serving reads. Or it has had a failover without the end
/// of our log, or we led a cluster of our own: then nothing will ever come.
fn stuck(s: &Snapshot, status: &ServerStatus, remote: &Upstream) -> Option<Verdict> {
    let since = s.server.streamless_since.filter(|_| !status.streaming && !s.config.pause)?;
    if s.server.repair == Repair::Rewind {
        let why = s.server.last_error.as_deref().unwrap_or("the logs have parted");
        return Some(act(
            Rule::StandbyStuck,
            format!("{why}: PostgreSQL is stopped, to be rewound or copied"),
            vec![Action::Run(Job::Stop { immediate: false })],
        ));
    }
    if mutants::on(Mutant::StandbyPartedStays) {
        return None;
    }
    let again = s.server.compared.is_none_or(|at| s.now.ms_since(at) >= COMPARE_AGAIN_MS);
    (s.now.ms_since(since) >= STUCK_MS && again).then(|| {
        let reason = format!("no WAL from {}: comparing our log with its", remote.host);
        act(Rule::StandbyStuck, reason, vec![Action::Run(Job::Compare(remote.clone()))])
    })
}
