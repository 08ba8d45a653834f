//! The messages between the agent and the supervisor, and how they are framed on the unix socket.
//!
//! A frame is a length (u32, big endian, at most [`MAX_FRAME`]) and that many bytes of JSON: a [`Call`] from the agent,
//! a [`Message`] from the supervisor. Both sides ignore unknown fields and refuse unknown variants with an error that
//! names the versions, so that an agent and a supervisor two releases apart understand each other. The first call on a
//! connection is [`Request::Hello`].
//!
//! Calls are answered in any order: every call has an id of the caller's, and every answer carries it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of these messages. Compatible changes (a new optional field) keep it.
pub const PROTOCOL: u32 = 1;
/// The oldest version that this one still understands.
pub const OLDEST: u32 = 1;
/// Longest frame, in bytes. Longer output of tools is cut into several [`Message::Output`].
pub const MAX_FRAME: usize = 1 << 20;

/// What the agent asks, with the id that the answer will carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the agent, unique on its connection.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// Everything that can be asked of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// First on every connection: answered by [`Answer::Hello`]. A newer connection replaces the older one.
    Hello {
        /// [`PROTOCOL`] of the agent.
        protocol: u32,
        /// `/proc/sys/kernel/random/boot_id` as the agent sees it: clocks are only comparable when equal.
        boot_id: String,
        /// `CLOCK_BOOTTIME` of the agent, in microseconds, when it sent this.
        now_us: u64,
    },
    /// A primary may run until `deadline_us` (`CLOCK_BOOTTIME`, microseconds). Answered at once, without I/O.
    /// A permit whose `seq` is not above every earlier one is refused; an agent goes on from [`Status::permit_seq`].
    Permit {
        /// Grows with every permit.
        seq: u64,
        /// When the fence closes. May lie before an earlier one (a release takes the rest of a permit back).
        deadline_us: u64,
    },
    /// No deadline until the next permit: pause mode, a person is at the keyboard.
    LiftFence {
        /// Shares its sequence with permits.
        seq: u64,
    },
    /// What runs now: [`Answer::Status`].
    Status,
    /// Starts the postmaster and answers when it is spawned (not when it accepts connections).
    Start(Start),
    /// Stops the postmaster; answered when no process of it is left (ECHILD).
    Stop {
        /// The first signal.
        mode: StopMode,
        /// After so many milliseconds an immediate stop follows, 300 ms later SIGKILL to all that is left.
        timeout_ms: u64,
    },
    /// Sets the latch, then asks the running standby to promote (as `pg_ctl promote -W` does). Refused without a
    /// permit that still holds. May be asked again.
    Promote,
    /// SIGHUP to the postmaster.
    Reload,
    /// The hardware watchdog that guards a writable postmaster from the next start as primary or promotion on; none: no watchdog.
    /// It is opened with the latch, kept alive by every permit, and let go when PostgreSQL has ended or the fence is lifted.
    Guard {
        /// Which.
        watchdog: Option<Watchdog>,
    },
    /// Runs a program of PostgreSQL's bin folder; output comes as [`Message::Output`], the end as [`Answer::Done`].
    Run(Run),
    /// Runs a command of the user's (a callback, a bootstrap or clone script), as PostgreSQL's user in PostgreSQL's container;
    /// output and end as with [`Request::Run`].
    Command(UserCommand),
    /// Kills the process group of a running [`Request::Run`] or [`Request::Command`] (its answer still comes) by SIGTERM, then SIGKILL. Ends a
    /// hanging file operation as well.
    Cancel {
        /// Id of the call that started it.
        call: u64,
    },
    /// One operation on files below the data volume, in a child of its own.
    File(FileOp),
    /// After [`Notice::Terminating`]: nothing is left to do, the supervisor may exit.
    Finish,
}

/// A watchdog device: whoever opens it must write to it again and again, or the machine is reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// Such as /dev/watchdog.
    pub device: PathBuf,
    /// Seconds without a sign of life after which it resets.
    pub timeout_s: u32,
    /// Without it nothing is started as primary or promoted.
    pub required: bool,
}

/// How a postmaster starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// As what it starts. A primary needs a permit that still holds and sets the latch.
    pub role: StartRole,
    /// The data directory. The supervisor makes it 0700, takes the lock beside it, and refuses without either.
    pub data_dir: PathBuf,
    /// Arguments after `postgres -D <data_dir>`.
    pub args: Vec<String>,
    /// Added to the cleaned environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// As what a postmaster starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartRole {
    /// No standby.signal: it will accept writes.
    Primary,
    /// Needs standby.signal in the data directory, else it is refused.
    Standby,
}

/// PostgreSQL's shutdown modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// SIGINT.
    Fast,
    /// SIGQUIT.
    Immediate,
}

/// A program of PostgreSQL's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// File name in the bin folder, such as `initdb`, `pg_basebackup`, `pg_rewind`, `pg_controldata`, `postgres`
    /// (`--single` only). Anything with a slash is refused.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the cleaned environment (PGPASSWORD, PGOPTIONS …). Never logged.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Written to its standard input, which is then closed.
    #[serde(default)]
    pub stdin: String,
}

/// A command of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCommand {
    /// The program, as a path or a name in PATH, and its arguments.
    pub argv: Vec<String>,
    /// Added to the supervisor's environment, less what Kubernetes, Patroni and Matriarch put there. Never logged.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The data directory that it fills: locked as long as it or a child of it runs.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
}

/// File operations; every path is absolute and below the supervisor's data volume, without `..`. Files right in the folder of the
/// configuration that the supervisor was started with may be read and written as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "file", rename_all = "snake_case")]
pub enum FileOp {
    /// Content as text, or `None` where there is no such file. At most 512 KiB.
    Read {
        /// Which.
        path: PathBuf,
    },
    /// Atomically: temporary file, fsync, rename, fsync of the folder. Parents are made (0700).
    Write {
        /// Which.
        path: PathBuf,
        /// Whole content.
        content: String,
        /// Permission bits.
        mode: u32,
    },
    /// The same with bytes, as hexadecimal digits.
    WriteHex {
        /// Which.
        path: PathBuf,
        /// Whole content.
        hex: String,
        /// Permission bits.
        mode: u32,
    },
    /// Removes a file; none there is fine.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Renames a file or folder and fsyncs the folder; the target must not exist.
    Rename {
        /// What.
        from: PathBuf,
        /// To what.
        to: PathBuf,
    },
    /// Removes a folder with all below it. Refused while a postmaster runs in it. None there is fine.
    RemoveTree {
        /// Which.
        path: PathBuf,
    },
    /// Names in a folder, or `None` where there is no such folder.
    List {
        /// Which.
        path: PathBuf,
    },
}

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Message {
    /// The end of a call.
    Reply {
        /// The call's id.
        id: u64,
        /// What came of it.
        answer: Answer,
    },
    /// A piece of a running program's output (text, lossy UTF-8).
    Output {
        /// The call's id.
        id: u64,
        /// Where it was written.
        stream: Stream,
        /// The text, not aligned to lines.
        text: String,
    },
    /// Something that nobody asked for.
    Notice(Notice),
}

/// Which standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `Hello`.
    Hello(Hello),
    /// To `Status`.
    Status(Status),
    /// Done, nothing to add.
    Ok,
    /// To `Start`.
    Started {
        /// The new postmaster.
        postmaster: Postmaster,
    },
    /// To `Run`: how the program ended.
    Done {
        /// Its exit code, none when a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// To `Read`.
    Content {
        /// The text, none where there is no file.
        content: Option<String>,
    },
    /// To `List`.
    Names {
        /// The names, sorted, none where there is no folder.
        names: Option<Vec<String>>,
    },
    /// Not done, and nothing was changed by it unless the text says so.
    Refused {
        /// A kind that the agent can decide by.
        kind: Refusal,
        /// What a person should know.
        message: String,
    },
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The fence is closed or no permit was given.
    NoPermit,
    /// A postmaster runs already, or none runs.
    WrongState,
    /// Another process holds the lock beside the data directory.
    Locked,
    /// The image has no such program, or the folder is not as it has to be.
    NotFound,
    /// The watchdog is required, and cannot be had.
    Watchdog,
    /// The operating system said no.
    Io,
    /// A path outside the volume, a bad argument, an unknown request, a version too far away.
    Invalid,
}

/// The supervisor's side of the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the supervisor.
    pub protocol: u32,
    /// Random, new for every start of the supervisor: another one means that all processes of the former are gone.
    pub instance: String,
    /// Boot id as the supervisor sees it.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` in microseconds.
    pub now_us: u64,
    /// The folder of PostgreSQL's programs; none: the image has no PostgreSQL.
    pub bin_dir: Option<PathBuf>,
    /// Text of `postgres --version`.
    pub version: Option<String>,
    /// What runs.
    pub status: Status,
}

/// What runs under the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The running postmaster.
    pub postmaster: Option<Postmaster>,
    /// The last one that ended.
    pub last_exit: Option<Exited>,
    /// The latch: the running postmaster is or may become primary.
    pub latched: bool,
    /// When the fence closes; none: lifted; 0: no permit was ever given.
    pub deadline_us: Option<u64>,
    /// Highest sequence number of a permit.
    pub permit_seq: u64,
    /// SIGTERM was received.
    pub terminating: bool,
    /// Programs that run, of this agent or of one before it: they go on when an agent goes, and keep the directory that
    /// they write into locked. [`Request::Cancel`] ends them by the call's id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
}

/// A running program of PostgreSQL's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Id of the call that started it, on the connection of its time.
    pub call: u64,
    /// Its name.
    pub program: String,
    /// The directory that it writes into.
    pub data_dir: Option<PathBuf>,
}

/// A postmaster, identified so that a recycled pid is never taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postmaster {
    /// Process id in the supervisor's pid namespace.
    pub pid: u32,
    /// Field 22 of /proc/pid/stat: clock ticks since boot.
    pub start_ticks: u64,
    /// As what it was started.
    pub role: StartRole,
    /// `CLOCK_BOOTTIME` when it was started, microseconds.
    pub started_us: u64,
}

/// A postmaster that ended, with all of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Which.
    pub postmaster: Postmaster,
    /// Its exit code, none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The fence stopped it.
    pub fenced: bool,
    /// `CLOCK_BOOTTIME` when waitpid had nothing left, microseconds.
    pub at_us: u64,
}

/// What the supervisor tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// The postmaster and every process below it are gone.
    Exited(Exited),
    /// A person started a server in the data directory: it was taken up, and is answered for from now on.
    Adopted(Postmaster),
    /// The fence closed: PostgreSQL is being stopped ([`Notice::Exited`] follows).
    Fencing {
        /// The deadline that passed.
        deadline_us: u64,
    },
    /// SIGTERM: the pod is being stopped. The agent answers with calls (at least one every 5 s) and, at the end, `Finish`.
    Terminating,
}
