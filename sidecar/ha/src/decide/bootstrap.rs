//! Rules of a cluster that was never initialized.

use super::server::unreadable;
use super::{Action, Job, Rule, Verdict, act, hold, run};
use crate::effect::Upstream;
use crate::event::DataDir;
use crate::snapshot::Snapshot;
use crate::store::record::Initialize;

/// A bootstrap whose pod does not exist for so long is taken over, milliseconds.
const GONE_MS: u64 = 30_000;

/// What is shown of a failed bootstrap.
pub(super) fn failed(why: &str) -> String {
    format!("the bootstrap of the cluster failed, what it left is kept beside the data directory: {why}")
}

/// What a failed bootstrap left is kept for people to look at.
pub(super) fn evidence(why: &str) -> Verdict {
    act(Rule::BootstrapFailed, failed(why), vec![Action::Run(Job::MoveAside)])
}

/// None: the cluster is initialized, or has data that has to be raced for.
pub(super) fn decide(s: &Snapshot) -> Option<Verdict> {
    match &s.initialize {
        Initialize::Done(_) => return None,
        Initialize::Absent if s.ever_held() => return None, // a wiped key: the next leader writes it again
        Initialize::Absent | Initialize::Racing { .. } => {}
    }
    let by_us = s.bootstrapping();
    if s.server.running {
        return None;
    }
    let Some(dir) = &s.server.dir else {
        return Some(act(Rule::Inspect, "is there anything in the data directory?", vec![Action::Inspect]));
    };
    if s.config.pause {
        return Some(hold(Rule::PausedHold, "paused: no cluster is made"));
    }
    if let Some(why) = &s.server.bootstrap_failed {
        match (&s.initialize, dir) {
            (_, DataDir::Present(_)) if by_us => return Some(evidence(why)),
            _ if by_us => {
                return Some(act(Rule::BootstrapFailed, failed(why), vec![Action::CancelBootstrap]));
            }
            (Initialize::Absent, _) if s.now < s.server.retry_at => {
                return Some(hold(Rule::BootstrapFailed, failed(why)));
            }
            _ => {}
        }
    }
    match (&s.initialize, dir) {
        (_, DataDir::Unknown(why)) => Some(unreadable(why)),
        (_, DataDir::Broken(why)) => {
            Some(hold(Rule::NoData, format!("the data directory holds something that is no database cluster: {why}")))
        }
        (Initialize::Racing { .. }, DataDir::Empty) if by_us && s.config.standby_cluster.is_some() => {
            let from = s.remote().unwrap_or_else(|| Upstream {
                member: String::new(),
                host: String::new(),
                ip: String::new(),
                port: 0,
                slot: None,
            });
            let job = Job::BaseBackup { leader: from.clone(), from };
            Some(run(s, Rule::StandbyCopy, "trying to bootstrap a new standby leader", job))
        }
        (Initialize::Racing { .. }, DataDir::Empty) if by_us => {
            Some(run(s, Rule::Initdb, "trying to bootstrap a new cluster", Job::Initdb))
        }
        (Initialize::Racing { .. }, DataDir::Present(_)) if by_us => {
            Some(act(Rule::BootstrapAcquire, "initdb is complete", vec![Action::Acquire]))
        }
        (Initialize::Racing { by }, DataDir::Empty) => Some(match (by, s.bootstrapper_missing_since) {
            (Some((pod, _)), Some(since)) if s.now.ms_since(since) >= GONE_MS && !s.ever_held() => {
                act(Rule::TakeOverBootstrap, format!("{pod} does not exist any more"), vec![Action::RaceInitialize])
            }
            (Some((pod, _)), _) => hold(Rule::WaitBootstrap, format!("waiting for {pod} to bootstrap")),
            (None, _) => hold(Rule::WaitBootstrap, "waiting for leader to bootstrap"),
        }),
        (Initialize::Absent, DataDir::Empty) if s.tags.nofailover => {
            Some(hold(Rule::WaitBootstrap, "waiting for leader to bootstrap: I am not allowed to lead"))
        }
        (Initialize::Absent, DataDir::Empty) => {
            Some(act(Rule::RaceInitialize, "nobody has made this cluster yet", vec![Action::RaceInitialize]))
        }
        _ => None,
    }
}
