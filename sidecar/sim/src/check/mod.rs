//! The promises, one file each, checked at the transitions that can break them. They are written from `docs/safety.md`, not
//! from the rules.

mod l4_reasons;
mod l5_calm;
mod l6_outage;
mod liveness;
mod s11_quiet;
mod s12_standby;
mod s1_one_writer;
mod s2_durability;
mod s3_quorum;
mod s4_wipe;
mod s5_pause;
mod s6_one_history;
mod s7_lock;
mod s8_routing;
mod s9_timelines;

use serde::{Deserialize, Serialize};

use crate::model::wal::BranchId;
use crate::plan::{Config, Durability};
use crate::queue::Time;
pub(crate) use liveness::Expected;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which one: S1a … S12, L1 … L6; S0 for a panic or a lost timer.
    pub invariant: String,
    /// When, in microseconds of virtual time.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

/// What the checks remember.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) violation: Option<Violation>,
    /// What the configuration asks for now.
    pub(crate) durability: Durability,
    /// Quorum was switched off, and is not yet in force again.
    pub(crate) suspended: bool,
    /// When the durability was last changed.
    pub(crate) asked_at: Time,
    /// Pause is or was asked for: the fence was lifted by a person's wish.
    pub(crate) paused: bool,
    pub(crate) paused_since: Option<Time>,
    /// A person asked for another leader: what follows from it is commanded, too.
    pub(crate) commanded_at: Option<Time>,
    /// A clock stood still: an assumption of S1 is broken.
    pub(crate) clock_hell: bool,
    /// A person asked for a failover that may lose data.
    pub(crate) failover_by_hand: bool,
    /// The highest acknowledged position on each branch (index: its id) that must never be lost.
    protected: Vec<u64>,
    /// The same without the promise.
    acknowledged: Vec<u64>,
    /// Branches of promotions that ended after their permit.
    overdue: Vec<BranchId>,
    lock: s7_lock::Lock,
    routing: s8_routing::Routing,
    /// When the last acknowledgement left.
    answered: Time,
    highest_timeline: u32,
    /// Tasks since all is quiet.
    tried_again: u32,
}

impl Checker {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            violation: None,
            durability: config.durability,
            suspended: config.durability == Durability::Async,
            asked_at: 0,
            paused: false,
            paused_since: None,
            commanded_at: None,
            clock_hell: false,
            failover_by_hand: false,
            protected: Vec::new(),
            acknowledged: Vec::new(),
            overdue: Vec::new(),
            lock: s7_lock::Lock::default(),
            routing: s8_routing::Routing::default(),
            answered: 0,
            highest_timeline: 0,
            tried_again: 0,
        }
    }

    /// It was made by a member that might.
    pub(crate) fn rightful(&self, branch: BranchId) -> bool {
        !self.overdue.contains(&branch)
    }

    /// It is the cluster outside that made it: nothing that is promised here rests on it.
    pub(crate) fn not_ours(&mut self, branch: BranchId) {
        self.overdue.push(branch);
    }

    /// The cluster follows another one from now on: what it has written alone is given up, and nothing that it still writes is promised.
    /// Or it is promoted: what is promised is in force soon.
    pub(crate) fn follows(&mut self, follows: bool, now: Time) {
        self.suspended = true;
        self.asked_at = now;
        if follows {
            self.protected.clear();
        }
    }

    /// The first one counts.
    pub(crate) fn fail(&mut self, at: Time, invariant: &str, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant: invariant.to_owned(), at, what });
        }
    }
}
