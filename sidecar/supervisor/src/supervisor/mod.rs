//! What runs, who asked for it, and what has to happen next: the supervisor's state and its answers.

mod agent;
mod calls;
mod children;
mod strangers;
mod time;
mod tools;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use matriarch_ha::fence::{Fence, FenceError, Permit};
use matriarch_supervisor::protocol::{Answer, Exited, Postmaster, Refusal, Request, Status};

use crate::adopt::Watch;
use crate::child::{Caller, Child};
use crate::connection::Connection;
use crate::log::Log;
use crate::programs::Programs;
use crate::stopping::Stopping;
use crate::watchdog::Watchdog;
use crate::{programs, sys};

/// The command line.
#[derive(Debug)]
pub struct Options {
    /// The data volume.
    pub volume: PathBuf,
    /// Where to listen.
    pub socket: PathBuf,
    /// Who may connect.
    pub agent_uid: u32,
    /// Where PostgreSQL's programs are; none: they are looked for.
    pub bin_dir: Option<PathBuf>,
    /// What programs are called there, where that is not PostgreSQL's own name.
    pub bin_names: BTreeMap<String, String>,
    /// Where a server may run already.
    pub data_dir: Option<PathBuf>,
    /// Where its configuration files are, if not below the volume.
    pub config_dir: Option<PathBuf>,
    /// Where versions of PostgreSQL are looked for that are not in PATH.
    pub versions: PathBuf,
    /// Not in a container of its own: it ends when there is neither an agent nor anything to watch over.
    pub detached: bool,
}

/// The postmaster, from the start of its launch until none of its processes is left.
#[derive(Debug)]
struct Running {
    postmaster: Postmaster,
    data_dir: PathBuf,
    /// Who waits for its start.
    starter: Option<Caller>,
    /// It became PostgreSQL.
    executed: bool,
    /// Why it did not.
    refusal: Option<Answer>,
    /// The process itself ended: code and signal. Others may be left.
    ended: Option<(Option<i32>, Option<i32>)>,
    /// Who waits for its end.
    stoppers: Vec<Caller>,
    /// A person started it: it is nobody's child of ours, and what it is may change without us.
    adopted: bool,
}

impl Running {
    fn pid(&self) -> i32 {
        i32::try_from(self.postmaster.pid).unwrap_or(0)
    }
}

/// SIGTERM was received.
#[derive(Debug, Default)]
struct Termination {
    /// The agent said that nothing is left to do, or was silent.
    leaving: bool,
}

/// All there is.
#[derive(Debug)]
pub struct Supervisor {
    options: Options,
    instance: String,
    boot_id: String,
    programs: Option<Programs>,
    version: Option<String>,
    /// Process 1 of its pid namespace.
    init: bool,
    log: Log,
    fence: Fence,
    watchdog: Watchdog,
    stopping: Stopping,
    running: Option<Running>,
    last_exit: Option<Exited>,
    children: BTreeMap<i32, Child>,
    connections: Vec<Connection>,
    /// The one connection that is obeyed and told.
    agent: Option<u64>,
    calls: Vec<(Caller, Request)>,
    last_heard: u64,
    termination: Option<Termination>,
    watch: Watch,
}

fn refused(kind: Refusal, message: impl Into<String>) -> Answer {
    Answer::Refused { kind, message: message.into() }
}

fn fenced(error: FenceError) -> Answer {
    let kind = match error {
        FenceError::OldSequence { .. } => Refusal::Invalid,
        FenceError::NoPermit | FenceError::Ended { .. } | FenceError::Closing => Refusal::NoPermit,
    };
    refused(kind, error.to_string())
}

fn no_postgres() -> Answer {
    let path = std::env::var("PATH").unwrap_or_default();
    refused(Refusal::NotFound, format!("the image has no PostgreSQL: no `postgres` in PATH ({path})"))
}

impl Supervisor {
    /// Looks around.
    pub fn new(options: Options) -> io::Result<Self> {
        let programs = Programs::find(options.bin_dir.as_deref(), &options.bin_names, &options.versions);
        let version = programs.as_ref().and_then(programs::version);
        let log = Log::new();
        let supervisor = Self {
            watch: Watch::of(options.data_dir.clone()),
            options,
            instance: sys::random_id()?,
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            init: std::process::id() == 1,
            programs,
            version,
            log,
            fence: Fence::new(),
            watchdog: Watchdog::default(),
            stopping: Stopping::default(),
            running: None,
            last_exit: None,
            children: BTreeMap::new(),
            connections: Vec::new(),
            agent: None,
            calls: Vec::new(),
            last_heard: sys::now_us(),
            termination: None,
        };
        let locked = sys::stay_in_memory();
        supervisor.log.line(&format!(
            "instance {}, {}, {}, {}",
            supervisor.instance,
            supervisor.version.as_deref().unwrap_or("no PostgreSQL"),
            if supervisor.init { "process 1" } else { "subreaper" },
            if locked { "locked in memory" } else { "not locked in memory" },
        ));
        Ok(supervisor)
    }

    pub(super) fn status(&self) -> Status {
        Status {
            postmaster: self.running.as_ref().map(|running| running.postmaster.clone()),
            last_exit: self.last_exit.clone(),
            latched: self.fence.latched(),
            deadline_us: match self.fence.granted() {
                Permit::Until(deadline) => Some(deadline),
                Permit::Lifted => None,
                // Not "lifted": closed since ever.
                Permit::Never => Some(0),
            },
            permit_seq: self.fence.seq(),
            terminating: self.termination.is_some(),
            tools: self.children.values().filter_map(|child| child.tool.clone()).collect(),
        }
    }
}
