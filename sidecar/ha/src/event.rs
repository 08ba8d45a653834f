//! What can happen to a member: the inputs of [`crate::core::Core`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::Line;
use crate::slots::SlotStatus;
use crate::tags::Tags;
use crate::types::{Boot, Lsn, Timeline, Wall};

/// One thing that happened. Every answer carries the id of the effect that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The time asked for by [`crate::effect::Effect::WakeAt`] has come.
    Tick,
    /// The store said something.
    Store(StoreEvent),
    /// A supervisor is connected and has said what runs.
    Attached(Attached),
    /// The connection to the supervisor ended. Proves nothing about the postmaster.
    Detached,
    /// The supervisor has spawned a postmaster (the task that asked for it goes on).
    Started {
        /// Its pid.
        pid: u32,
    },
    /// The supervisor says that the postmaster and all its processes are gone.
    Exited {
        /// The postmaster's pid.
        pid: u32,
        /// Exit code or signal, for people.
        how: String,
        /// The exit code was 0.
        clean: bool,
        /// The fence stopped it.
        fenced: bool,
    },
    /// The supervisor has obeyed a permit ([`crate::effect::Effect::Permit`]).
    Permitted {
        /// Its number.
        seq: u64,
    },
    /// The fence closed; `Exited` follows.
    Fencing,
    /// The pod is being stopped.
    Terminating,
    /// What is in the data directory ([`crate::effect::Effect::Inspect`]).
    Inspected {
        /// Id of the effect.
        id: u64,
        /// What was found.
        found: DataDir,
    },
    /// The answer of one SELECT ([`crate::effect::Effect::Query`]).
    Queried {
        /// Id of the effect.
        id: u64,
        /// The server's state, or why it could not be asked.
        result: Result<ServerStatus, QueryError>,
    },
    /// A short change ([`crate::effect::Effect::Change`]) is done.
    Changed {
        /// Id of the effect.
        id: u64,
        /// Fine, or why not.
        result: Result<(), String>,
    },
    /// A long task ended ([`crate::effect::Effect::Task`]).
    TaskDone {
        /// Id of the effect.
        id: u64,
        /// Fine, or why not.
        result: Result<(), TaskError>,
    },
    /// The lines of a history file, the last one with its time ([`crate::effect::Effect::History`]).
    History {
        /// Id of the effect.
        id: u64,
        /// The lines, or why they could not be read.
        result: Result<Vec<Line>, String>,
    },
    /// Which parameters of the configuration PostgreSQL cannot use was looked at again.
    Parameters {
        /// Name to a sentence that says what to do; empty: all can be used.
        invalid: BTreeMap<String, String>,
    },
    /// What became of declared roles and databases; none: nothing is declared, or we do not lead.
    Declared(Option<Declared>),
    /// Our own configuration was read again.
    Local(Box<Local>),
    /// The dynamic configuration that was last in force here, from the data directory.
    Cached(Box<serde_json::Value>),
    /// A peer answered a probe, or did not.
    Peer {
        /// Id of the effect.
        id: u64,
        /// Who was asked.
        member: String,
        /// What it said, or why nothing came.
        result: Result<PeerAnswer, String>,
    },
    /// A member answered the leader's failsafe call, or did not.
    FailsafeAnswer {
        /// Id of the effect.
        id: u64,
        /// Who was asked.
        member: String,
        /// It accepted; a refusal or no answer is an error with its reason.
        result: Result<(), String>,
    },
    /// A REST request that the core must answer ([`crate::effect::Effect::Reply`] with the same id).
    Request {
        /// Chosen by the driver.
        id: u64,
        /// What is asked.
        request: Request,
    },
}

/// What became of the roles, databases, schemas and extensions that are declared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Which version of them was applied.
    pub generation: String,
    /// Objects that are not as declared, such as `role/x`, and why.
    pub failed: BTreeMap<String, String>,
}

/// What of our own configuration may change while we run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Section `postgresql`, which wins over the dynamic one's.
    pub section: serde_json::Value,
    /// What this member may be used for.
    pub tags: Tags,
    /// What others connect to.
    pub conn_url: String,
    /// The same through a pooler or balancer (`postgresql.proxy_address`).
    pub proxy_url: Option<String>,
    /// Where our REST API is.
    pub api_url: String,
}

/// Why a parameter waits for a restart: Patroni's `pending_restart_reason`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// With which the server runs.
    pub old_value: String,
    /// With which it would start.
    pub new_value: String,
}

/// How a call of the store ended, or what a watch said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreEvent {
    /// Answer to a list.
    Listed {
        /// Id of the effect.
        id: u64,
        /// Which objects.
        kind: Kind,
        /// All there are, and the resourceVersion of the list.
        result: Result<(Vec<Object>, String), StoreError>,
    },
    /// A watch delivered an object that was added or changed.
    Applied(Kind, Object),
    /// A watch said that an object is gone.
    Deleted(Kind, Object),
    /// A watch delivered a bookmark: proof of life and a newer resourceVersion.
    Bookmark(Kind, String),
    /// A watch ended. Not an error by itself: list again, or watch on from the last resourceVersion.
    WatchEnded(Kind, Option<StoreError>),
    /// Answer to get, create or patch.
    Done {
        /// Id of the effect.
        id: u64,
        /// The object as the API server returned it.
        result: Result<Object, StoreError>,
    },
}

/// The kinds of objects that an agent watches or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// ConfigMaps or Endpoints, as the mode says: lock, config, failover, sync.
    Lock,
    /// The members.
    Pod,
    /// The leader's EndpointSlice.
    Slice,
}

/// A Kubernetes object, as far as the agent cares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion; opaque but for equality, and compared as an integer where Patroni does.
    pub resource_version: String,
    /// metadata.labels
    pub labels: BTreeMap<String, String>,
    /// metadata.annotations
    pub annotations: BTreeMap<String, String>,
    /// Pods: status.podIP.
    pub ip: Option<String>,
    /// metadata.deletionTimestamp is set.
    pub deleting: bool,
    /// metadata.ownerReferences, as they are.
    pub owners: Vec<serde_json::Value>,
    /// Endpoints: addresses of its subsets. Slices: addresses of its endpoints.
    pub addresses: Vec<String>,
}

/// Why a call of the store failed, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreError {
    /// 409: somebody else moved (or it exists already).
    Conflict,
    /// 404.
    NotFound,
    /// 410, or a watch's ERROR with that code: list again.
    Gone,
    /// 403, with the API server's sentence (names verb and resource).
    Forbidden(String),
    /// Another answer: its code and text; the seconds of a retry-after header.
    Status(u16, String, Option<u32>),
    /// No answer: connection refused, broken, timed out. Whether a write happened is unknown.
    Unreachable(String),
}

/// The supervisor's state at the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Random, new for every supervisor: another one means that all processes of the former are gone
    /// (same pod and same pid namespace only).
    pub instance: String,
    /// Pid of the running postmaster.
    pub postmaster: Option<u32>,
    /// The running postmaster is or may become primary.
    pub latched: bool,
    /// When the fence closes; none: lifted.
    pub deadline: Option<Boot>,
    /// Highest permit that the supervisor has seen; ours must be above it.
    pub permit_seq: u64,
    /// SIGTERM was received before.
    pub terminating: bool,
    /// Major and minor of PostgreSQL such as `15.18`; none: the image has none.
    pub version: Option<String>,
}

/// What is in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataDir {
    /// Nothing, or no such folder.
    Empty,
    /// Something without a readable pg_control or PG_VERSION; with what `pg_controldata` said.
    Broken(String),
    /// A data directory.
    Present(ControlData),
    /// Could not be looked at (hanging disk, supervisor away).
    Unknown(String),
}

/// From `pg_controldata`, and whether standby.signal is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// Database system identifier.
    pub system_id: String,
    /// `Database cluster state`, such as `in production`, `shut down`, `shut down in recovery`, `in archive recovery`.
    pub state: String,
    /// Latest checkpoint's TimeLineID.
    pub timeline: Timeline,
    /// Latest checkpoint location.
    pub checkpoint: Lsn,
    /// Minimum recovery ending location.
    pub min_recovery: Lsn,
    /// standby.signal exists.
    pub standby_signal: bool,
}

/// One SELECT's worth of the server's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// pg_is_in_recovery()
    pub in_recovery: bool,
    /// system_identifier of pg_control_system().
    pub system_id: String,
    /// Primary: current timeline (from pg_walfile_name); standby: received_tli of the WAL receiver, else that of pg_control_checkpoint().
    pub timeline: Timeline,
    /// Timeline of the last checkpoint, of pg_control_checkpoint(); 0 is unknown.
    pub checkpoint_timeline: Timeline,
    /// Primary: pg_current_wal_flush_lsn().
    pub flush: Lsn,
    /// Standby: pg_last_wal_receive_lsn(), 0 without.
    pub received: Lsn,
    /// Standby: pg_last_wal_replay_lsn(), 0 without.
    pub replayed: Lsn,
    /// Standby: the startup process waits for more WAL, so `replayed` is the end of what is here. A standby that has just started
    /// replays what it has, and until then it has more than it says.
    pub replay_waits: bool,
    /// Standby: the WAL receiver runs and is `streaming`.
    pub streaming: bool,
    /// Standby: sender_host of the WAL receiver.
    pub upstream: Option<String>,
    /// Standby: a restore_command is there, so what is not streamed comes from an archive.
    pub from_archive: bool,
    /// Standby: the upstream's end as the WAL receiver last heard of it (latest_end_lsn), 0 without.
    pub upstream_end: Lsn,
    /// Standby: pg_last_xact_replay_timestamp()
    pub replayed_at: Option<Wall>,
    /// Standby: a person has paused the replay.
    pub replay_paused: bool,
    /// pg_postmaster_start_time(), ISO 8601.
    pub started: String,
    /// server_version_num
    pub version: u32,
    /// SHOW synchronous_standby_names
    pub sync_names: String,
    /// Primary: the checkpointer waits for work, so it has loaded the configuration of a moment ago. It is the checkpointer that tells
    /// sessions whether their commits wait for standbys at all.
    #[serde(default)]
    pub checkpointer_waits: bool,
    /// SHOW primary_conninfo is not empty.
    pub has_conninfo: bool,
    /// pg_stat_replication: who streams from this server.
    pub standbys: Vec<StandbyStatus>,
    /// Replication slots, but temporary ones.
    pub slots: Vec<SlotStatus>,
    /// Parameters that wait for a restart.
    pub pending_restart: BTreeMap<String, Pending>,
}

/// A row of pg_stat_replication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// application_name: the member's name.
    pub member: String,
    /// streaming, catchup …
    pub state: String,
    /// sync, quorum, potential, async.
    pub sync_state: String,
    /// flush_lsn
    pub flush: Lsn,
    /// sync_priority
    #[serde(default)]
    pub sync_priority: i32,
    /// usename
    #[serde(default)]
    pub user: String,
    /// client_addr; none: over a unix socket.
    #[serde(default)]
    pub address: Option<String>,
}

impl ServerStatus {
    /// How a standby gets its WAL, in Patroni's words; none: it is none, or gets none.
    pub fn replication_state(&self) -> Option<&'static str> {
        match self.in_recovery {
            true if self.streaming => Some("streaming"),
            true if self.from_archive => Some("in archive recovery"),
            _ => None,
        }
    }
}

/// Why the server could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryError {
    /// `the database system is starting up` (57P03): it runs, but not yet.
    Starting,
    /// Anything else.
    Failed(String),
}

/// How a long task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskError {
    /// Cancelled by the core.
    Cancelled,
    /// The supervisor refused for want of a permit.
    NoPermit,
    /// For people: the first useful line of what the program said.
    Failed(String),
    /// The same, and another try would end no better: the bootstrap of a cluster is given up.
    Hopeless(String),
    /// This member may not lead now: `pre_promote` said no, or the watchdog that is required cannot be armed. PostgreSQL is as it was.
    Forbidden(String),
}

/// What a member says when it is asked (`GET /patroni`, `POST /election`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// PostgreSQL runs and answers queries.
    pub running: bool,
    /// It is not in recovery.
    pub primary: bool,
    /// Primary: flush LSN; standby: the larger of received and replayed.
    pub lsn: Lsn,
    /// Its timeline.
    pub timeline: Timeline,
    /// Its system identifier.
    pub system_id: String,
    /// Its pod's uid.
    pub pod_uid: String,
    /// It never takes part.
    pub nofailover: bool,
    /// Of two that are equally far the higher one leads.
    #[serde(default)]
    pub failover_priority: i64,
    /// Nothing here is or may become writable, by the supervisor's word: no postmaster, or a standby that nobody promotes.
    #[serde(default)]
    pub demoted: bool,
    /// The lock is free for it, too (elections).
    #[serde(default)]
    pub free: bool,
    /// It promised the former leader to leave the lock alone, and that leader may go on (elections).
    #[serde(default)]
    pub promised: bool,
    /// Its stream from the old primary has ended, and it will take none before it sees a new leader (elections).
    pub stream_ended: bool,
    /// A standby that streams.
    #[serde(default)]
    pub streaming: bool,
    /// It has data, and will know how far it is when its server has started (elections).
    #[serde(default)]
    pub starting: bool,
    /// It runs Patroni, which ends no streams for an election.
    #[serde(default)]
    pub patroni: bool,
}

impl PeerAnswer {
    /// It is where a leader has to be for others to copy or compare: primary, or standby leader of a standby cluster.
    pub fn leads(&self, standby_cluster: bool) -> bool {
        self.primary || (standby_cluster && self.running)
    }
}

/// A request over REST that changes something or needs the core's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// `POST /switchover`: validated by the core, written to the failover object, answered when it is done.
    Switchover {
        /// Who must be the leader now.
        leader: Option<String>,
        /// Who shall be.
        candidate: Option<String>,
        /// When; none: now.
        scheduled_at: Option<Wall>,
    },
    /// `POST /restart`
    Restart(RestartOrder),
    /// `DELETE /restart`: a scheduled one shall not be done.
    CancelRestart,
    /// `POST /reinitialize`: this member's data is thrown away and copied anew.
    Reinitialize {
        /// Whatever is going on is cancelled.
        force: bool,
        /// Not from a member tagged clonefrom.
        from_leader: bool,
    },
    /// `GET /snapshot`
    Snapshot,
    /// `PATCH /config`: merged into the stored configuration, see [`crate::config_edit::patch`].
    PatchConfig(serde_json::Map<String, serde_json::Value>),
    /// `PUT /config`: stored instead of it.
    ReplaceConfig(serde_json::Map<String, serde_json::Value>),
    /// `DELETE /switchover`: a scheduled one shall not be done.
    CancelSwitchover,
    /// `POST /election`: a candidate asks for our position; our stream from the old primary ends first.
    Election {
        /// Who asks.
        candidate: String,
    },
    /// `POST /failsafe`: the leader, cut off from the API server, asks whether it may go on.
    Failsafe {
        /// Who asks.
        leader: String,
        /// The pod uid of who asks.
        leader_uid: String,
        /// For how long it will go on if all agree: so long the promise has to hold. 0: it did not say (Patroni).
        ttl_ms: u64,
    },
}

/// A restart as it was asked for: when, and under which conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartOrder {
    /// When; none: now.
    pub schedule: Option<Wall>,
    /// Only in this role: primary, standby_leader or replica.
    pub role: Option<String>,
    /// Only below this version, such as `15.4`.
    pub postgres_version: Option<String>,
    /// The start may take so long, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Only if a parameter waits for it.
    pub restart_pending: bool,
}

/// The clocks at one moment; every event comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For every decision.
    pub boot: Boot,
    /// Only to be written down.
    pub wall: Wall,
}
