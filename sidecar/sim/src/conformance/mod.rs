//! Conformance scripts: small stories of servers, told as data, that end the same way on the models and on the real thing. A
//! model is worth what they say. The tests of the agent run them on PostgreSQL, those of this crate on the model.

pub mod api;
mod commits;
mod promotion;
mod recovery;
mod streaming;

use matriarch_ha::slots::{SlotKind, SlotPlan};
use serde::{Deserialize, Serialize};

/// A server of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// The one that is founded.
    A,
    /// A second.
    B,
    /// A third.
    C,
}

impl Server {
    /// Its name, also as `application_name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }
}

/// What is done. Orders for the long tasks end when these do; all have to succeed, but inside of [`Step::Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A new cluster.
    Initdb(Server),
    /// As a primary.
    StartPrimary(Server),
    /// As a standby of another, or of nobody.
    StartStandby(Server, Option<Server>),
    /// To the next timeline that it does not know.
    Promote(Server),
    /// The same, to this one at least.
    PromoteTo(Server, u32),
    /// `pg_ctl stop -m fast`
    StopFast(Server),
    /// `pg_ctl stop -m immediate`
    StopImmediate(Server),
    /// SIGKILL to the postmaster.
    Kill(Server),
    /// CHECKPOINT
    Checkpoint(Server),
    /// A transaction of this name, acknowledged.
    Commit(Server, String),
    /// The same, without waiting for the acknowledgement.
    Begin(Server, String),
    /// `synchronous_standby_names`, in force.
    SyncNames(Server, String),
    /// `pg_basebackup` from a primary.
    Copy(Server, Server),
    /// The same, given up in the middle.
    CutCopy(Server, Server),
    /// The agent's whole rewind: comparison, and `pg_rewind` where it is needed.
    Rewind(Server, Server),
    /// Another upstream, while it runs.
    Follow(Server, Server),
    /// Physical replication slots: make these, drop those.
    Slots(Server, Vec<String>, Vec<String>),
}

/// The plan of [`Order::Slots`].
pub fn slot_plan(create: &[String], drop: &[String]) -> SlotPlan {
    SlotPlan {
        create: create.iter().map(|name| (name.clone(), SlotKind::Physical)).collect(),
        drop: drop.to_vec(),
        ..SlotPlan::default()
    }
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Answers, in recovery.
    Standby,
    /// Does not run.
    Down,
}

/// What became of a transaction's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It waits.
    Waits,
    /// It has its acknowledgement.
    Acknowledged,
    /// Its connection broke.
    Broken,
}

/// What a rewind did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewound {
    /// Nothing: everything is in the source's history.
    NotRequired,
    /// `pg_rewind` changed the directory.
    Yes,
    /// It may not, or cannot.
    Refused,
}

/// A line of a script. What is expected may take a moment to come true; what must not happen gets a moment to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// An order.
    Do(Order),
    /// An order that fails.
    Refused(Order),
    /// What it is.
    Is(Server, Role),
    /// The timeline that it says.
    Timeline(Server, u32),
    /// The timeline of its control file's last checkpoint.
    ControlTimeline(Server, u32),
    /// Whether it streams from its upstream.
    Streams(Server, bool),
    /// It shows the transaction.
    Has(Server, String),
    /// It does not.
    Lacks(Server, String),
    /// What the client of a transaction that was begun has.
    Answered(String, Answer),
    /// A rewind, and what came of it.
    Rewinds(Server, Server, Rewound),
    /// Its replication slots.
    HasSlots(Server, Vec<String>),
    /// Whether there is a data directory that could be started.
    Startable(Server, bool),
    /// A stopped server has everything that another, stopped as well, had: this one's position lies where that one's last
    /// checkpoint ends, which is beyond its beginning.
    BeyondCheckpoint(Server, Server),
}

/// A story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// As a sentence.
    pub name: String,
    /// Line by line.
    pub steps: Vec<Step>,
}

/// All scripts by subject.
pub fn subjects() -> [(&'static str, Vec<Script>); 4] {
    [
        ("recovery", recovery::scripts()),
        ("streaming", streaming::scripts()),
        ("promotion", promotion::scripts()),
        ("commits", commits::scripts()),
    ]
}

/// A primary `a`, and standbys of it.
fn cluster(standbys: &[Server]) -> Vec<Step> {
    let mut orders = vec![Order::Initdb(Server::A), Order::StartPrimary(Server::A)];
    for standby in standbys {
        orders.push(Order::Copy(*standby, Server::A));
        orders.push(Order::StartStandby(*standby, Some(Server::A)));
    }
    let streams = standbys.iter().map(|standby| Step::Streams(*standby, true));
    orders.into_iter().map(Step::Do).chain(streams).collect()
}

fn script(name: &str, standbys: &[Server], rest: Vec<Step>) -> Script {
    let mut steps = cluster(standbys);
    steps.extend(rest);
    Script { name: name.to_owned(), steps }
}

fn commit(server: Server, name: &str) -> Step {
    Step::Do(Order::Commit(server, name.to_owned()))
}

fn begin(server: Server, name: &str) -> Step {
    Step::Do(Order::Begin(server, name.to_owned()))
}

fn names(server: Server, names: &str) -> Step {
    Step::Do(Order::SyncNames(server, names.to_owned()))
}

fn has(server: Server, name: &str) -> Step {
    Step::Has(server, name.to_owned())
}

fn lacks(server: Server, name: &str) -> Step {
    Step::Lacks(server, name.to_owned())
}

fn answered(name: &str, answer: Answer) -> Step {
    Step::Answered(name.to_owned(), answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::bench::Bench;

    #[test]
    fn conformance_scripts_hold_on_the_model() {
        let mut wrong = Vec::new();
        let mut count = 0;
        for (subject, scripts) in subjects() {
            for script in scripts {
                count += 1;
                // Under different latencies.
                for seed in 0..20 {
                    if let Err(why) = Bench::play(&script, seed) {
                        wrong.push(format!("{subject}: {} (seed {seed}): {why}", script.name));
                        break;
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn conformance_scripts_survive_json() {
        for script in subjects().into_iter().flat_map(|(_, scripts)| scripts) {
            let text = serde_json::to_string(&script).unwrap();
            assert_eq!(serde_json::from_str::<Script>(&text).unwrap(), script);
        }
    }
}
