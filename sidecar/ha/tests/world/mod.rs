//! A small world for tests of the core: members, an API server with CAS and watches, PostgreSQL as a few fields, and time that
//! only the test moves. Everything takes a moment, nothing is random.

#![allow(dead_code)] // each file of tests uses a part of it

mod clusters;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use matriarch_ha::core::{Core, Identity};
use matriarch_ha::effect::{Change, Effect, Question, Reply, ServerConfig, StoreCall, Task};
use matriarch_ha::event::*;
use matriarch_ha::quorum::SyncNames;
use matriarch_ha::slots::SlotStatus;
use matriarch_ha::snapshot::Snapshot;
use matriarch_ha::store::record::SyncState;
use matriarch_ha::tags::Tags;
use matriarch_ha::types::{Boot, Lsn, Timeline, Wall};
use matriarch_ha::view::View;

#[allow(unused_imports)] // each file of tests uses a part of it
pub use clusters::{ASYNC, QUORUM, cluster, config};

/// PostgreSQL and supervisor of a member.
#[derive(Debug, Clone, Default)]
pub struct Database {
    pub data: Option<Data>,
    pub running: bool,
    pub primary: bool,
    pub config: ServerConfig,
    pub permit: Option<Boot>,
    pub seq: u64,
    pub slots: Vec<SlotStatus>,
    /// Receives nothing any more.
    pub stuck: bool,
    /// Nobody has the WAL that it needs: it does not stream.
    pub deprived: bool,
    /// How long a stop takes after the shutdown checkpoint, and the pending stop.
    pub archiver_ms: u64,
    /// Answers nothing.
    pub mute: bool,
    /// A start as primary takes minutes, in which it answers nothing.
    pub slow_start: bool,
}

/// A data directory.
#[derive(Debug, Clone)]
pub struct Data {
    pub timeline: u32,
    pub lsn: u64,
    pub standby_signal: bool,
    pub clean: bool,
}

impl Data {
    pub fn new() -> Self {
        Self { timeline: 1, lsn: 1000, standby_signal: false, clean: true }
    }
}

pub struct Node {
    pub core: Core,
    identity: Identity,
    pub db: Database,
    pub agent_up: bool,
    pub wake: Boot,
    pub finished: bool,
    pub verdicts: Vec<(u64, String, String)>,
    /// How often PostgreSQL was started, and copied.
    pub starts: u32,
    pub copies: u32,
    /// On what the last verdict was given.
    pub decided: Option<Box<Snapshot>>,
    /// What it tells the outside.
    pub view: View,
    task: Option<(u64, Task, Boot)>,
    pub watching: BTreeSet<Kind>,
}

impl Node {
    /// The task that runs.
    pub fn task_kind(&self) -> String {
        let text = self.task.as_ref().map(|(_, task, _)| format!("{task:?}")).unwrap_or_default();
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

pub struct World {
    pub now: Boot,
    pub nodes: BTreeMap<String, Node>,
    pub objects: BTreeMap<(Kind, String), Object>,
    pub api_up: bool,
    pub replies: BTreeMap<u64, Reply>,
    pub primaries: Vec<(u64, Vec<String>)>,
    /// `-sync` and the setting of the primary, whenever one of them changed.
    pub sync_history: Vec<(u64, String)>,
    sync_checked: (String, String),
    sync_key: Option<(Kind, String)>,
    /// Members that the API server does not reach, nor they it.
    pub cut_off: BTreeSet<String>,
    /// Members whose writes are applied without their ever hearing of it.
    pub unanswered: BTreeSet<String>,
    /// Members whom no other member reaches.
    pub unheard: BTreeSet<String>,
    /// Members whose supervisor acknowledges no permit.
    pub deaf: BTreeSet<String>,
    /// Objects that may not be created, and how often that was tried.
    pub forbidden: BTreeMap<String, u32>,
    /// More than one writable primary is what the test is about.
    pub lawless: bool,
    /// While it has no WAL receiver, this standby tells timeline 1.
    pub forgetful: Option<String>,
    /// Callbacks as they were called: member, action, role.
    pub callbacks: Vec<(String, &'static str, String)>,
    /// What is stored and not believed: member, why.
    pub disbelieved: Vec<(String, String)>,
    /// Timelines that a promotion left out.
    pub unused: BTreeSet<u32>,
    /// Walsenders still act on this setting.
    pub old_setting: Option<String>,
    /// The checkpointer has not told sessions of the present setting.
    pub busy_checkpointer: bool,
    /// The cluster that a standby cluster follows.
    pub remote: Option<Data>,
    /// Tasks of these kinds fail: member, first word of the task's name, how.
    pub failing: Vec<(String, &'static str, TaskError)>,
    version: u64,
    queue: VecDeque<(Boot, String, Event)>,
    asks: BTreeMap<u64, (String, u64, String)>,
}

pub const SYSTEM: &str = "7411111111111111111";

impl World {
    pub fn new(members: &[&str], config: &str) -> Self {
        let mut world = Self {
            now: Boot(1_000_000_000),
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            api_up: true,
            replies: BTreeMap::new(),
            primaries: Vec::new(),
            sync_history: Vec::new(),
            sync_checked: Default::default(),
            sync_key: Some((Kind::Lock, "x-sync".into())),
            cut_off: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            unheard: BTreeSet::new(),
            deaf: BTreeSet::new(),
            forbidden: BTreeMap::new(),
            lawless: false,
            forgetful: None,
            callbacks: Vec::new(),
            disbelieved: Vec::new(),
            unused: BTreeSet::new(),
            old_setting: None,
            busy_checkpointer: false,
            remote: None,
            failing: Vec::new(),
            version: 100,
            queue: VecDeque::new(),
            asks: BTreeMap::new(),
        };
        for name in ["x-leader", "x-config", "x-failover", "x-sync"] {
            world.store(Kind::Lock, name, |o| o.owners = vec![serde_json::json!({"uid": "cluster"})]);
        }
        world.store(Kind::Lock, "x-config", |o| {
            o.annotations.insert("config".into(), config.into());
        });
        world.store(Kind::Slice, "x-primary", |_| {});
        for name in members {
            world.add(name);
        }
        world
    }

    pub fn add(&mut self, name: &str) {
        self.add_tagged(name, &serde_json::Value::Null);
    }

    pub fn add_tagged(&mut self, name: &str, tags: &serde_json::Value) {
        self.add_as(name, |identity| identity.tags = Tags::parse(tags));
    }

    pub fn add_as(&mut self, name: &str, change: impl FnOnce(&mut Identity)) {
        let ip = format!("10.0.0.{}", self.nodes.len() + 1);
        self.store(Kind::Pod, name, |o| {
            o.uid = format!("uid-{name}");
            o.ip = Some(ip.clone());
        });
        let mut identity = Identity {
            name: name.into(),
            uid: format!("uid-{name}"),
            ip,
            leader_object: "x-leader".into(),
            config_object: "x-config".into(),
            failover_object: "x-failover".into(),
            sync_object: "x-sync".into(),
            slice: Some("x-primary".into()),
            conn_url: format!("postgres://{name}.x:5432/postgres"),
            proxy_url: None,
            api_url: format!("https://{name}.x:8008/patroni"),
            role_label: "role".into(),
            standby_leader_label: "primary".into(),
            bootstrap_labels: [("phase".to_owned(), "making".to_owned())].into(),
            leader_label: "primary".into(),
            follower_label: "replica".into(),
            tmp_role_label: None,
            tags: Tags::default(),
            bootstrap_config: serde_json::json!({}),
            local: serde_json::Value::Null,
        };
        change(&mut identity);
        let node = Node {
            core: Core::new(identity.clone()),
            identity,
            db: Database::default(),
            agent_up: true,
            wake: self.now,
            finished: false,
            verdicts: Vec::new(),
            decided: None,
            view: View::default(),
            starts: 0,
            copies: 0,
            task: None,
            watching: BTreeSet::new(),
        };
        self.nodes.insert(name.into(), node);
        self.push(name, 1, attached());
    }

    /// The agent ends, and another one finds PostgreSQL as it is.
    pub fn restart_agent(&mut self, name: &str) {
        self.queue.retain(|(_, to, _)| to != name);
        let now = self.now;
        let node = self.node(name);
        node.core = Core::new(node.identity.clone());
        node.watching.clear();
        node.task = None;
        node.wake = now;
        let Event::Attached(blank) = attached() else { unreachable!() };
        let found = Attached {
            postmaster: node.db.running.then_some(1),
            latched: node.db.running && node.db.primary,
            deadline: Some(node.db.permit.unwrap_or(Boot(0))),
            permit_seq: node.db.seq,
            ..blank
        };
        self.push(name, 1, Event::Attached(found));
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap()
    }

    pub fn push(&mut self, name: &str, after_ms: u64, event: Event) {
        self.queue.push_back((self.now.plus_ms(after_ms), name.into(), event));
    }

    /// The API server's write: a new version, and every watcher hears of it.
    pub fn store(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut Object)) -> Object {
        self.version += 1;
        let object = self.objects.entry((kind, name.into())).or_insert_with(|| Object {
            name: name.into(),
            uid: format!("o-{name}"),
            ..Object::default()
        });
        change(object);
        object.resource_version = self.version.to_string();
        let object = object.clone();
        let watchers: Vec<String> =
            self.nodes.iter().filter(|(_, n)| n.watching.contains(&kind)).map(|(n, _)| n.clone()).collect();
        for watcher in watchers {
            self.push(&watcher, 2, Event::Store(StoreEvent::Applied(kind, object.clone())));
        }
        object
    }

    pub fn annotation(&self, name: &str, key: &str) -> Option<String> {
        self.objects.get(&(Kind::Lock, name.into()))?.annotations.get(key).cloned()
    }

    pub fn leader(&self) -> Option<String> {
        self.annotation("x-leader", "leader")
    }

    pub fn writable(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, n)| n.db.running && n.db.primary).map(|(n, _)| n.clone()).collect()
    }

    /// The API server goes: watches break.
    pub fn api_down(&mut self) {
        self.api_up = false;
        self.end_watches();
    }

    /// The API server and this member lose each other.
    pub fn cut(&mut self, name: &str) {
        self.cut_off.insert(name.to_owned());
        for kind in std::mem::take(&mut self.node(name).watching) {
            let error = Some(StoreError::Unreachable("refused".into()));
            self.push(name, 1, Event::Store(StoreEvent::WatchEnded(kind, error)));
        }
    }

    /// Writes annotations of a lock object, as a person's tool does.
    pub fn annotate(&mut self, object: &str, annotations: &[(&str, Option<&str>)]) {
        self.store(Kind::Lock, object, |o| {
            for (key, value) in annotations {
                match value {
                    Some(value) => o.annotations.insert((*key).to_owned(), (*value).to_owned()),
                    None => o.annotations.remove(*key),
                };
            }
        });
    }

    /// A request over REST; the reply is in `replies` under the same id.
    pub fn request(&mut self, member: &str, id: u64, request: Request) {
        self.push(member, 0, Event::Request { id, request });
    }

    /// Code and text of a reply.
    pub fn reply(&self, id: u64) -> Option<(u16, String)> {
        match self.replies.get(&id)? {
            Reply::Text { code, text } => Some((*code, text.clone())),
            Reply::Position(_) | Reply::Snapshot(_) | Reply::Document(_) => None,
        }
    }

    /// The wall clock of all members.
    pub fn wall(&self) -> Wall {
        Wall(i64::try_from(self.now.0).unwrap())
    }

    pub fn end_watches(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            for kind in std::mem::take(&mut self.node(&name).watching) {
                let error = Some(StoreError::Unreachable("refused".into()));
                self.push(&name, 1, Event::Store(StoreEvent::WatchEnded(kind, error)));
            }
        }
    }

    /// Kills the postmaster.
    pub fn crash(&mut self, name: &str) {
        let db = &mut self.node(name).db;
        db.running = false;
        db.primary = false;
        db.mute = false;
        if let Some(data) = &mut db.data {
            data.clean = false;
        }
        let exited = Event::Exited { pid: 1, how: "signal 9".into(), clean: false, fenced: false };
        self.push(name, 5, exited);
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while self.now < end {
            self.now = self.now.plus_ms(1);
            self.postgres();
            let due: Vec<(Boot, String, Event)> = {
                let (due, rest): (Vec<_>, Vec<_>) = self.queue.drain(..).partition(|(at, _, _)| *at <= self.now);
                self.queue = rest.into();
                due
            };
            for (_, name, event) in due {
                self.deliver(&name, event);
            }
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            for name in names {
                if self.nodes[&name].wake <= self.now {
                    self.deliver(&name, Event::Tick);
                }
            }
            self.check_sync();
            let writable = self.writable();
            if self.primaries.last().map(|(_, w)| w) != Some(&writable) {
                self.primaries.push((self.now.0 / 1000, writable.clone()));
            }
            assert!(self.lawless || writable.len() < 2, "two writable primaries: {writable:?}");
        }
    }

    /// What is stored and what is in force never allow a leader that lacks what was acknowledged.
    fn check_sync(&mut self) {
        let Some((name, node)) = self.nodes.iter().find(|(_, n)| n.db.running && n.db.primary) else { return };
        let object = self.sync_key.as_ref().and_then(|key| self.objects.get(key));
        let version = object.map_or("", |o| o.resource_version.as_str());
        if self.sync_checked.0 == version && self.sync_checked.1 == node.db.config.sync_names {
            return;
        }
        self.sync_checked = (version.to_owned(), node.db.config.sync_names.clone());
        let seen = (SyncState::parse(object), node.db.config.sync_names.clone());
        if seen.0.leader.as_ref() == Some(name) {
            let voters = seen.0.voters.iter().map(String::as_str).collect();
            let names = SyncNames::parse(&seen.1);
            assert!(matriarch_ha::quorum::safe(&voters, seen.0.quorum, &names), "unsafe: {seen:?}");
        }
        self.sync_history.push((self.now.0 / 1000, format!("{} {}", seen.0.voters.join(","), seen.1)));
    }

    pub fn run_until(&mut self, what: &str, limit_ms: u64, mut done: impl FnMut(&mut Self) -> bool) -> u64 {
        for ms in 0..limit_ms {
            if done(self) {
                return ms;
            }
            self.run(1);
        }
        for (name, node) in &self.nodes {
            println!("{name}: {:?} {:#?}", node.db, &node.verdicts[node.verdicts.len().saturating_sub(12)..]);
        }
        println!("{:#?}", self.objects);
        panic!("not in {limit_ms} ms: {what}");
    }

    fn deliver(&mut self, name: &str, event: Event) {
        if self.node(name).finished {
            return;
        }
        if !self.node(name).agent_up {
            // A stopped process finds in its sockets what came meanwhile.
            if event != Event::Tick {
                self.push(name, 20, event);
            }
            return;
        }
        let now = Now { boot: self.now, wall: Wall(i64::try_from(self.now.0).unwrap()) };
        let effects = self.node(name).core.handle(now, event);
        for effect in effects {
            self.carry_out(name, effect);
        }
    }

    /// Log flows, replicas follow, the fence falls.
    fn postgres(&mut self) {
        let now = self.now;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in &names {
            let node = self.node(name);
            if node.db.running && node.db.primary && node.db.permit.is_some_and(|p| now >= p) {
                node.db.running = false;
                node.db.primary = false;
                node.db.data.as_mut().unwrap().clean = false;
                let exited = Event::Exited { pid: 1, how: "signal 3".into(), clean: false, fenced: true };
                self.push(name, 1, exited);
            }
            if let Some((id, task, at)) = self.node(name).task.clone()
                && at <= now
            {
                self.node(name).task = None;
                self.finish(name, id, task);
            }
        }
        let heads: BTreeMap<String, (u32, u64)> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.db.running)
            .map(|(name, n)| (name.clone(), n.db.data.as_ref().map(|d| (d.timeline, d.lsn)).unwrap()))
            .collect();
        let mut heads = heads;
        if let Some(remote) = &mut self.remote {
            remote.lsn += 10;
            heads.insert(String::new(), (remote.timeline, remote.lsn));
        }
        for name in names {
            let node = self.node(&name);
            let Some(data) = node.db.data.as_mut().filter(|_| node.db.running) else { continue };
            if node.db.primary {
                data.lsn += 10;
            } else if let Some(upstream) = &node.db.config.upstream
                && !node.db.stuck
                && !node.db.deprived
                && let Some((timeline, lsn)) = heads.get(&upstream.member)
                && *lsn >= data.lsn
            {
                (data.timeline, data.lsn) = (*timeline, *lsn);
            }
        }
    }

    fn finish(&mut self, name: &str, id: u64, task: Task) {
        match task {
            Task::StartPrimary { .. } | Task::StartStandby { .. } => self.node(name).starts += 1,
            Task::BaseBackup { .. } => self.node(name).copies += 1,
            _ => {}
        }
        let now = self.now;
        let called = format!("{task:?}");
        let fails = self.failing.iter().find(|(who, what, _)| who == name && called.starts_with(what));
        if let Some((_, _, how)) = fails {
            let result = Err(how.clone());
            return self.push(name, 0, Event::TaskDone { id, result });
        }
        let result = match task.clone() {
            Task::Initdb => {
                self.node(name).db.data = Some(Data::new());
                Ok(())
            }
            Task::PostBootstrap => Ok(()),
            Task::CopySlots { from, slots, config } => {
                let theirs = self.nodes[&from.member].db.slots.clone();
                let db = &mut self.node(name).db;
                db.slots.extend(theirs.into_iter().filter(|slot| slots.contains(&slot.name)));
                db.config = config;
                self.push(name, 0, Event::Exited { pid: 1, how: "exit 0".into(), clean: true, fenced: false });
                self.push(name, 0, Event::Started { pid: 1 });
                Ok(())
            }
            Task::Compare { .. } => match &self.remote {
                None => Err(TaskError::Failed("connection refused".into())),
                Some(remote) if remote.timeline < self.nodes[name].db.data.as_ref().unwrap().timeline => {
                    Err(TaskError::Hopeless("the logs have parted".into()))
                }
                Some(_) => Ok(()),
            },
            Task::MoveAside => {
                self.node(name).db.data = None;
                Ok(())
            }
            Task::Restore => {
                self.node(name).db.data = Some(Data { standby_signal: true, ..Data::new() });
                Ok(())
            }
            Task::BaseBackup { from, .. } | Task::Rewind { from, .. } => {
                let source = match self.nodes.get(&from.member) {
                    Some(node) => node.db.data.clone().filter(|_| node.db.running),
                    None => self.remote.clone(),
                };
                if let Some(mut data) = source {
                    data.standby_signal = true;
                    self.node(name).db.data = Some(data);
                    Ok(())
                } else {
                    Err(TaskError::Failed("connection refused".into()))
                }
            }
            Task::StartPrimary { config } | Task::StartStandby { config } if self.node(name).db.running => {
                Err(TaskError::Failed(format!("a postmaster runs already {config:?}")))
            }
            Task::StartPrimary { config } => {
                let db = &mut self.node(name).db;
                if db.permit.is_none_or(|p| now >= p) {
                    Err(TaskError::NoPermit)
                } else {
                    db.running = true;
                    db.primary = true;
                    db.config = config;
                    db.data.as_mut().unwrap().standby_signal = false;
                    self.push(name, 0, Event::Started { pid: 1 });
                    Ok(())
                }
            }
            Task::StartStandby { config } => {
                let db = &mut self.node(name).db;
                db.mute = false;
                db.running = true;
                db.primary = false;
                db.config = config;
                db.data.as_mut().unwrap().standby_signal = true;
                self.push(name, 0, Event::Started { pid: 1 });
                Ok(())
            }
            Task::Promote { to, .. } => {
                let db = &mut self.node(name).db;
                if db.permit.is_none_or(|p| now >= p) {
                    Err(TaskError::NoPermit)
                } else {
                    db.primary = true;
                    let data = db.data.as_mut().unwrap();
                    data.timeline = (data.timeline + 1).max(to.0);
                    data.standby_signal = false;
                    Ok(())
                }
            }
            Task::Stop { .. } => {
                // The shutdown checkpoint goes to every standby that streams.
                let node = self.node(name);
                let (was, lsn) = (node.db.primary, node.db.data.as_ref().unwrap().lsn);
                let archives = std::mem::take(&mut node.db.archiver_ms);
                node.db.running = archives > 0;
                node.db.mute = archives > 0;
                node.db.primary = false;
                node.db.data.as_mut().unwrap().clean = true;
                if was {
                    for other in self.nodes.values_mut().filter(|n| n.db.running) {
                        if other.db.config.upstream.as_ref().is_some_and(|u| u.member == name) {
                            other.db.data.as_mut().unwrap().lsn = lsn + 100;
                        }
                    }
                }
                if archives > 0 {
                    self.node(name).task = Some((id, task, now.plus_ms(archives)));
                    return;
                }
                self.push(name, 0, Event::Exited { pid: 1, how: "exit 0".into(), clean: true, fenced: false });
                Ok(())
            }
        };
        self.push(name, 0, Event::TaskDone { id, result });
    }

    fn carry_out(&mut self, name: &str, effect: Effect) {
        match effect {
            Effect::Store(call) => self.api(name, call),
            Effect::Permit { seq, deadline } => {
                let db = &mut self.node(name).db;
                assert!(seq > db.seq);
                db.seq = seq;
                db.permit = Some(deadline.unwrap_or(Boot(u64::MAX)));
                if !self.deaf.contains(name) {
                    self.push(name, 1, Event::Permitted { seq });
                }
            }
            Effect::Inspect { id } => {
                let found = match &self.node(name).db.data {
                    None => DataDir::Empty,
                    Some(d) => DataDir::Present(ControlData {
                        system_id: SYSTEM.into(),
                        state: if d.clean { "shut down" } else { "in production" }.into(),
                        timeline: Timeline(d.timeline),
                        checkpoint: Lsn(d.lsn),
                        min_recovery: Lsn(0),
                        standby_signal: d.standby_signal,
                    }),
                };
                self.push(name, 3, Event::Inspected { id, found });
            }
            Effect::Query { id, .. } => {
                let result = self.status(name);
                self.push(name, 1, Event::Queried { id, result });
            }
            Effect::Change { id, change } => {
                let db = &mut self.node(name).db;
                match change {
                    Change::Configure(config) => db.config = config,
                    Change::Slots(plan) => {
                        db.slots.retain(|slot| !plan.drop.contains(&slot.name));
                        for (name, kind) in plan.create {
                            let lsn = Lsn(db.data.as_ref().unwrap().lsn);
                            db.slots.push(SlotStatus { name, kind, active: false, lsn, failover: false });
                        }
                    }
                    Change::Checkpoint => {}
                }
                self.push(name, 10, Event::Changed { id, result: Ok(()) });
            }
            Effect::Task { id, task } => {
                let takes = match task {
                    Task::Stop { immediate: false, .. } => 30,
                    Task::Initdb | Task::BaseBackup { .. } => 500,
                    _ => 50,
                };
                let at = self.now.plus_ms(takes);
                assert!(self.node(name).task.is_none(), "two tasks");
                let db = &mut self.node(name).db;
                if matches!(task, Task::StartPrimary { .. }) && db.slow_start {
                    (db.running, db.mute, db.slow_start) = (true, true, false);
                    self.push(name, 0, Event::Started { pid: 1 });
                    self.node(name).task = Some((id, task, self.now.plus_ms(600_000)));
                    return;
                }
                self.node(name).task = Some((id, task, at));
            }
            Effect::CancelTask { id } => {
                self.node(name).task = None;
                self.push(name, 1, Event::TaskDone { id, result: Err(TaskError::Cancelled) });
            }
            Effect::Ask { id, peer, question, timeout_ms } => self.ask(name, id, peer.member, question, timeout_ms),
            Effect::Reply { id, reply } => match self.asks.remove(&id) {
                Some((asker, asked, _)) => {
                    let event = match reply {
                        Reply::Position(p) => Event::Peer { id: asked, member: name.into(), result: Ok(p) },
                        Reply::Text { code: 200, .. } => {
                            Event::FailsafeAnswer { id: asked, member: name.into(), result: Ok(()) }
                        }
                        Reply::Snapshot(_) | Reply::Document(_) => return,
                        Reply::Text { text, .. } => {
                            Event::FailsafeAnswer { id: asked, member: name.into(), result: Err(text) }
                        }
                    };
                    self.push(&asker, 1, event);
                }
                None => {
                    self.replies.insert(id, reply);
                }
            },
            Effect::WakeAt(at) => self.node(name).wake = at,
            Effect::History { id, timeline } => {
                let line = |t| format!("{t}\t0/{t}000060\tno recovery target specified\n");
                let file: String = (1..timeline.0).filter(|t| !self.unused.contains(t)).map(line).collect();
                let result = Ok(matriarch_ha::history::parse_file(&file, Some(self.wall().to_string())));
                self.push(name, 2, Event::History { id, result });
            }
            Effect::Decided(snapshot) => self.node(name).decided = Some(snapshot),
            Effect::Publish(view) => self.node(name).view = (*view).clone(),
            Effect::Settings { .. } => {}
            Effect::Callback { action, role } => self.callbacks.push((name.into(), action.name(), role)),
            Effect::Disbelieved(why) => self.disbelieved.push((name.into(), why)),
            Effect::Verdict { rule, reason } => {
                let at = self.now.0 / 1000;
                self.node(name).verdicts.push((at, rule.into(), reason));
            }
            Effect::Finish => self.node(name).finished = true,
            Effect::Exit(why) => panic!("{name} exits: {why}"),
        }
    }

    fn status(&self, name: &str) -> Result<ServerStatus, QueryError> {
        let db = &self.nodes[name].db;
        let Some(data) = db.data.as_ref().filter(|_| db.running && !db.mute) else {
            return Err(QueryError::Failed("down".into()));
        };
        let upstream = db.config.upstream.as_ref().map(|u| u.member.clone());
        let streams = |node: &Node, from: &str| {
            node.db.running
                && !node.db.primary
                && !node.db.deprived
                && node.db.config.upstream.as_ref().is_some_and(|u| u.member == from)
        };
        let loaded = SyncNames::parse(self.old_setting.as_ref().unwrap_or(&db.config.sync_names));
        let listed = |member: &String| loaded.is_star() || loaded.names.contains(member);
        let standbys = self
            .nodes
            .iter()
            .filter(|(_, n)| streams(n, name))
            .map(|(member, n)| StandbyStatus {
                member: member.clone(),
                state: "streaming".into(),
                sync_state: if listed(member) { "quorum" } else { "async" }.into(),
                flush: Lsn(n.db.data.as_ref().unwrap().lsn),
                ..StandbyStatus::default()
            })
            .collect();
        let streaming = !db.primary
            && !db.deprived
            && upstream.is_some_and(|u| match self.nodes.get(&u) {
                Some(node) => node.db.running,
                None => self.remote.is_some(),
            });
        let forgets = !db.primary && self.forgetful.as_deref() == Some(name);
        Ok(ServerStatus {
            in_recovery: !db.primary,
            system_id: SYSTEM.into(),
            version: 150_001,
            started: format!("start {}", self.nodes[name].starts),
            timeline: Timeline(if forgets && !streaming { 1 } else { data.timeline }),
            flush: Lsn(if db.primary { data.lsn } else { 0 }),
            received: Lsn(if db.primary { 0 } else { data.lsn }),
            replayed: Lsn(if db.primary { 0 } else { data.lsn }),
            streaming,
            replay_waits: true,
            checkpointer_waits: !self.busy_checkpointer,
            sync_names: db.config.sync_names.clone(),
            has_conninfo: db.config.upstream.is_some(),
            standbys,
            slots: db.slots.clone(),
            ..ServerStatus::default()
        })
    }

    fn ask(&mut self, name: &str, id: u64, member: String, question: Question, timeout_ms: u64) {
        let silent = |world: &mut Self| {
            let event = match question {
                Question::Failsafe { .. } => {
                    Event::FailsafeAnswer { id, member: member.clone(), result: Err("silent".into()) }
                }
                _ => Event::Peer { id, member: member.clone(), result: Err("silent".into()) },
            };
            world.push(name, timeout_ms, event);
        };
        if !self.nodes.get(&member).is_some_and(|n| n.agent_up) || self.unheard.contains(&member) {
            return silent(self);
        }
        let request = match &question {
            Question::Status => {
                let result = self.status(&member);
                let answer = result.map_or_else(
                    |_| PeerAnswer { demoted: true, pod_uid: format!("uid-{member}"), ..PeerAnswer::default() },
                    |s| PeerAnswer {
                        running: true,
                        primary: !s.in_recovery,
                        demoted: s.in_recovery,
                        pod_uid: format!("uid-{member}"),
                        timeline: s.timeline,
                        lsn: s.flush.max(s.received),
                        system_id: s.system_id,
                        ..PeerAnswer::default()
                    },
                );
                return self.push(name, 2, Event::Peer { id, member, result: Ok(answer) });
            }
            Question::Election { candidate } => Request::Election { candidate: candidate.clone() },
            Question::Failsafe { leader, leader_uid, ttl_ms } => {
                Request::Failsafe { leader: leader.clone(), leader_uid: leader_uid.clone(), ttl_ms: *ttl_ms }
            }
        };
        self.version += 1;
        let request_id = 1_000_000 + self.version;
        self.asks.insert(request_id, (name.into(), id, member.clone()));
        self.push(&member, 1, Event::Request { id: request_id, request });
    }

    fn api(&mut self, name: &str, call: StoreCall) {
        let up = self.api_up && !self.cut_off.contains(name);
        let unreachable = || StoreError::Unreachable("refused".into());
        match call {
            StoreCall::List { id, kind } => {
                let result = if up {
                    let all = self.objects.iter().filter(|((k, _), _)| *k == kind).map(|(_, o)| o.clone()).collect();
                    self.node(name).watching.insert(kind);
                    Ok((all, self.version.to_string()))
                } else {
                    Err(unreachable())
                };
                self.push(name, 2, Event::Store(StoreEvent::Listed { id, kind, result }));
            }
            StoreCall::Watch { .. } => {}
            StoreCall::Get { id, kind, name: object } => {
                let result = match self.objects.get(&(kind, object)) {
                    _ if !up => Err(unreachable()),
                    Some(o) => Ok(o.clone()),
                    None => Err(StoreError::NotFound),
                };
                self.push(name, 2, Event::Store(StoreEvent::Done { id, result }));
            }
            StoreCall::Create { id, kind, name: object, annotations, owners } => {
                let refused = self.forbidden.get_mut(&object).filter(|_| up);
                let result = if let Some(tries) = refused {
                    *tries += 1;
                    Err(StoreError::Forbidden("cannot create".into()))
                } else if !up {
                    Err(unreachable())
                } else if self.objects.contains_key(&(kind, object.clone())) {
                    Err(StoreError::Conflict)
                } else {
                    Ok(self.store(kind, &object, |o| {
                        o.annotations = annotations;
                        o.owners = owners;
                    }))
                };
                self.push(name, 2, Event::Store(StoreEvent::Done { id, result }));
            }
            StoreCall::Patch(patch) => {
                let refused = self.forbidden.get_mut(&patch.name).filter(|_| up);
                let forbidden = refused.map(|tries| *tries += 1).is_some();
                let result = match self.objects.get(&(patch.kind, patch.name.clone())) {
                    _ if !up => Err(unreachable()),
                    _ if forbidden => Err(StoreError::Forbidden("cannot patch".into())),
                    None => Err(StoreError::NotFound),
                    Some(o) if patch.resource_version.as_ref().is_some_and(|v| *v != o.resource_version) => {
                        Err(StoreError::Conflict)
                    }
                    Some(_) => Ok(self.store(patch.kind, &patch.name, |o| {
                        for (map, changes) in [(&mut o.annotations, patch.annotations), (&mut o.labels, patch.labels)] {
                            for (k, v) in changes {
                                match v {
                                    Some(v) => map.insert(k, v),
                                    None => map.remove(&k),
                                };
                            }
                        }
                        if let Some(addresses) = patch.addresses {
                            o.addresses = addresses;
                        }
                    })),
                };
                let lost = self.unanswered.contains(name);
                let (after, result) = if lost { (1_000, Err(unreachable())) } else { (2, result) };
                self.push(name, after, Event::Store(StoreEvent::Done { id: patch.id, result }));
            }
        }
    }
}

/// One writable leader that clients are sent to, and everybody who lives streams from it.
pub fn settled(world: &mut World) -> bool {
    let Some(leader) = world.leader() else { return false };
    if world.writable() != [leader.clone()] {
        return false;
    }
    let address = world.objects[&(Kind::Slice, "x-primary".into())].addresses.len() == 1;
    address
        && world.nodes.iter().all(|(name, n)| {
            !n.agent_up
                || n.finished
                || *name == leader
                || (n.db.running && n.db.config.upstream.as_ref().is_some_and(|u| u.member == leader))
        })
}

pub fn attached() -> Event {
    Event::Attached(Attached {
        instance: "i".into(),
        postmaster: None,
        latched: false,
        deadline: None,
        permit_seq: 0,
        terminating: false,
        version: Some("15.1".into()),
    })
}
