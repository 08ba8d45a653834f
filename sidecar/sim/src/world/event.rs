//! What can happen next.

use matriarch_ha::effect::{Change, Task};
use matriarch_ha::event::{Event, PeerAnswer};
use matriarch_ha::types::Boot;

use crate::model::wal::Pos;

/// An event of the world. Processes are named with their incarnation: what was meant for an earlier one is lost.
#[derive(Debug)]
pub(crate) enum Ev {
    /// Something reaches an agent.
    Core { node: usize, agent: u32, event: Box<Event> },
    /// An agent's timer.
    Tick { node: usize, agent: u32, timer: u32 },
    /// The kubelet starts an agent.
    AgentStart { node: usize, pod: u32 },
    /// A request reaches the API server.
    Request(usize),
    /// Its answer reaches the agent.
    Answer(usize),
    /// The agent's client gives up.
    CallTimeout(usize),
    /// A watch delivers an entry of the log.
    Watch { stream: usize, index: usize },
    /// A watch breaks.
    WatchEnd { stream: usize },
    /// A question reaches a peer.
    AskArrives(usize),
    /// Its answer comes back.
    AskAnswered { ask: usize, answer: Box<Answer> },
    /// The asker gives up.
    AskTimeout(usize),
    /// A message reaches the supervisor or PostgreSQL beside it.
    Socket { node: usize, supervisor: u32, message: Box<Message> },
    /// The fence's timer.
    Fence { node: usize, supervisor: u32, timer: u32 },
    /// The container of PostgreSQL starts.
    SupervisorStart { node: usize, pod: u32 },
    /// The kubelet stops a deleted pod: SIGTERM to its supervisor.
    Sigterm { node: usize, pod: u32 },
    /// A supervisor that is to end looks whether its agent still speaks: since so many looks it does not.
    Alone { node: usize, supervisor: u32, silent: u32 },
    /// The next step of the long task.
    Task { node: usize, run: u32 },
    /// Something in a postmaster.
    Server { node: usize, server: u32, what: ServerEv },
    /// A client writes.
    Transaction,
    /// A fault of the plan.
    FaultBegins { op: usize, member: usize },
    /// It is over.
    FaultEnds { op: usize, node: usize, member: usize },
    /// A pod that was being deleted has ended.
    PodGone { node: usize, pod: u32 },
    /// A virtual second has passed.
    Second,
    /// The cluster outside has a transaction.
    SourceWrites,
}

/// What an agent tells its supervisor, or asks of PostgreSQL.
#[derive(Debug)]
pub(crate) enum Message {
    Permit { seq: u64, deadline: Option<Boot> },
    Inspect { agent: u32, id: u64 },
    Query { agent: u32, id: u64 },
    Change { agent: u32, id: u64, change: Change },
    Task { agent: u32, id: u64, task: Task },
    History { agent: u32, id: u64 },
    Cancel { agent: u32, id: u64 },
    Finish,
}

/// Of a peer.
#[derive(Debug)]
pub(crate) enum Answer {
    Position(PeerAnswer),
    Failsafe(Result<(), String>),
    Refused,
}

/// In a postmaster.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerEv {
    /// Recovery has come so far that it accepts connections.
    Ready,
    /// Local flush of everything up to here.
    Flushed(u64),
    /// A standby connects to its upstream.
    Connect(u32),
    /// WAL arrives at a standby.
    Wal { receiver: u32, pos: Pos, since: u64 },
    /// A standby's own flush.
    StandbyFlushed { receiver: u32, lsn: u64 },
    /// A standby's report reaches its upstream.
    Report { from: usize, receiver: u32, lsn: u64, since: u64 },
    /// The promotion is through.
    Promoted,
    /// A fast stop: time to look whether all is sent.
    Stopping,
    /// A reload is in force.
    Reloaded(u32),
    /// The checkpointer loads the setting.
    CheckpointerLoads,
    /// So does a walsender.
    SenderLoads { standby: usize, receiver: u32 },
    /// All processes are gone; true: the fence did it.
    Dead(bool),
}

impl Ev {
    /// Whose freezing holds this up.
    pub(crate) fn node(&self) -> Option<usize> {
        match self {
            Self::Core { node, .. }
            | Self::Tick { node, .. }
            | Self::Socket { node, .. }
            | Self::Fence { node, .. }
            | Self::Task { node, .. }
            | Self::AgentStart { node, .. }
            | Self::SupervisorStart { node, .. }
            | Self::Alone { node, .. }
            | Self::Server { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// For the hash of a run.
    pub(crate) fn code(&self) -> u64 {
        let (kind, node) = match self {
            Self::Core { node, .. } => (1, *node),
            Self::Tick { node, .. } => (2, *node),
            Self::AgentStart { node, .. } => (3, *node),
            Self::Request(n) => (4, *n),
            Self::Answer(n) => (5, *n),
            Self::CallTimeout(n) => (6, *n),
            Self::Watch { stream, .. } => (7, *stream),
            Self::WatchEnd { stream } => (8, *stream),
            Self::AskArrives(n) => (9, *n),
            Self::AskAnswered { ask, .. } => (10, *ask),
            Self::AskTimeout(n) => (11, *n),
            Self::Socket { node, .. } => (12, *node),
            Self::Fence { node, .. } => (13, *node),
            Self::SupervisorStart { node, .. } => (14, *node),
            Self::Task { node, .. } => (15, *node),
            Self::Server { node, .. } => (16, *node),
            Self::Transaction => (17, 0),
            Self::FaultBegins { op, .. } => (18, *op),
            Self::FaultEnds { op, .. } => (19, *op),
            Self::PodGone { node, .. } => (20, *node),
            Self::Second => (21, 0),
            Self::SourceWrites => (22, 0),
            Self::Sigterm { node, .. } => (23, *node),
            Self::Alone { node, .. } => (24, *node),
        };
        kind << 8 | (node as u64 & 0xff)
    }
}
