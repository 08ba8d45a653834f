//! The rules: `decide` is pure and total. A snapshot goes in, one verdict comes out, with the id of the rule that gave it.
//!
//! The groups are the situations of an HA loop: [`server`] (nothing to decide on yet, tasks, shutdown), [`commands`], [`leader`], [`handover`], [`follower`],
//! [`unlocked`], [`bootstrap`].

pub mod bootstrap;
pub mod commands;
mod fenced;
pub mod follower;
pub mod handover;
pub mod leader;
pub mod rules;
pub mod server;
pub mod standby;
pub mod unlocked;

use serde::{Deserialize, Serialize};

use crate::effect::Upstream;
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::snapshot::{Repair, Snapshot, TaskKind};
use crate::store::record::SyncState;
use crate::types::{Lsn, Timeline};

pub use rules::Rule;

/// What to do now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which rule spoke.
    pub rule: Rule,
    /// Why, in a sentence that a user can read.
    pub reason: String,
    /// What to do; empty: wait.
    pub actions: Vec<Action>,
}

/// Something to do. Whether it is on its way already is the core's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Look at the data directory.
    Inspect,
    /// Ask the server for its state now.
    Query,
    /// Take the lock by CAS.
    Acquire,
    /// Give the lock up; with the position of the shutdown checkpoint after a clean stop.
    Release(Option<(Timeline, Lsn)>),
    /// Start the long task.
    Run(Job),
    /// Cancel it.
    Cancel,
    /// Ask all other members for their positions.
    OpenRound,
    /// Ask the leader for its state.
    AskLeader,
    /// Ask the standbys that streamed from us for their positions.
    AskStandbys,
    /// Change whom we stream from, by reload.
    Follow(Option<Upstream>),
    /// Claim the bootstrap of the cluster.
    RaceInitialize,
    /// Write the system identifier.
    WriteInitialize(String),
    /// Give the bootstrap up: the `initialize` key goes, and what we wrote into the lock, so that the cluster is as new.
    CancelBootstrap,
    /// Write `/sync` by CAS.
    WriteSync(SyncState),
    /// What is to be done about the data directory once PostgreSQL is stopped.
    Repair(Repair),
    /// Do not stream from this member for a while.
    Shun(String),
    /// What a person ordered has begun.
    BeginCommand,
    /// A switchover was accepted: stop, then release.
    HandOver,
    /// A scheduled switchover is due: it becomes one for now.
    FailoverIsDue,
    /// A wanted switchover is done or cannot be done (then why).
    ClearFailover(Option<String>),
    /// Nothing is left to do in this pod.
    Finish,
}

/// A long task, as far as it is decided here; the core completes it with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// See [`crate::effect::Task`].
    Initdb,
    /// See [`crate::effect::Task`].
    MoveAside,
    /// See [`crate::effect::Task`].
    PostBootstrap,
    /// See [`crate::effect::Task`].
    BaseBackup {
        /// From whom.
        from: Upstream,
        /// The leader.
        leader: Upstream,
    },
    /// See [`crate::effect::Task`].
    CopySlots(Upstream, Vec<String>),
    /// See [`crate::effect::Task`].
    Restore,
    /// See [`crate::effect::Task`].
    Rewind(Upstream),
    /// See [`crate::effect::Task`].
    Compare(Upstream),
    /// See [`crate::effect::Task`].
    StartPrimary,
    /// See [`crate::effect::Task`].
    StartStandby(Option<Upstream>),
    /// See [`crate::effect::Task`].
    Promote,
    /// See [`crate::effect::Task`].
    Stop {
        /// Immediate, or fast.
        immediate: bool,
    },
}

impl Job {
    /// Its kind.
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Initdb => TaskKind::Initdb,
            Self::MoveAside => TaskKind::MoveAside,
            Self::Restore => TaskKind::Restore,
            Self::CopySlots(..) => TaskKind::CopySlots,
            Self::PostBootstrap => TaskKind::PostBootstrap,
            Self::BaseBackup { .. } => TaskKind::BaseBackup,
            Self::Rewind(_) => TaskKind::Rewind,
            Self::Compare(_) => TaskKind::Compare,
            Self::StartPrimary => TaskKind::StartPrimary,
            Self::StartStandby(_) => TaskKind::StartStandby,
            Self::Promote => TaskKind::Promote,
            Self::Stop { .. } => TaskKind::Stop,
        }
    }
}

/// The decision.
pub fn decide(s: &Snapshot) -> Verdict {
    if let Some(verdict) = server::gate(s) {
        return verdict;
    }
    if s.terminating {
        return server::terminating(s);
    }
    if let Some(verdict) = fenced::decide(s) {
        return verdict;
    }
    if let Some(verdict) = commands::decide(s) {
        return verdict;
    }
    if let Some(verdict) = server::task(s) {
        return verdict;
    }
    match &s.holder {
        Holder::Unknown => hold(Rule::StoreUnknown, "the lock was never read from the API server"),
        Holder::Me
            if s.config.standby_cluster.is_some()
                && (s.bootstrapping() || !mutants::on(Mutant::StandbyLeaderPromoted)) =>
        {
            standby::decide(s)
        }
        Holder::Me => leader::decide(s),
        Holder::Other { name, .. } => follower::decide(s, name),
        Holder::Unfenced { name, until } => unlocked::unfenced(s, name, *until),
        Holder::Free { .. } | Holder::Absent { .. } => unlocked::decide(s),
    }
}

pub(crate) fn hold(rule: Rule, reason: impl Into<String>) -> Verdict {
    Verdict { rule, reason: reason.into(), actions: Vec::new() }
}

pub(crate) fn act(rule: Rule, reason: impl Into<String>, actions: Vec<Action>) -> Verdict {
    Verdict { rule, reason: reason.into(), actions }
}

/// A task, unless the last one failed a moment ago.
pub(crate) fn run(s: &Snapshot, rule: Rule, reason: impl Into<String>, job: Job) -> Verdict {
    if s.now < s.server.retry_at {
        let why = s.server.last_error.as_deref().unwrap_or("the last attempt failed");
        return hold(Rule::RetryLater, format!("{}, again soon: {why}", reason.into()));
    }
    act(rule, reason, vec![Action::Run(job)])
}
