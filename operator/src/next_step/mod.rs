//! Which pod is touched next, and how: one step at a time, replicas first. Pure.
//!
//! The first row that applies is the step.
//!
//! | # | situation | step | file |
//! |---|---|---|---|
//! | 1 | the StatefulSet is being deleted (its pods stay) | wait for that, then make it anew | `set.rs` |
//! | 2 | no StatefulSet | create it, for no fewer pods than there are | `set.rs` |
//! | 3 | its claim template has another size than the spec | delete it without its pods, so that it is made anew | `set.rs` |
//! | 4 | `hibernate` | let a switchover or replacement end, then stop all pods at once | `hibernate.rs` |
//! | 5 | a switchover is asked for and not done | wait for it | `switchover.rs` |
//! | 6 | `switchover` with an id that was not acted on | validate it and ask for it | `field.rs` |
//! | 7 | fewer instances wanted, and the leader's ordinal would go | switch over to a member that stays | `scale.rs` |
//! | 8 | fewer instances wanted, and all that stay are ready | one pod less | `scale.rs` |
//! | 9 | the leader's node is being drained | switch over to a member on another node | `drain.rs` |
//! | 10 | a standby's volume is lost for good, and enough copies are left | delete its claim and pod: it is copied anew | `lost.rs` |
//! | 11 | a pod that is not ready runs an older agent, or was made with an older spec | upgrade or replace that one first: nothing is lost | `rolling.rs` |
//! | 12 | some pod is missing, stopping or not ready | wait for it | `rolling.rs` |
//! | 13 | fewer instances wanted, and something else hinders | wait for it | `scale.rs` |
//! | 14 | a pod runs an older agent | upgrade it in place: replicas first, the leader last | `rolling.rs` |
//! | 15 | PostgreSQL of a member was restarted and is not back | wait for it | `restart.rs` |
//! | 16 | a replica was made with an older spec | replace it, in a maintenance window | `rolling.rs` |
//! | 17 | the leader was made with an older spec | switch over, then it is a replica; alone, replace it | `rolling.rs` |
//! | 18 | a setting waits for a restart on a replica, and is not to be lower than its leader's | restart PostgreSQL there, in a maintenance window | `restart.rs` |
//! | 19 | a setting waits for a restart on the leader | lowered, or alone: restart PostgreSQL in place; else switch over, then it is a replica | `restart.rs` |
//! | 20 | a setting was lowered, and the leader runs with it | restart PostgreSQL of the replicas | `restart.rs` |
//!
//! In maintenance mode (pause) only agents are upgraded and a switchover by field is done; what would stop PostgreSQL
//! waits. A fenced member counts as absent: it is left alone, and nothing else is stopped meanwhile. Rows 16 to 20 also
//! wait until a member that came back confirms commits again, for at most half a minute.

mod drain;
pub mod field;
pub mod hibernate;
pub mod lost;
pub mod restart;
mod rolling;
mod scale;
pub mod set;
mod switchover;
pub mod wait;
pub mod window;

use crate::member::Member;
use crate::observe::Seen;

pub use restart::Turn;
pub use rolling::AGENT_SETTLES;
pub use set::replicas;

/// The next step, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do.
    Stable,
    /// All pods are stopped, as `spec.hibernate` says.
    Hibernated,
    /// The StatefulSet does not exist yet.
    Create,
    /// The StatefulSet is deleted without its pods, so that it can be made anew with another claim template.
    RecreateSet {
        /// Its uid, as a precondition.
        uid: String,
    },
    /// The pod's agent gets the operator's sidecar image, in place; PostgreSQL runs on.
    UpgradeAgent {
        /// The pod.
        pod: String,
    },
    /// The pod is deleted, so that the StatefulSet makes it anew from the present template.
    ReplacePod {
        /// The pod.
        pod: String,
        /// Its uid, as a precondition.
        uid: String,
        /// Why, for people.
        why: String,
    },
    /// The agent restarts PostgreSQL in the running pod, for a setting.
    Restart {
        /// The pod.
        pod: String,
        /// Its uid, as a precondition.
        uid: String,
        /// When in the order of the change.
        turn: Turn,
        /// Why, for people.
        why: String,
    },
    /// Claims and pod of a standby are deleted, so that it is copied anew onto new volumes.
    ReplaceVolume {
        /// The pod.
        pod: String,
        /// Its uid, as a precondition.
        uid: String,
        /// Name and uid of each claim that is deleted; none if they are gone already.
        claims: Vec<(String, String)>,
        /// Why, for people.
        why: String,
    },
    /// A switchover is asked for.
    Switchover {
        /// The leader.
        from: String,
        /// The candidate.
        to: String,
        /// Reason of the condition `Progressing`.
        reason: &'static str,
        /// Why, for people.
        why: String,
        /// `spec.switchover.id`, if it is that one.
        id: Option<String>,
    },
    /// A switchover that nobody acted on is taken back.
    Withdraw {
        /// Why, for people.
        why: String,
    },
    /// Something has to happen first.
    Wait {
        /// Reason of the condition `Progressing`.
        reason: &'static str,
        /// For what, for people.
        message: String,
    },
}

impl Step {
    fn wait(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Wait { reason, message: message.into() }
    }
}

/// Decides.
pub fn next_step(seen: &Seen) -> Step {
    set::step(seen)
        .or_else(|| hibernate::step(seen))
        .or_else(|| switchover::under_way(seen))
        .or_else(|| field::step(seen))
        .or_else(|| scale::hand_over(seen))
        .or_else(|| scale::shrink(seen))
        .or_else(|| drain::step(seen))
        .or_else(|| lost::step(seen))
        .or_else(|| rolling::repair(seen))
        .or_else(|| rolling::wait_for_members(seen))
        .or_else(|| scale::waits(seen))
        .or_else(|| rolling::agents(seen))
        .or_else(|| restart::settles(seen))
        .or_else(|| rolling::replace(seen))
        .or_else(|| restart::step(seen))
        .or_else(|| drain::waits(seen))
        .unwrap_or(Step::Stable)
}

/// Whether this is the holder of the lock.
fn leads(seen: &Seen, m: &Member) -> bool {
    seen.leader() == Some(m.name.as_str())
}

/// The leader, if it serves: its pod is ready and stays.
fn serving_leader(seen: &Seen) -> Option<&Member> {
    seen.members.iter().find(|m| leads(seen, m) && m.ready && !m.deleting)
}

/// A number of members, as Kubernetes counts replicas.
pub(crate) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
