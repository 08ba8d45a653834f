//! The world of one run: members with the production core, fence and quorum planner, and models of everything around them,
//! driven by one queue of events in virtual time.

mod agent;
#[cfg(test)]
pub(crate) mod bench;
mod clients;
mod deletion;
mod event;
mod faults;
mod heal;
mod losses;
mod network;
mod node;
mod orders;
mod peers;
mod postgres;
mod replication;
mod rewind;
mod server;
mod setting;
mod source;
mod store;
mod supervisor;
mod tasks;

use std::collections::BTreeMap;
use std::rc::Rc;

use matriarch_ha::event::{Kind, Object};

use crate::check::{Checker, Violation};
use crate::draw::{Draws, For, mix};
use crate::model::api::Api;
use crate::model::disk::Disk;
use crate::model::wal::Wal;
use crate::plan::{Durability, PROBES, Plan, Probe};
use crate::queue::{Queue, Time};
use crate::trace::Trace;
pub(crate) use event::Ev;
use network::Network;
pub(crate) use node::{Node, Pm};
use peers::Ask;
pub(crate) use setting::counts;
use store::{Call, Stream};

/// Milliseconds in microseconds.
pub(crate) const MS: u64 = 1_000;
/// Seconds in microseconds.
pub(crate) const S: u64 = 1_000_000;
/// Longest bootstrap.
const BOOTSTRAP: Time = 60 * S;

/// What a run was like, whatever came of it.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Acknowledged transactions.
    pub acks: u64,
    /// Transactions of the cluster outside.
    pub source_commits: u64,
    /// Promotions after the first.
    pub failovers: u64,
    /// Calls of a core.
    pub handled: u64,
    /// Events of the world.
    pub events: u64,
    /// How often each rule became the verdict.
    pub rules: BTreeMap<&'static str, u64>,
    /// Longest time without an acknowledgement during the faults, microseconds.
    pub outage: u64,
    /// Acknowledged transactions lost in `async`.
    pub async_lost: u64,
    /// Virtual time, microseconds.
    pub time: u64,
    /// The hash of everything that happened.
    pub hash: u64,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// None: every promise was kept.
    pub violation: Option<Violation>,
    /// What it was like.
    pub stats: Stats,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Bootstrap,
    Chaos,
    /// Part of the members is whole again, the others are gone.
    CoreHealed,
    Healed,
    /// Nothing is asked of it but to take writes.
    Quiet,
    Done,
}

pub(crate) struct World {
    pub(crate) now: Time,
    queue: Queue<Ev>,
    draws: Draws,
    plan: Rc<Plan>,
    pub(crate) wal: Wal,
    pub(crate) nodes: Vec<Node>,
    /// The present instance of each member.
    pub(crate) current: Vec<usize>,
    pub(crate) api: Api,
    calls: Vec<Call>,
    streams: Vec<Stream>,
    net: Network,
    asks: Vec<Ask>,
    transactions: u64,
    pub(crate) phase: Phase,
    pub(crate) phase_since: Time,
    /// Where a healed part is on its way to.
    heal: heal::Progress,
    pub(crate) faults: faults::Active,
    /// Members that people have fenced, one entry a fence; and whether there ever was one.
    fenced: Vec<usize>,
    fenced_once: bool,
    /// The server outside, and whether the configuration says that this cluster follows it.
    pub(crate) source: Option<usize>,
    pub(crate) following: bool,
    probes: [u32; PROBES],
    pub(crate) check: Checker,
    pub(crate) stats: Stats,
    pub(crate) trace: Option<Trace>,
    hash: u64,
    uids: u64,
}

/// As the configuration says it.
pub(crate) fn mode(durability: Durability) -> serde_json::Value {
    match durability {
        Durability::Async => serde_json::Value::Bool(false),
        Durability::Priority => serde_json::Value::Bool(true),
        Durability::Quorum => "quorum".into(),
    }
}

/// Two or three letters that say what a postmaster does.
pub(crate) fn pm_letters(n: &Node) -> &'static str {
    match (n.up, n.frozen > 0, n.server.pm) {
        (false, ..) => "off",
        (_, true, _) => "ice",
        (.., node::Pm::Down) => "dn ",
        (.., node::Pm::Recovering) => "rec",
        (.., node::Pm::Stopping(_)) => "stp",
        (.., node::Pm::Up) if n.server.primary => "PRI",
        (.., node::Pm::Up) if n.server.receiver.is_some() => "sby",
        (.., node::Pm::Up) => "alo",
    }
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Outcome {
    World::new(plan, None).finish().0
}

/// The same, with the last lines of its trace.
pub fn run_traced(plan: &Plan) -> (Outcome, Vec<String>) {
    let (outcome, trace) = World::new(plan, Some(Trace::new())).finish();
    (outcome, trace.map(Trace::into_lines).unwrap_or_default())
}

impl World {
    fn new(plan: &Plan, trace: Option<Trace>) -> Self {
        let mut world = Self::empty(plan, trace);
        world.found();
        world
    }

    /// Without pods.
    fn empty(plan: &Plan, trace: Option<Trace>) -> Self {
        let plan = Rc::new(plan.clone());
        Self {
            now: 0,
            queue: Queue::new(),
            draws: Draws::new(plan.seed),
            wal: Wal::default(),
            nodes: Vec::new(),
            current: Vec::new(),
            api: Api::new(),
            calls: Vec::new(),
            streams: Vec::new(),
            net: Network::default(),
            asks: Vec::new(),
            transactions: 0,
            phase: Phase::Bootstrap,
            phase_since: 0,
            heal: heal::Progress::default(),
            faults: faults::Active::default(),
            fenced: Vec::new(),
            fenced_once: false,
            source: None,
            following: false,
            probes: [0; PROBES],
            check: Checker::new(&plan.config),
            stats: Stats::default(),
            trace,
            hash: 0xcbf2_9ce4_8422_2325,
            uids: 0,
            plan,
        }
    }

    /// What the operator makes beforehand, and the pods.
    fn found(&mut self) {
        let plan = self.plan.clone();
        for name in self.object_names() {
            let owners = vec![serde_json::json!({"uid": "cluster"})];
            let object = Object { name: name.into(), owners, ..Object::default() };
            let _ = self.api.create(Kind::Lock, object);
        }
        let config = self.document(plan.config.durability).to_string();
        self.api.edit(Kind::Lock, "x-config", |o| {
            o.annotations.insert("config".into(), config);
        });
        if !plan.config.endpoints {
            let _ = self.api.create(Kind::Slice, Object { name: "x-primary".into(), ..Object::default() });
        }
        for member in 0..plan.config.members {
            let node = self.new_pod(member, Disk::empty());
            self.current.push(node);
            let start = self.draws.between(For::Process, node, 0, 500 * MS);
            self.push(start, Ev::AgentStart { node, pod: 0 });
        }
        if plan.config.source {
            self.found_source();
        }
        self.push(S, Ev::Second);
    }

    pub(crate) fn leader_object(&self) -> &'static str {
        if self.plan.config.endpoints { "x" } else { "x-leader" }
    }

    fn object_names(&self) -> [&'static str; 4] {
        [self.leader_object(), "x-config", "x-failover", "x-sync"]
    }

    fn document(&self, durability: Durability) -> serde_json::Value {
        let config = &self.plan.config;
        let mut document = serde_json::json!({
            "ttl": config.ttl, "loop_wait": config.loop_wait, "retry_timeout": config.retry_timeout,
            "failsafe_mode": config.failsafe, "synchronous_node_count": config.sync_count,
            "synchronous_mode": mode(durability), "synchronous_mode_strict": config.strict,
            "maximum_lag_on_failover": 1_048_576,
        });
        if config.source {
            document["standby_cluster"] = Self::names_source();
        }
        for (key, value) in &config.more {
            document[key] = value.clone();
        }
        document
    }

    fn finish(mut self) -> (Outcome, Option<Trace>) {
        while self.phase != Phase::Done && self.check.violation.is_none() {
            let Some((at, event)) = self.queue.pop() else {
                self.check.fail(self.now, "S0", "nothing is left to happen: a timer was lost".to_owned());
                break;
            };
            self.now = self.now.max(at);
            self.dispatch(event);
        }
        self.stats.time = self.now;
        self.stats.hash = self.hash;
        let violation = self.check.violation.take();
        (Outcome { violation, stats: self.stats }, self.trace)
    }

    /// Puts an event so many microseconds ahead.
    pub(crate) fn push(&mut self, after: u64, event: Ev) {
        #[allow(clippy::cast_possible_truncation)] // any 32 bits will do
        let tie = self.draws.next(For::Tie, 0) as u32;
        self.queue.push(self.now.saturating_add(after), tie, event);
    }

    fn dispatch(&mut self, event: Ev) {
        self.stats.events += 1;
        // A frozen pod gets what it was sent when it thaws.
        if let Some(node) = event.node()
            && self.nodes[node].frozen > 0
        {
            self.nodes[node].deferred.push(event);
            return;
        }
        self.hash = mix(self.hash ^ self.now ^ event.code() << 48);
        match event {
            Ev::Core { node, agent, event } => self.core_event(node, agent, *event),
            Ev::Tick { node, agent, timer } => self.core_tick(node, agent, timer),
            Ev::AgentStart { node, pod } => self.agent_start(node, pod),
            Ev::Request(call) => self.request_arrives(call),
            Ev::Answer(call) => self.answer_arrives(call),
            Ev::CallTimeout(call) => self.call_times_out(call),
            Ev::Watch { stream, index } => self.watch_delivers(stream, index),
            Ev::WatchEnd { stream } => self.watch_ends(stream),
            Ev::AskArrives(ask) => self.ask_arrives(ask),
            Ev::AskAnswered { ask, answer } => self.ask_answered(ask, *answer),
            Ev::AskTimeout(ask) => self.ask_times_out(ask),
            Ev::Socket { node, supervisor, message } => self.supervisor_hears(node, supervisor, *message),
            Ev::Fence { node, supervisor, timer } => self.fence_timer(node, supervisor, timer),
            Ev::SupervisorStart { node, pod } => self.supervisor_start(node, pod),
            Ev::Sigterm { node, pod } => self.sigterm(node, pod),
            Ev::Alone { node, supervisor, silent } => self.alone(node, supervisor, silent),
            Ev::Task { node, run } => self.task_step(node, run),
            Ev::Server { node, server, what } => self.server_event(node, server, what),
            Ev::Transaction => self.transaction(),
            Ev::FaultBegins { op, member } => self.fault_begins(op, member),
            Ev::FaultEnds { op, node, member } => self.fault_ends(op, node, member),
            Ev::PodGone { node, pod } => self.pod_gone(node, pod),
            Ev::Second => self.second(),
            Ev::SourceWrites => self.source_writes(),
        }
    }

    /// Once a virtual second: what no transition shows.
    fn second(&mut self) {
        self.push(S, Ev::Second);
        self.every_second();
        self.end_lost_streams();
        let since = self.now - self.phase_since;
        match self.phase {
            Phase::Bootstrap => {
                if self.settled() {
                    self.enter(Phase::Chaos);
                    self.begin_chaos();
                } else if since > BOOTSTRAP {
                    let why = self.unsettled();
                    self.check.fail(self.now, "L1", format!("no cluster after {} s: {why}", BOOTSTRAP / S));
                }
            }
            Phase::Chaos if since >= self.plan.config.chaos_ms * MS => {
                self.check_outage();
                let all = self.plan.config.core.is_empty();
                self.enter(if all { Phase::Healed } else { Phase::CoreHealed });
                self.begin_heal();
            }
            Phase::Chaos | Phase::Done => {}
            Phase::CoreHealed | Phase::Healed => self.heal_second(),
            Phase::Quiet => self.quiet_second(),
        }
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_since = self.now;
        self.line(|_| format!("==== {phase:?}"));
    }

    /// Something happened that a fault may wait for.
    pub(crate) fn probe(&mut self, probe: Probe, node: usize) {
        if self.phase != Phase::Chaos {
            return;
        }
        let count = &mut self.probes[probe as usize];
        *count += 1;
        let nth = *count;
        self.faults_after(probe, nth, self.nodes[node].member);
    }

    /// A line of the trace, made only when there is one.
    pub(crate) fn line(&mut self, text: impl FnOnce(&Self) -> String) {
        if let Some(mut trace) = self.trace.take() {
            let text = text(self);
            trace.line(self.now, &text, self);
            self.trace = Some(trace);
        }
    }
}
