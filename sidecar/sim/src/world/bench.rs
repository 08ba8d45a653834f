//! A world without agents: servers that obey a conformance script.

use std::collections::BTreeMap;

use matriarch_ha::effect::{Change, ServerConfig, Task, Upstream};
use matriarch_ha::event::{Event, TaskError};
use matriarch_ha::types::{Boot, Timeline};

use super::event::{Message, ServerEv};
use super::node::Pm;
use super::{Ev, MS, S, World};
use crate::conformance::{Answer, Order, Rewound, Role, Script, Server, Step, slot_plan};
use crate::model::disk::{Disk, Health, RECORD};
use crate::model::wal::Pos;
use crate::plan::{Config, Durability, Plan};

/// What is expected comes true within this.
const SOON: u64 = 60 * S;
/// What must not happen would within this.
const SETTLED: u64 = 3 * S;

struct Commit {
    node: usize,
    server: u32,
    pos: Pos,
    answer: Answer,
}

/// Servers, and what their script has done so far.
pub(crate) struct Bench {
    world: World,
    commits: BTreeMap<String, Commit>,
    results: BTreeMap<u64, Result<(), String>>,
    calls: u64,
    /// A directory was seen half rewound.
    broken: bool,
}

impl Bench {
    /// Plays a script; why it fails.
    pub(crate) fn play(script: &Script, seed: u64) -> Result<(), String> {
        let plan = Plan { seed, config: Config::calm(3, Durability::Async), ops: Vec::new() };
        let mut world = World::empty(&plan, None);
        for member in 0..3 {
            let node = world.new_pod(member, Disk::empty());
            world.nodes[node].name = [Server::A, Server::B, Server::C][member].name().to_owned();
            world.supervisor_hears(node, 1, Message::Permit { seq: 1, deadline: Some(Boot(u64::MAX / 2)) });
        }
        let mut bench = Self { world, commits: BTreeMap::new(), results: BTreeMap::new(), calls: 0, broken: false };
        for (index, step) in script.steps.iter().enumerate() {
            bench.step(step).map_err(|why| format!("step {index}, {step:?}: {why}"))?;
        }
        Ok(())
    }

    /// Lets time pass until something holds; false: it never did.
    fn until(&mut self, limit: u64, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.world.now + limit;
        loop {
            if holds(self) {
                return true;
            }
            let Some((at, event)) = self.world.queue.pop() else {
                self.world.now = end;
                return holds(self);
            };
            if at > end {
                self.world.queue.push(at, 0, event);
                self.world.now = end;
                return false;
            }
            self.world.now = self.world.now.max(at);
            match event {
                Ev::Core { event, .. } => self.heard(*event),
                event => self.world.dispatch(event),
            }
            self.look();
        }
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::TaskDone { id, result } => {
                self.results.insert(id, result.map_err(|error: TaskError| format!("{error:?}")));
            }
            Event::Changed { id, result } => {
                self.results.insert(id, result);
            }
            _ => {}
        }
    }

    /// What became of the clients, and of a directory.
    fn look(&mut self) {
        self.broken |= self.world.nodes.iter().any(|n| n.disk.health == Health::Broken);
        for commit in self.commits.values_mut().filter(|c| c.answer == Answer::Waits) {
            let server = &self.world.nodes[commit.node].server;
            let same = server.incarnation == commit.server && matches!(server.pm, Pm::Up);
            if !same {
                commit.answer = Answer::Broken;
            } else if !server.waiting.contains(&commit.pos.lsn) {
                commit.answer = Answer::Acknowledged;
            }
        }
    }

    fn upstream(&self, of: Server) -> Upstream {
        let n = &self.world.nodes[of as usize];
        Upstream { member: n.name.clone(), host: n.name.clone(), ip: n.ip.clone(), port: 5432, slot: None }
    }

    fn config(&self, node: Server, of: Option<Server>) -> ServerConfig {
        let now = &self.world.nodes[node as usize].server;
        ServerConfig {
            upstream: of.map(|of| self.upstream(of)),
            sync_names: now.names_text.clone(),
            ..ServerConfig::default()
        }
    }

    fn call(&mut self, on: Server, message: impl FnOnce(u64) -> Message) -> Result<(), String> {
        self.calls += 1;
        let id = self.calls;
        let supervisor = self.world.nodes[on as usize].supervisor.incarnation;
        self.world.supervisor_hears(on as usize, supervisor, message(id));
        self.until(SOON * 10, |b| b.results.contains_key(&id));
        self.results.remove(&id).unwrap_or_else(|| Err("it never ends".to_owned()))
    }

    fn task(&mut self, on: Server, task: Task) -> Result<(), String> {
        self.call(on, |id| Message::Task { agent: 0, id, task })
    }

    fn change(&mut self, on: Server, change: Change) -> Result<(), String> {
        self.call(on, |id| Message::Change { agent: 0, id, change })
    }

    fn begin(&mut self, on: Server, name: &str) -> Result<(), String> {
        let node = on as usize;
        if !self.world.nodes[node].writable() {
            return Err("it takes no writes".to_owned());
        }
        self.world.commit(node, 4_000);
        let n = &self.world.nodes[node];
        let commit = Commit { node, server: n.server.incarnation, pos: n.disk.written, answer: Answer::Waits };
        self.commits.insert(name.to_owned(), commit);
        Ok(())
    }

    fn order(&mut self, order: &Order) -> Result<(), String> {
        match order {
            Order::Initdb(on) => self.task(*on, Task::Initdb),
            Order::StartPrimary(on) => {
                let config = self.config(*on, None);
                self.task(*on, Task::StartPrimary { config })
            }
            Order::StartStandby(on, of) => {
                let config = self.config(*on, *of);
                self.task(*on, Task::StartStandby { config })
            }
            Order::Promote(on) => self.promote(*on, 0),
            Order::PromoteTo(on, to) => self.promote(*on, *to),
            Order::StopFast(on) => self.stop(*on, false),
            Order::StopImmediate(on) => self.stop(*on, true),
            Order::Kill(on) => {
                let (node, server) = (*on as usize, self.world.nodes[*on as usize].server.incarnation);
                self.world.server_event(node, server, ServerEv::Dead(false));
                self.look();
                Ok(())
            }
            Order::Checkpoint(on) => self.change(*on, Change::Checkpoint),
            Order::Commit(on, name) => {
                self.begin(*on, name)?;
                self.answered(name, Answer::Acknowledged)
            }
            Order::Begin(on, name) => self.begin(*on, name),
            Order::SyncNames(on, names) => {
                let mut config = self.world.nodes[*on as usize].server.config.clone();
                config.sync_names.clone_from(names);
                self.change(*on, Change::Configure(config))?;
                self.until(SOON, |b| b.world.loaded_everywhere(*on as usize));
                Ok(())
            }
            Order::Copy(on, from) => {
                let from = self.upstream(*from);
                self.task(*on, Task::BaseBackup { leader: from.clone(), from })
            }
            Order::CutCopy(on, from) => self.cut_copy(*on, *from),
            Order::Rewind(on, from) => {
                let from = self.upstream(*from);
                self.task(*on, Task::Rewind { from, pg_rewind: true })
            }
            Order::Follow(on, of) => {
                let mut config = self.world.nodes[*on as usize].server.config.clone();
                config.upstream = Some(self.upstream(*of));
                self.change(*on, Change::Configure(config))
            }
            Order::Slots(on, create, drop) => self.change(*on, Change::Slots(slot_plan(create, drop))),
        }
    }

    fn promote(&mut self, on: Server, to: u32) -> Result<(), String> {
        let from = self.world.timeline(on as usize);
        self.task(on, Task::Promote { from: Timeline(from), to: Timeline(to.max(from)) })
    }

    fn stop(&mut self, on: Server, immediate: bool) -> Result<(), String> {
        self.task(on, Task::Stop { immediate, checkpoint: false, timeout_ms: 10_000 })
    }

    fn cut_copy(&mut self, on: Server, from: Server) -> Result<(), String> {
        self.calls += 1;
        let id = self.calls;
        let from = self.upstream(from);
        let task = Task::BaseBackup { leader: from.clone(), from };
        self.world.task(on as usize, 0, id, task);
        self.until(120 * MS, |_| false);
        self.world.cancel(on as usize, 0, id);
        self.until(SOON, |b| b.results.contains_key(&id));
        match self.results.remove(&id) {
            Some(Err(_)) => Ok(()),
            other => Err(format!("not cut: {other:?}")),
        }
    }

    fn answered(&mut self, name: &str, wanted: Answer) -> Result<(), String> {
        let is = |b: &Self| b.commits.get(name).map(|c| c.answer);
        if wanted == Answer::Waits {
            self.until(SETTLED, |_| false);
        } else {
            self.until(SOON, |b| is(b) == Some(wanted));
        }
        equal(is(self), Some(wanted))
    }

    fn shows(&self, on: Server, name: &str) -> bool {
        let (Some(commit), n) = (self.commits.get(name), &self.world.nodes[on as usize]) else { return false };
        if n.server.pm != Pm::Up {
            return false;
        }
        // Visible to others on its primary only when it is through.
        let waits = commit.answer == Answer::Waits && commit.node == on as usize;
        let shown = Pos { lsn: n.disk.replayed, ..n.disk.written };
        !waits && self.world.wal.contains(shown, commit.pos)
    }

    fn role(&self, on: Server) -> Option<Role> {
        let server = &self.world.nodes[on as usize].server;
        match server.pm {
            Pm::Down => Some(Role::Down),
            Pm::Up if server.primary => Some(Role::Primary),
            Pm::Up => Some(Role::Standby),
            _ => None,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Do(order) => self.order(order),
            Step::Refused(order) => match self.order(order) {
                Ok(()) => Err("it was obeyed".to_owned()),
                Err(_) => Ok(()),
            },
            Step::Is(on, role) => {
                self.until(SOON, |b| b.role(*on) == Some(*role));
                equal(self.role(*on), Some(*role))
            }
            Step::Timeline(on, timeline) => {
                self.until(SOON, |b| b.world.timeline(*on as usize) == *timeline);
                equal(self.world.timeline(*on as usize), *timeline)
            }
            Step::ControlTimeline(on, timeline) => {
                equal(self.world.nodes[*on as usize].disk.control_timeline, *timeline)
            }
            Step::Streams(on, wanted) => {
                if *wanted {
                    self.until(SOON, |b| b.world.nodes[*on as usize].server.receiver.is_some());
                } else {
                    self.until(SETTLED, |_| false);
                }
                equal(self.world.nodes[*on as usize].server.receiver.is_some(), *wanted)
            }
            Step::Has(on, name) => {
                let has = self.until(SOON, |b| b.shows(*on, name));
                equal(has, true)
            }
            Step::Lacks(on, name) => equal(self.shows(*on, name), false),
            Step::Answered(name, answer) => self.answered(name, *answer),
            Step::Rewinds(on, from, wanted) => {
                self.broken = false;
                let result = self.order(&Order::Rewind(*on, *from));
                let said = match &result {
                    Err(_) => Rewound::Refused,
                    Ok(()) if self.broken => Rewound::Yes,
                    Ok(()) => Rewound::NotRequired,
                };
                if said == *wanted { Ok(()) } else { Err(format!("{said:?} ({result:?})")) }
            }
            Step::HasSlots(on, slots) => {
                let there = &self.world.nodes[*on as usize].disk.slots;
                equal(&there.iter().map(|slot| slot.name.clone()).collect::<Vec<_>>(), slots)
            }
            Step::Startable(on, wanted) => equal(self.world.nodes[*on as usize].disk.intact(), *wanted),
            Step::BeyondCheckpoint(on, of) => {
                let (ours, theirs) = (&self.world.nodes[*on as usize].disk, &self.world.nodes[*of as usize].disk);
                equal((ours.replayed, theirs.checkpoint < ours.replayed), (theirs.checkpoint + RECORD, true))
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "values are made for it")]
fn equal<T: PartialEq + std::fmt::Debug>(is: T, wanted: T) -> Result<(), String> {
    if is == wanted { Ok(()) } else { Err(format!("it is {is:?}, not {wanted:?}")) }
}
