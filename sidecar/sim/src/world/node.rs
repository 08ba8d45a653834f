//! A pod with its processes: agent, supervisor, postmaster, and the volume below them.

use std::sync::Arc;

use matriarch_ha::core::{Core, Identity};
use matriarch_ha::effect::{ServerConfig, Task};
use matriarch_ha::event::{Event, Kind, Object};
use matriarch_ha::fence::Fence;
use matriarch_ha::quorum::SyncNames;
use matriarch_ha::tags::Tags;
use matriarch_ha::view::View;

use super::{Ev, S, World};
use crate::clock::Clock;
use crate::model::disk::Disk;

/// One pod on its node; a pod that comes after it under the same name on the same volume reuses this, one beside it does not.
pub(crate) struct Node {
    pub(crate) member: usize,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) ip: String,
    /// Grows with every pod that lives here.
    pub(crate) pod: u32,
    /// The machine has power.
    pub(crate) up: bool,
    /// An old pod that nobody knows any more.
    pub(crate) zombie: bool,
    /// No member, but the server outside.
    pub(crate) outside: bool,
    /// Since when its agent, undisturbed, has read that the cluster follows another one.
    pub(crate) knows_since: Option<u64>,
    pub(crate) clock: Clock,
    pub(crate) agent: Agent,
    pub(crate) supervisor: Supervisor,
    pub(crate) server: Server,
    pub(crate) disk: Disk,
    pub(crate) task: Option<Run>,
    pub(crate) runs: u32,
    /// Faults that freeze it.
    pub(crate) frozen: u32,
    pub(crate) thawed_at: u64,
    pub(crate) deferred: Vec<Ev>,
    /// Milliseconds a flush takes, by a fault.
    pub(crate) slow_disk_ms: u64,
    pub(crate) stuck_stream: u32,
    /// PostgreSQL cannot be started: so many faults.
    pub(crate) starts_fail: u32,
    /// Its recovery takes so much longer, milliseconds.
    pub(crate) slow_start_ms: u64,
    /// A person ordered something of it.
    pub(crate) ordered: bool,
    /// Directories destroyed here since all was whole again.
    pub(crate) wipes: u32,
    /// The pod is being deleted and comes again.
    pub(crate) deleting: bool,
}

pub(crate) struct Agent {
    pub(crate) core: Option<Box<Core>>,
    pub(crate) incarnation: u32,
    /// By SIGSTOP: so many faults.
    pub(crate) stopped: u32,
    pub(crate) mailbox: Vec<Event>,
    pub(crate) timer: u32,
    pub(crate) timer_due: bool,
    pub(crate) slow_ms: u64,
    pub(crate) busy_until: u64,
    /// When the last event that found it busy comes again.
    pub(crate) deferred_to: u64,
    pub(crate) view: Option<Arc<View>>,
    pub(crate) rule: &'static str,
    /// When it started or went on, and when it wants to be woken.
    pub(crate) since: u64,
    pub(crate) wakes: u64,
    /// When the last message to the supervisor arrives: they do not overtake each other.
    pub(crate) socket_at: u64,
    pub(crate) restarts: u32,
    /// What it wrote to the store since silence began.
    pub(crate) writes: Vec<String>,
}

pub(crate) struct Supervisor {
    pub(crate) up: bool,
    pub(crate) incarnation: u32,
    pub(crate) fence: Fence,
    pub(crate) timer: u32,
    pub(crate) terminating: bool,
}

/// What a postmaster is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pm {
    Down,
    /// Not yet accepting connections.
    Recovering,
    Up,
    /// Fast shutdown; true: the shutdown checkpoint is written.
    Stopping(bool),
}

pub(crate) struct Server {
    pub(crate) pm: Pm,
    pub(crate) incarnation: u32,
    pub(crate) primary: bool,
    pub(crate) promoting: bool,
    pub(crate) names: SyncNames,
    pub(crate) names_text: String,
    /// Commits wait, as the checkpointer has told the sessions.
    pub(crate) waits: bool,
    /// It is in the middle of something long.
    pub(crate) checkpointer_busy: bool,
    pub(crate) config: ServerConfig,
    /// Commits that wait for standbys: ends of their records.
    pub(crate) waiting: Vec<u64>,
    pub(crate) flushing: bool,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) receivers: u32,
    pub(crate) senders: Vec<Sender>,
    pub(crate) stop_since: u64,
    pub(crate) dying: bool,
    /// Written to the files, not yet in force: number, configuration, who is told.
    pub(crate) reload: Option<(u32, ServerConfig, u32, u64)>,
    pub(crate) reloads: u32,
}

/// A standby's end of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    pub(crate) id: u32,
    pub(crate) upstream: usize,
    pub(crate) upstream_server: u32,
    pub(crate) flushing: bool,
}

/// A primary's end of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) node: usize,
    pub(crate) receiver: u32,
    pub(crate) member: String,
    /// The setting by which it acts.
    pub(crate) names: SyncNames,
    pub(crate) streaming: bool,
    pub(crate) sent: u64,
    pub(crate) flush: u64,
    pub(crate) in_flight: bool,
    /// Since when its standby is gone without a word.
    pub(crate) lost_since: Option<u64>,
}

/// The long task in progress.
pub(crate) struct Run {
    pub(crate) agent: u32,
    pub(crate) id: u64,
    pub(crate) task: Task,
    pub(crate) number: u32,
    pub(crate) step: u32,
    pub(crate) tries: u32,
    pub(crate) source: u32,
}

impl Server {
    pub(crate) fn down(incarnation: u32, receivers: u32) -> Self {
        Self {
            pm: Pm::Down,
            incarnation,
            primary: false,
            promoting: false,
            names: SyncNames::default(),
            names_text: String::new(),
            waits: false,
            checkpointer_busy: false,
            config: ServerConfig::default(),
            waiting: Vec::new(),
            flushing: false,
            receiver: None,
            receivers,
            senders: Vec::new(),
            stop_since: 0,
            dying: false,
            reload: None,
            reloads: 0,
        }
    }

    /// Takes writes.
    pub(crate) fn writable(&self) -> bool {
        self.pm == Pm::Up && self.primary
    }
}

impl Node {
    /// May take a write that a client would see acknowledged.
    pub(crate) fn writable(&self) -> bool {
        self.up && self.frozen == 0 && self.server.writable()
    }
}

impl World {
    /// Makes a pod object and what is behind it; nothing runs yet but the supervisor.
    pub(crate) fn new_pod(&mut self, member: usize, disk: Disk) -> usize {
        let index = self.new_place(member, disk);
        self.new_pod_object(index);
        index
    }

    /// A machine with a volume.
    pub(super) fn new_place(&mut self, member: usize, disk: Disk) -> usize {
        let index = self.nodes.len();
        let mut clock = Clock::new((1000 + 137 * index as u64) * S);
        clock.set_rate(self.now, self.plan.config.drift_ppm.get(member).copied().unwrap_or(0));
        let node = Node {
            member,
            name: format!("x-{member}"),
            uid: String::new(),
            ip: String::new(),
            pod: 0,
            up: true,
            zombie: false,
            outside: false,
            knows_since: None,
            clock,
            agent: Agent {
                core: None,
                incarnation: 0,
                stopped: 0,
                mailbox: Vec::new(),
                timer: 0,
                timer_due: false,
                slow_ms: 0,
                busy_until: 0,
                deferred_to: 0,
                view: None,
                rule: "",
                since: 0,
                wakes: 0,
                socket_at: 0,
                restarts: 0,
                writes: Vec::new(),
            },
            supervisor: Supervisor { up: true, incarnation: 1, fence: Fence::new(), timer: 0, terminating: false },
            server: Server::down(0, 0),
            disk,
            task: None,
            runs: 0,
            frozen: 0,
            thawed_at: 0,
            deferred: Vec::new(),
            slow_disk_ms: 0,
            stuck_stream: 0,
            starts_fail: 0,
            slow_start_ms: 0,
            ordered: false,
            wipes: 0,
            deleting: false,
        };
        self.nodes.push(node);
        self.net.add();
        index
    }

    /// A new pod object for what lives at this place.
    pub(crate) fn new_pod_object(&mut self, index: usize) {
        self.uids += 1;
        let (uid, ip) = (format!("uid-{}", self.uids), format!("10.0.{}.{}", self.uids / 200, self.uids % 200 + 1));
        let node = &mut self.nodes[index];
        node.uid.clone_from(&uid);
        node.ip.clone_from(&ip);
        let object = Object { name: node.name.clone(), uid, ip: Some(ip), ..Object::default() };
        let _ = self.api.create(Kind::Pod, object);
        self.stored();
    }

    pub(crate) fn identity(&self, index: usize) -> Identity {
        let node = &self.nodes[index];
        let name = &node.name;
        Identity {
            name: name.clone(),
            uid: node.uid.clone(),
            ip: node.ip.clone(),
            leader_object: self.leader_object().to_owned(),
            config_object: "x-config".to_owned(),
            failover_object: "x-failover".to_owned(),
            sync_object: "x-sync".to_owned(),
            slice: (!self.plan.config.endpoints).then(|| "x-primary".to_owned()),
            conn_url: format!("postgres://{name}.x:5432/postgres"),
            proxy_url: None,
            api_url: format!("https://{name}.x:8008/patroni"),
            role_label: "role".to_owned(),
            standby_leader_label: "primary".to_owned(),
            bootstrap_labels: std::collections::BTreeMap::new(),
            leader_label: "primary".to_owned(),
            follower_label: "replica".to_owned(),
            tmp_role_label: None,
            tags: Tags::parse(self.plan.config.tags.get(node.member).unwrap_or(&serde_json::Value::Null)),
            local: serde_json::Value::Null,
            bootstrap_config: self.document(self.plan.config.durability),
        }
    }
}
