//! What the core wants done: the outputs of [`crate::core::Core`], one call of kube, supervisor, PostgreSQL or a peer each.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Kind, PeerAnswer};
use crate::slots::SlotPlan;
use crate::snapshot::Snapshot;
use crate::types::{Boot, Timeline};
use crate::view::View;

/// One thing to do. `id`s are unique in a core's life; the answer carries the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// An API verb. Nothing is retried or cached below: the core does both.
    Store(StoreCall),
    /// A primary may run until then.
    Permit {
        /// Grows.
        seq: u64,
        /// On CLOCK_BOOTTIME; none lifts the fence.
        deadline: Option<Boot>,
    },
    /// Look at the data directory: answered by `Inspected`.
    Inspect {
        /// For the answer.
        id: u64,
    },
    /// Ask the server for its state: answered by `Queried`, within `timeout_ms`.
    Query {
        /// For the answer.
        id: u64,
        /// After which it counts as failed.
        timeout_ms: u64,
    },
    /// Read the history file of this timeline: answered by `History`.
    History {
        /// For the answer.
        id: u64,
        /// Whose.
        timeline: Timeline,
    },
    /// On what the last verdict that differed from the one before was given: for the log at debug.
    Decided(Box<Snapshot>),
    /// A short change of a running server: answered by `Changed`.
    Change {
        /// For the answer.
        id: u64,
        /// What.
        change: Change,
    },
    /// Starts the one long task: answered by `TaskDone`.
    Task {
        /// For the answer.
        id: u64,
        /// What.
        task: Task,
    },
    /// Cancels the long task; `TaskDone` still comes.
    CancelTask {
        /// Id of the task.
        id: u64,
    },
    /// Asks a peer: `Peer` comes within `timeout_ms`.
    Ask {
        /// For the answer.
        id: u64,
        /// Whom.
        peer: Peer,
        /// What.
        question: Question,
        /// After which it counts as silent.
        timeout_ms: u64,
    },
    /// Answers a `Request`.
    Reply {
        /// Id of the request.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Send a `Tick` then. Replaces every earlier one.
    WakeAt(Boot),
    /// The configuration in force has changed: what the edge needs of it (methods, callbacks, recovery settings) it reads there.
    /// [`crate::config::effective`]: the dynamic one with the local one on top.
    Settings {
        /// All of it, sound.
        effective: Box<serde_json::Value>,
        /// Why values of it are not used, in sentences.
        problems: Vec<String>,
        /// The dynamic one alone, as it is stored; none: there is none yet.
        dynamic: Option<Box<serde_json::Value>>,
    },
    /// Runs a callback of the user's, if one is configured. Nobody waits for it; it ends a former one that still runs.
    Callback {
        /// What happened.
        action: Callback,
        /// The role: `primary`, `replica`, `standby_leader`.
        role: String,
    },
    /// What REST, probes and metrics show from now on.
    Publish(Arc<View>),
    /// A verdict that differs from the one before: to be logged once, with its inputs.
    Verdict {
        /// The rule's id.
        rule: &'static str,
        /// Why, in a sentence.
        reason: String,
    },
    /// A number that is stored cannot be right, and what comes of that, in a sentence: to be logged once, as a warning.
    Disbelieved(String),
    /// Nothing more to do in this pod: tell the supervisor, and end.
    Finish,
    /// The agent cannot go on; it exits with this sentence (the kubelet starts it again).
    Exit(String),
}

/// What the user's callbacks are told, by Patroni's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Callback {
    /// PostgreSQL was started, or an agent found it running.
    Start,
    /// It was stopped, on purpose.
    Stop,
    /// It was restarted, and its role is the same.
    Restart,
    /// It has read its configuration again.
    Reload,
    /// Its role is another.
    RoleChange,
}

impl Callback {
    /// The first argument, and the key in `postgresql.callbacks`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Stop => "on_stop",
            Self::Restart => "on_restart",
            Self::Reload => "on_reload",
            Self::RoleChange => "on_role_change",
        }
    }
}

/// One API verb on one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreCall {
    /// Answered by `Listed`.
    List {
        /// For the answer.
        id: u64,
        /// Which.
        kind: Kind,
    },
    /// From a list's resourceVersion on; ends the earlier watch of that kind. Bookmarks on.
    Watch {
        /// Which.
        kind: Kind,
        /// After this one.
        resource_version: String,
    },
    /// Answered by `Done`.
    Get {
        /// For the answer.
        id: u64,
        /// Which.
        kind: Kind,
        /// metadata.name
        name: String,
    },
    /// Answered by `Done`. Labels of the cluster are added by the driver.
    Create {
        /// For the answer.
        id: u64,
        /// Which.
        kind: Kind,
        /// metadata.name
        name: String,
        /// metadata.annotations
        annotations: BTreeMap<String, String>,
        /// metadata.ownerReferences: those of the objects that were there, so that nothing outlives its cluster.
        owners: Vec<serde_json::Value>,
    },
    /// A merge patch; answered by `Done`.
    Patch(Patch),
}

/// A merge patch of one object (a `null` deletes a key).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// For the answer.
    pub id: u64,
    /// Which.
    pub kind: Kind,
    /// metadata.name
    pub name: String,
    /// CAS on this, none: blind (pods).
    pub resource_version: Option<String>,
    /// metadata.annotations
    pub annotations: BTreeMap<String, Option<String>>,
    /// metadata.labels (pods' role; lock objects get the cluster's labels from the driver)
    pub labels: BTreeMap<String, Option<String>>,
    /// Endpoints (lock in Endpoints mode): whole `subsets`; slices: whole `endpoints`. One address or none.
    pub addresses: Option<Vec<String>>,
    /// After which it counts as unanswered.
    pub timeout_ms: u64,
}

/// What the whole of postgresql.conf and pg_hba.conf is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// From the dynamic configuration, checked and completed with what Matriarch controls, but for the three below.
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf from the dynamic configuration, before ours.
    pub pg_hba: Vec<String>,
    /// Lines of pg_ident.conf.
    #[serde(default)]
    pub pg_ident: Vec<String>,
    /// A primary: of these parameters it starts with no more than that, because standbys still run with less.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
    /// synchronous_standby_names
    pub sync_names: String,
    /// primary_conninfo and primary_slot_name; none: no upstream.
    pub upstream: Option<Upstream>,
    /// restore_command and its kin, from `recovery_conf`.
    pub recovery: BTreeMap<String, String>,
}

/// Whom a standby streams from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The member's name.
    pub member: String,
    /// DNS name (verified by TLS).
    pub host: String,
    /// Its address (primary_conninfo's hostaddr), so that no name has to be looked up.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// primary_slot_name: our slot on it; none without slots.
    pub slot: Option<String>,
}

/// A short change of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Write the files and reload; done when `synchronous_standby_names` and `primary_conninfo` show it.
    Configure(ServerConfig),
    /// Create, move and drop replication slots; what can be done of it is done.
    Slots(SlotPlan),
    /// CHECKPOINT (after a promotion, so that pg_control shows the new timeline; before a switchover).
    Checkpoint,
}

/// A long task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// initdb into a folder beside PGDATA, renamed when complete; or the configured command of a custom bootstrap. Starts nothing.
    Initdb,
    /// What a failed bootstrap has left in PGDATA is kept as `<pgdata>.failed`.
    MoveAside,
    /// After the first start as primary: roles, the application's database. Idempotent.
    PostBootstrap,
    /// A copy by the first of `create_replica_methods` that works. PGDATA is removed (the core has made sure that it is not the only
    /// copy, the edge asks the leader once more), pg_basebackup writes beside it, and the copy is renamed when complete.
    BaseBackup {
        /// From whom: the leader, or a member with the tag `clonefrom`.
        from: Upstream,
        /// The leader.
        leader: Upstream,
    },
    /// Copies the state of logical slots from the leader: a standby cannot make them. Stops and starts PostgreSQL, if there are any.
    CopySlots {
        /// The leader.
        from: Upstream,
        /// Which.
        slots: Vec<String>,
        /// With which it starts again.
        config: ServerConfig,
    },
    /// Compares the log of a running standby with the history of the remote cluster that it follows; nothing is changed. It fails for
    /// good where they have parted.
    Compare {
        /// The remote cluster.
        from: Upstream,
    },
    /// A copy by a method that needs no leader (`no_leader`), such as one from an archive.
    Restore,
    /// Compares the directory with the leader's history, and where it has left that, pg_rewind (which includes crash recovery in
    /// single-user mode if the shutdown was not clean).
    Rewind {
        /// From whom.
        from: Upstream,
        /// pg_rewind may be used; without it only a directory that has not diverged comes through.
        pg_rewind: bool,
    },
    /// Writes the files, removes or makes standby.signal, starts the postmaster, and is done when it accepts connections.
    StartPrimary {
        /// Its configuration.
        config: ServerConfig,
    },
    /// The same as a standby.
    StartStandby {
        /// Its configuration.
        config: ServerConfig,
    },
    /// Through the supervisor (which sets the latch); done when the server is out of recovery.
    Promote {
        /// The timeline that it is on.
        from: Timeline,
        /// The new timeline is at least this one: those in between may have been made by others.
        to: Timeline,
    },
    /// Stops the postmaster; done when no process is left.
    Stop {
        /// fast, or immediate.
        immediate: bool,
        /// CHECKPOINT first, while writes go on, so that the stop is short.
        checkpoint: bool,
        /// After which it becomes immediate.
        timeout_ms: u64,
    },
}

/// Where a peer's REST API is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub member: String,
    /// Its address; empty: that of `host`.
    pub ip: String,
    /// Port of api_url.
    pub port: u16,
    /// Host of api_url, verified by TLS.
    pub host: String,
}

/// What a peer is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// `GET /patroni`
    Status,
    /// `POST /election {"candidate": …}`: its position after its stream from the old primary has ended.
    Election {
        /// Us.
        candidate: String,
    },
    /// `POST /failsafe`: answered by `FailsafeAnswer`.
    Failsafe {
        /// Us.
        leader: String,
        /// Our pod.
        leader_uid: String,
        /// For how long we go on if all agree, counted from now.
        ttl_ms: u64,
    },
}

/// Answers to requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Patroni's codes and sentences.
    Text {
        /// HTTP status.
        code: u16,
        /// The body.
        text: String,
    },
    /// 200 with a document: the configuration after an edit.
    Document(serde_json::Value),
    /// To an election.
    Position(PeerAnswer),
    /// What a decision would look at now.
    Snapshot(Box<Snapshot>),
}
