//! A plan: everything that a run is made of. A seed becomes a plan, a plan is run; a plan can be cut down, stored and read.

use serde::{Deserialize, Serialize};

/// Replication before acknowledgement, as the cluster's configuration asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `synchronous_mode: off`
    Async,
    /// `synchronous_mode: on`
    Priority,
    /// `synchronous_mode: quorum`
    Quorum,
}

/// The cluster and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How many members.
    pub members: usize,
    /// Replication before acknowledgement.
    pub durability: Durability,
    /// `synchronous_node_count`
    pub sync_count: usize,
    /// `synchronous_mode_strict`
    #[serde(default)]
    pub strict: bool,
    /// `ttl`, seconds.
    pub ttl: u64,
    /// `loop_wait`, seconds.
    pub loop_wait: u64,
    /// `retry_timeout`, seconds.
    pub retry_timeout: u64,
    /// `failsafe_mode`
    pub failsafe: bool,
    /// The lock lies in Endpoints.
    pub endpoints: bool,
    /// Faults come for so long, milliseconds.
    pub chaos_ms: u64,
    /// A member's clock is off by so many parts per million.
    pub drift_ppm: Vec<i64>,
    /// Transactions a minute.
    pub transactions: u64,
    /// One way to the API server, microseconds: mean.
    pub api_us: u64,
    /// One way between members, microseconds: mean.
    pub peer_us: u64,
    /// A flush of WAL, microseconds: mean.
    pub flush_us: u64,
    /// A watch lags behind by so much, microseconds: mean.
    pub watch_us: u64,
    /// Tags of members, by index; those without any are left out at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<serde_json::Value>,
    /// More of the dynamic configuration.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub more: serde_json::Map<String, serde_json::Value>,
    /// Everything is as fast as it should be but for one fault, whose outage is measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calm: bool,
    /// There is a cluster outside, and this one begins as a standby cluster that follows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub source: bool,
    /// After all is whole again it is left alone for so long, milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub quiet_ms: u64,
    /// Only this part of the members is healed at first (indices); empty: all at once.
    pub core: Vec<usize>,
}

/// One fault or command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// When it begins.
    pub when: When,
    /// What.
    pub what: Fault,
    /// How long it lasts, milliseconds; 0 for what happens at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lasts_ms: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// When a fault begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Milliseconds after the beginning of chaos.
    At(u64),
    /// So many microseconds after the nth time since then that something happened.
    After {
        /// What.
        probe: Probe,
        /// Counted from 1.
        nth: u32,
        /// Microseconds.
        delay_us: u64,
    },
}

/// What a fault can wait for. The member that did it is the fault's member when that is [`ANYBODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A renewal left.
    RenewalSent,
    /// A renewal was applied.
    RenewalApplied,
    /// The lock was taken.
    AcquireApplied,
    /// The lock was released.
    ReleaseApplied,
    /// A promotion was asked for.
    PromoteSent,
    /// `/sync` was written.
    SyncApplied,
    /// `synchronous_standby_names` came into force.
    NamesLoaded,
    /// A data directory is about to be removed or rewound.
    WipeSent,
    /// A stop was asked for.
    StopSent,
    /// An election's questions left.
    RoundOpened,
    /// Failsafe questions left.
    FailsafeSent,
}

/// Number of probes.
pub(crate) const PROBES: usize = 11;

/// In place of a member: the one that did what the probe saw; without a probe, the leader.
pub const ANYBODY: usize = 99;

/// What can go wrong, and what people can do. Numbers are members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL to the agent.
    AgentKill(usize),
    /// SIGSTOP to the agent, SIGCONT at the end.
    AgentStop(usize),
    /// The agent takes so many milliseconds for everything.
    AgentSlow(usize, u64),
    /// SIGKILL to the postmaster.
    PostmasterKill(usize),
    /// The container of PostgreSQL dies with all its processes.
    ContainerKill(usize),
    /// All processes of the pod die.
    PodKill(usize),
    /// The pod is deleted in order; another of its name comes with the same volume.
    PodDelete(usize),
    /// The cgroup of the pod is frozen.
    PodFreeze(usize),
    /// The node loses its power, and what was not flushed; it is back at the end.
    NodeCrash(usize),
    /// The pod object is replaced; the old processes live on, cut off, until the end; the new pod has an empty volume.
    PodReplace(usize),
    /// Neither API server nor peers reach the member, nor it them.
    Cut(usize),
    /// The member cannot reach the API server.
    CutApi(usize),
    /// The two members cannot reach each other.
    CutPeers(usize, usize),
    /// The second cannot hear the first.
    CutOneWay(usize, usize),
    /// The API server is away.
    ApiDown,
    /// It takes so many milliseconds more.
    ApiSlow(u64),
    /// So many of a thousand answers are lost after the write was applied.
    ApiLoseAnswers(u64),
    /// So many of a thousand requests are refused with 429 or 503.
    ApiErrors(u64),
    /// So many of a thousand requests of the member arrive late: up to the length of the fault, also after it was given up.
    ApiLate(usize, u64),
    /// All watches end.
    WatchesEnd,
    /// The member's watches say nothing more, but live.
    WatchMute(usize),
    /// The member's watches lag behind by so many milliseconds.
    WatchLag(usize, u64),
    /// The rate of the member's clock.
    ClockRate(usize, i64),
    /// The member's wall clock jumps by so many seconds.
    WallJump(usize, i64),
    /// The hypervisor stops the member, its boot clock too. Breaks an assumption of safety.
    ClockStop(usize),
    /// A flush takes so many milliseconds.
    DiskSlow(usize, u64),
    /// The pod and its volume are lost; another pod comes with an empty one.
    VolumeLost(usize),
    /// A standby receives nothing, though connected.
    StreamStuck(usize),
    /// The lock object is deleted by hand.
    LockDeleted,
    /// A switchover to the member is asked for.
    Switchover(usize),
    /// A failover to the member is asked for.
    Failover(usize),
    /// A restart of the member is ordered.
    Restart(usize),
    /// The same, in so many seconds.
    RestartLater(usize, u64),
    /// A new copy of the member is ordered.
    Reinitialize(usize),
    /// A switchover to the member is asked for, in so many seconds.
    SwitchoverLater(usize, u64),
    /// PostgreSQL cannot be started.
    StartsFail(usize),
    /// Recovery takes as long as the fault.
    SlowStart(usize),
    /// The data directory is removed under a running PostgreSQL.
    DataLost(usize),
    /// Automatic failover is switched off, and on again at the end.
    Pause,
    /// A person fences the member, and lifts that at the end.
    Fence(usize),
    /// The configuration asks for this durability until the end.
    Durability(Durability),
    /// The configuration's ttl, seconds, until the end.
    Ttl(u64),
    /// `synchronous_node_count` until the end.
    SyncCount(usize),
    /// The configuration loses its `standby_cluster`: the cluster is promoted as a whole.
    PromoteCluster,
    /// It gets it (again): the cluster follows the one outside, and what it wrote alone goes.
    DemoteCluster,
    /// The cluster outside is away.
    SourceDown,
    /// Its flushes take so many milliseconds.
    SourceSlow(u64),
    /// It has a failover of its own, which loses so many bytes.
    SourceFailover(u64),
    /// The member cannot reach it.
    CutSource(usize),
}

/// A run, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Keys all draws of the run.
    pub seed: u64,
    /// The cluster and its surroundings.
    pub config: Config,
    /// Faults and commands.
    pub ops: Vec<Op>,
}

impl Config {
    /// A calm three-member cluster, for directed tests.
    pub fn calm(members: usize, durability: Durability) -> Self {
        Self {
            members,
            durability,
            sync_count: 1,
            strict: false,
            ttl: 10,
            loop_wait: 2,
            retry_timeout: 3,
            failsafe: true,
            endpoints: false,
            chaos_ms: 30_000,
            drift_ppm: vec![0; members],
            transactions: 600,
            api_us: 2_000,
            peer_us: 300,
            flush_us: 1_000,
            watch_us: 1_000,
            tags: Vec::new(),
            more: serde_json::Map::new(),
            calm: false,
            source: false,
            quiet_ms: 0,
            core: Vec::new(),
        }
    }
}
