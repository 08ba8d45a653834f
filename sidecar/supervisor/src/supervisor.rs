//! What runs, who asked for it, and what has to happen next: the supervisor's state and its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use matriarch_ha::fence::{Fence, FenceAction, FenceError, Permit, Role};
use matriarch_supervisor::protocol::{
    Answer, Exited, FileOp, Hello, Message, Notice, OLDEST, PROTOCOL, Postmaster, Refusal, Request, Run, Start,
    StartRole, Status, StopMode, Tool, UserCommand,
};

use crate::adopt::Watch;
use crate::child::{Caller, Child, Kind};
use crate::connection::{Connection, Incoming};
use crate::job::{Job, Launch};
use crate::log::Log;
use crate::stopping::{Step, Stopping};
use crate::sys::{self, Signal};
use crate::watchdog::Watchdog;
use crate::{paths, processes, programs};

/// An agent that has not called for so long, after SIGTERM, is not waited for.
const SILENCE_US: u64 = 5_000_000;
/// A detached supervisor without an agent and without PostgreSQL ends after this.
const FORGOTTEN_US: u64 = 60_000_000;
/// How long the supervisor's own fast stop may take before it becomes an immediate one.
const OWN_STOP_MS: u64 = 60_000;
/// From a cancelled program's SIGTERM to its SIGKILL.
const CANCEL_US: u64 = 5_000_000;
/// Programs and file operations at one time.
const MAX_CHILDREN: usize = 64;

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
    bin_dir: Option<PathBuf>,
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
        let bin_dir = match &options.bin_dir {
            Some(dir) => dir.join("postgres").is_file().then(|| dir.clone()),
            None => programs::bin_dir(std::env::var_os("PATH").as_deref(), &options.versions),
        };
        let version = bin_dir.as_deref().and_then(programs::version);
        let log = Log::new();
        let supervisor = Self {
            options,
            instance: sys::random_id()?,
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            init: std::process::id() == 1,
            bin_dir,
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
            watch: Watch::default(),
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

    // ---- connections ----

    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    /// All children.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.children.values()
    }

    /// Whether programs may write more. Without an agent their output is read and lost.
    pub fn has_room(&self) -> bool {
        self.agent.is_none_or(|id| {
            self.connections.iter().find(|connection| connection.id == id).is_none_or(Connection::has_room)
        })
    }

    /// Somebody connected: only the agent's user is heard.
    pub fn connected(&mut self, connection: Connection, max: usize) {
        match sys::peer_uid(connection.stream()) {
            Ok(uid) if uid == self.options.agent_uid => {}
            Ok(uid) => return self.log.line(&format!("refused a connection of user {uid}")),
            Err(_) => return,
        }
        if self.connections.len() >= max {
            let oldest = self.connections.iter().position(|connection| Some(connection.id) != self.agent);
            if let Some(oldest) = oldest {
                self.connections.remove(oldest);
            }
        }
        self.connections.push(connection);
    }

    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// Takes what has arrived on a connection. Permits are obeyed at once, other calls wait for [`Self::on_calls`].
    pub fn receive(&mut self, id: u64) {
        let Some(connection) = self.connection(id) else { return };
        for incoming in connection.receive() {
            self.incoming(id, incoming);
        }
    }

    fn incoming(&mut self, id: u64, incoming: Incoming) {
        let greeted = self.agent == Some(id);
        if greeted {
            self.last_heard = sys::now_us();
        }
        match incoming {
            Incoming::Bad(call, message) => {
                if let Some(call) = call {
                    self.reply(Caller { connection: id, id: call }, refused(Refusal::Invalid, message));
                }
                if !greeted && let Some(connection) = self.connection(id) {
                    connection.close();
                }
            }
            Incoming::Call(call) => {
                let caller = Caller { connection: id, id: call.id };
                match call.request {
                    Request::Hello { protocol, boot_id, .. } => self.hello(caller, protocol, &boot_id),
                    _ if !greeted => {
                        self.reply(caller, refused(Refusal::Invalid, "the first call is Hello"));
                        if let Some(connection) = self.connection(id) {
                            connection.close();
                        }
                    }
                    Request::Permit { seq, deadline_us } => {
                        let answer = self.fence.permit(seq, deadline_us).map_or_else(fenced, |()| Answer::Ok);
                        self.latch_adopted();
                        self.reply(caller, answer);
                        let now = sys::now_us();
                        if self.fence.latched() && self.fence.may_write(now).is_ok() {
                            // After a pause it is armed anew.
                            self.arm().unwrap_or_else(|why| self.log.line(&why));
                            self.watchdog.alive();
                        }
                    }
                    Request::LiftFence { seq } => {
                        let answer = self.fence.lift(seq).map_or_else(fenced, |()| Answer::Ok);
                        if answer == Answer::Ok {
                            self.watchdog.disarm();
                        }
                        self.latch_adopted();
                        self.reply(caller, answer);
                    }
                    request => self.calls.push((caller, request)),
                }
            }
        }
    }

    fn hello(&mut self, caller: Caller, protocol: u32, boot_id: &str) {
        let problem = if protocol < OLDEST {
            Some(format!("protocol {protocol} is too old: versions {OLDEST} to {PROTOCOL} are understood"))
        } else if boot_id.trim() == self.boot_id {
            None
        } else {
            Some(format!("boot id {boot_id} is not {}: clocks cannot be compared", self.boot_id))
        };
        if let Some(problem) = problem {
            self.reply(caller, refused(Refusal::Invalid, problem));
            if let Some(connection) = self.connection(caller.connection) {
                connection.close();
            }
            return;
        }
        if self.agent != Some(caller.connection) {
            self.log.line("an agent attached");
            self.connections
                .retain(|connection| connection.id == caller.connection || Some(connection.id) != self.agent);
            self.calls.retain(|(other, _)| other.connection == caller.connection);
            self.agent = Some(caller.connection);
        }
        self.last_heard = sys::now_us();
        if let Some(connection) = self.connection(caller.connection) {
            connection.greeted = true;
        }
        let hello = Hello {
            protocol: PROTOCOL,
            instance: self.instance.clone(),
            boot_id: self.boot_id.clone(),
            now_us: sys::now_us(),
            bin_dir: self.bin_dir.clone(),
            version: self.version.clone(),
            status: self.status(),
        };
        self.reply(caller, Answer::Hello(hello));
    }

    fn reply(&mut self, caller: Caller, answer: Answer) {
        if let Some(connection) = self.connection(caller.connection) {
            connection.send(&Message::Reply { id: caller.id, answer });
        }
    }

    fn notice(&mut self, notice: Notice) {
        if let Some(agent) = self.agent.and_then(|id| self.connection(id)) {
            agent.send(&Message::Notice(notice));
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self, id: u64) {
        if let Some(connection) = self.connection(id) {
            connection.flush();
        }
    }

    /// Drops connections that are over.
    pub fn tidy(&mut self) {
        self.connections.retain(|connection| !connection.ended());
        if let Some(agent) = self.agent
            && self.connection(agent).is_none()
        {
            self.log.line("the agent is gone");
            self.agent = None;
        }
    }

    fn status(&self) -> Status {
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

    // ---- calls ----

    /// Does what was asked.
    pub fn on_calls(&mut self, now: u64) {
        for (caller, request) in std::mem::take(&mut self.calls) {
            if let Some(answer) = self.call(caller, request, now) {
                self.reply(caller, answer);
            }
        }
    }

    /// The answer, or none where it comes later.
    fn call(&mut self, caller: Caller, request: Request, now: u64) -> Option<Answer> {
        match request {
            Request::Status => Some(Answer::Status(self.status())),
            Request::Start(start) => self.start(caller, start, now),
            Request::Stop { mode, timeout_ms } => match &mut self.running {
                None => Some(refused(Refusal::WrongState, "no postmaster runs")),
                Some(running) => {
                    running.stoppers.push(caller);
                    let step = self.stopping.stop(mode, timeout_ms, now);
                    self.step(step);
                    None
                }
            },
            Request::Promote => self.promote(caller, now),
            Request::Reload => Some(self.reload()),
            Request::Guard { watchdog } => {
                self.watchdog.configure(watchdog);
                Some(Answer::Ok)
            }
            Request::Run(run) => self.run_tool(caller, run),
            Request::Command(command) => self.run_command(caller, command),
            Request::Cancel { call } => Some(self.cancel(Caller { id: call, ..caller }, now)),
            Request::File(op) => self.file(caller, op),
            Request::Finish => match &mut self.termination {
                None => Some(refused(Refusal::WrongState, "no SIGTERM was received")),
                Some(termination) => {
                    termination.leaving = true;
                    self.reply(caller, Answer::Ok);
                    self.leave(now);
                    None
                }
            },
            // Obeyed on arrival.
            Request::Hello { .. } | Request::Permit { .. } | Request::LiftFence { .. } => None,
        }
    }

    fn start(&mut self, caller: Caller, start: Start, now: u64) -> Option<Answer> {
        if self.termination.is_some() {
            return Some(refused(Refusal::WrongState, "the pod is being stopped"));
        }
        if let Some(running) = &self.running {
            let pid = running.postmaster.pid;
            return Some(refused(Refusal::WrongState, format!("a postmaster runs or is ending: process {pid}")));
        }
        let Some(bin_dir) = &self.bin_dir else { return Some(no_postgres()) };
        let data_dir = match paths::written(&self.options.volume, &start.data_dir) {
            Ok(data_dir) => data_dir,
            Err(error) => return Some(refused(Refusal::Invalid, error.to_string())),
        };
        let zero = |text: &String| text.contains('\0');
        if start.args.iter().any(zero) || start.env.iter().any(|(name, value)| zero(name) || zero(value)) {
            return Some(refused(Refusal::Invalid, "a zero byte in an argument or a variable"));
        }
        let job = Job::Launch(Launch {
            program: bin_dir.join("postgres"),
            args: start.args,
            env: programs::environment(&start.env),
            stdin: String::new(),
            volume: self.options.volume.clone(),
            lock: Some(data_dir.clone()),
            role: Some(start.role),
        });
        let role = match start.role {
            StartRole::Primary => Role::Primary,
            StartRole::Standby => Role::Standby,
        };
        // The latch comes first: whatever hangs from here on, at the deadline nothing of it is left.
        if let Err(error) = self.fence.starting(role, now) {
            return Some(fenced(error));
        }
        if start.role == StartRole::Primary
            && let Err(why) = self.arm()
        {
            self.fence.exited();
            return Some(refused(Refusal::Watchdog, why));
        }
        let child = match Child::spawn(Kind::Postmaster, caller, &job, None) {
            Ok(child) => child,
            Err(error) => {
                self.fence.exited();
                self.watchdog.disarm();
                return Some(refused(Refusal::Io, format!("cannot start a process: {error}")));
            }
        };
        let pid = child.pid;
        self.running = Some(Running {
            postmaster: Postmaster {
                pid: u32::try_from(pid).unwrap_or(0),
                start_ticks: processes::start_ticks(pid).unwrap_or(0),
                role: start.role,
                started_us: now,
            },
            data_dir,
            starter: Some(caller),
            executed: false,
            refusal: None,
            ended: None,
            stoppers: Vec::new(),
            adopted: false,
        });
        self.children.insert(pid, child);
        self.talk(pid, now);
        None
    }

    /// The running postmaster, if it listens to `signal`: before its handlers are there, a signal would end it.
    fn listening(&self, signal: Signal) -> Result<&Running, &'static str> {
        let running = self.running.as_ref().filter(|running| running.ended.is_none());
        let running = running.ok_or("no postmaster runs")?;
        if running.executed && processes::catches(running.pid(), signal as i32) {
            Ok(running)
        } else {
            Err("the postmaster is only just starting")
        }
    }

    fn promote(&mut self, caller: Caller, now: u64) -> Option<Answer> {
        if self.termination.is_some() {
            return Some(refused(Refusal::WrongState, "the pod is being stopped"));
        }
        let data_dir = match self.listening(Signal::SIGUSR1) {
            Ok(running) if running.adopted || running.postmaster.role == StartRole::Standby => running.data_dir.clone(),
            Ok(_) => return Some(refused(Refusal::WrongState, "it was started as primary")),
            Err(why) => return Some(refused(Refusal::WrongState, why)),
        };
        let armed = self.watchdog.armed();
        if let Err(why) = self.arm() {
            return Some(refused(Refusal::Watchdog, why));
        }
        if let Err(error) = self.fence.promoting(now) {
            if !armed {
                self.watchdog.disarm();
            }
            return Some(fenced(error));
        }
        let job = Job::AskPromotion { volume: self.options.volume.clone(), data_dir };
        self.spawn(Kind::Promotion, caller, &job, None)
    }

    fn arm(&mut self) -> Result<(), String> {
        if let Some(text) = self.watchdog.arm()? {
            self.log.line(&text);
        }
        Ok(())
    }

    fn reload(&self) -> Answer {
        match self.listening(Signal::SIGHUP) {
            Ok(running) => {
                sys::signal(running.pid(), Signal::SIGHUP);
                Answer::Ok
            }
            Err(why) => refused(Refusal::WrongState, why),
        }
    }

    fn run_tool(&mut self, caller: Caller, run: Run) -> Option<Answer> {
        if let Some(why) = programs::refused(&run) {
            return Some(refused(Refusal::Invalid, why));
        }
        let Some(bin_dir) = &self.bin_dir else { return Some(no_postgres()) };
        let lock = programs::writes_into(&run);
        if let Some(data_dir) = &lock
            && let Err(error) = paths::written(&self.options.volume, data_dir)
        {
            return Some(refused(Refusal::Invalid, error.to_string()));
        }
        let job = Job::Launch(Launch {
            program: bin_dir.join(&run.program),
            args: run.args,
            env: programs::environment(&run.env),
            stdin: run.stdin,
            volume: self.options.volume.clone(),
            lock: lock.clone(),
            role: None,
        });
        let tool = Tool { call: caller.id, program: run.program, data_dir: lock };
        self.spawn(Kind::Tool, caller, &job, Some(tool))
    }

    fn run_command(&mut self, caller: Caller, command: UserCommand) -> Option<Answer> {
        if let Some(why) = programs::refused_command(&command) {
            return Some(refused(Refusal::Invalid, why));
        }
        if let Some(data_dir) = &command.data_dir
            && let Err(error) = paths::written(&self.options.volume, data_dir)
        {
            return Some(refused(Refusal::Invalid, error.to_string()));
        }
        let mut argv = command.argv.into_iter();
        let program = argv.next().unwrap_or_default();
        let job = Job::Launch(Launch {
            program: PathBuf::from(&program),
            args: argv.collect(),
            env: programs::command_environment(&command.env, self.bin_dir.as_deref()),
            stdin: String::new(),
            volume: self.options.volume.clone(),
            lock: command.data_dir.clone(),
            role: None,
        });
        self.spawn(Kind::Tool, caller, &job, Some(Tool { call: caller.id, program, data_dir: command.data_dir }))
    }

    fn file(&mut self, caller: Caller, op: FileOp) -> Option<Answer> {
        let written: Vec<_> = match &op {
            FileOp::Rename { from, to } => vec![from, to],
            FileOp::Read { path }
            | FileOp::Write { path, .. }
            | FileOp::WriteHex { path, .. }
            | FileOp::Remove { path }
            | FileOp::RemoveTree { path }
            | FileOp::List { path } => vec![path],
        };
        let mut clean = Vec::new();
        for path in written {
            match paths::written(&self.options.volume, path) {
                Ok(path) => clean.push(path),
                Err(error) => return Some(refused(Refusal::Invalid, error.to_string())),
            }
        }
        // The lock says the same of other supervisors; this also knows of folders above and below.
        let moves_away = matches!(op, FileOp::RemoveTree { .. } | FileOp::Rename { .. });
        let busy = |path: &PathBuf| {
            self.running.as_ref().is_some_and(|running| {
                running.data_dir.starts_with(path)
                    || (matches!(op, FileOp::RemoveTree { .. }) && path.starts_with(&running.data_dir))
            })
        };
        if moves_away && clean.iter().any(busy) {
            return Some(refused(Refusal::WrongState, "a postmaster runs in there"));
        }
        let job = Job::File { volume: self.options.volume.clone(), op };
        self.spawn(Kind::File, caller, &job, None)
    }

    fn spawn(&mut self, kind: Kind, caller: Caller, job: &Job, tool: Option<Tool>) -> Option<Answer> {
        if self.children.len() >= MAX_CHILDREN {
            return Some(refused(Refusal::Io, format!("{MAX_CHILDREN} programs and file operations run already")));
        }
        match Child::spawn(kind, caller, job, tool) {
            Ok(child) => {
                self.children.insert(child.pid, child);
                None
            }
            Err(error) => Some(refused(Refusal::Io, format!("cannot start a process: {error}"))),
        }
    }

    fn cancel(&mut self, caller: Caller, now: u64) -> Answer {
        let can_be = |child: &&mut Child| child.caller.id == caller.id && matches!(child.kind, Kind::Tool | Kind::File);
        // Its own first; else what an agent before it left running.
        let own = self.children.values().any(|child| child.caller == caller);
        let mut found = self.children.values_mut().filter(can_be);
        let own = found.find(|child| !own || child.caller == caller);
        match own {
            Some(child) => {
                child.kill_at = child.kill_at.or(Some(now.saturating_add(CANCEL_US)));
                sys::signal_group(child.pid, Signal::SIGTERM);
                sys::signal(child.pid, Signal::SIGTERM);
                Answer::Ok
            }
            None => refused(Refusal::WrongState, format!("no call {} runs a program", caller.id)),
        }
    }

    // ---- children ----

    /// A child said something, or became its program.
    pub fn talk(&mut self, pid: i32, now: u64) {
        let Some(child) = self.children.get_mut(&pid) else { return };
        child.talk();
        if child.kind != Kind::Postmaster {
            return;
        }
        let (executed, answer) = (child.executed, child.answer.clone());
        let Some(running) = self.running.as_mut().filter(|running| running.pid() == pid) else { return };
        running.refusal = answer;
        if executed && !running.executed {
            running.executed = true;
            let postmaster = running.postmaster.clone();
            self.log.line(&format!(
                "postmaster {pid} started as {:?} after {} us",
                postmaster.role,
                now - postmaster.started_us
            ));
            if let Some(starter) = running.starter.take() {
                self.reply(starter, Answer::Started { postmaster });
            }
        }
    }

    /// A program wrote something.
    pub fn output(&mut self, pid: i32, index: usize) {
        let Some(child) = self.children.get_mut(&pid) else { return };
        let caller = child.caller;
        if let Some((stream, text)) = child.read_output(index)
            && let Some(connection) = self.connection(caller.connection)
        {
            connection.send(&Message::Output { id: caller.id, stream, text });
        }
    }

    /// Takes every child that ended, and says so once nothing of the postmaster is left.
    pub fn reap(&mut self, now: u64) {
        let childless = loop {
            match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid.as_raw_nonzero().get(), status, now),
                Ok(None) => break false,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break true,
            }
        };
        self.watch(now);
        let gone = |running: &Running| running.ended.is_some() && ((childless && !running.adopted) || self.none_left());
        if self.running.as_ref().is_some_and(gone) {
            self.exited(now);
        }
    }

    fn ended(&mut self, pid: i32, status: rustix::process::WaitStatus, now: u64) {
        self.talk(pid, now);
        let Some(mut child) = self.children.remove(&pid) else { return };
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        let unanswered = || {
            refused(
                Refusal::Io,
                match (code, signal) {
                    (_, Some(signal)) => format!("the process for it was ended by signal {signal}"),
                    (code, None) => format!("the process for it ended with {}", code.unwrap_or(-1)),
                },
            )
        };
        match child.kind {
            Kind::Postmaster => {
                if let Some(running) = &mut self.running {
                    running.ended = Some((code, signal));
                    if !running.executed && running.refusal.is_none() {
                        running.refusal = Some(unanswered());
                    }
                }
                if !self.none_left() {
                    let step = self.stopping.orphaned(signal.is_some(), now);
                    self.step(step);
                }
            }
            Kind::Tool => {
                for index in [0, 1] {
                    while let Some((stream, text)) = child.read_output(index) {
                        if let Some(connection) = self.connection(child.caller.connection) {
                            connection.send(&Message::Output { id: child.caller.id, stream, text });
                        }
                    }
                }
                let answer = match child.answer {
                    Some(refusal) => refusal,
                    // Cancelled before it ran is cancelled as well.
                    None if child.executed || signal.is_some() => Answer::Done { code, signal },
                    None => unanswered(),
                };
                self.reply(child.caller, answer);
            }
            Kind::File => self.reply(child.caller, child.answer.unwrap_or_else(unanswered)),
            Kind::Promotion => {
                let mut answer = child.answer.unwrap_or_else(unanswered);
                if answer == Answer::Ok {
                    match self.listening(Signal::SIGUSR1) {
                        Ok(running) => sys::signal(running.pid(), Signal::SIGUSR1),
                        Err(why) => answer = refused(Refusal::WrongState, why),
                    }
                }
                self.reply(child.caller, answer);
            }
        }
    }

    fn exited(&mut self, now: u64) {
        let Some(running) = self.running.take() else { return };
        let fenced = self.fence.closing();
        self.fence.exited();
        self.watchdog.disarm();
        self.stopping.exited();
        let (code, signal) = running.ended.unwrap_or((None, None));
        if let Some(starter) = running.starter {
            let refusal = running.refusal.unwrap_or_else(|| refused(Refusal::Io, "it ended before it ran"));
            self.reply(starter, refusal);
        }
        if running.executed || fenced {
            let exited = Exited { postmaster: running.postmaster, code, signal, fenced, at_us: now };
            self.log.line(&format!(
                "postmaster {} and all of its processes are gone: code {code:?}, signal {signal:?}, fenced {fenced}",
                exited.postmaster.pid
            ));
            self.last_exit = Some(exited.clone());
            self.notice(Notice::Exited(exited));
        }
        for stopper in running.stoppers {
            self.reply(stopper, Answer::Ok);
        }
    }

    // ---- servers of somebody else's ----

    /// Finds a server that a person started, and the end of one that was found.
    fn watch(&mut self, now: u64) {
        match &mut self.running {
            Some(running) if !running.adopted => {
                self.watch.learn(running.pid(), now);
            }
            Some(running) if running.ended.is_none() && self.watch.due(now, true) => {
                if processes::start_ticks(running.pid()) != Some(running.postmaster.start_ticks) {
                    running.ended = Some((None, None));
                    if !self.none_left() {
                        let step = self.stopping.orphaned(true, now);
                        self.step(step);
                    }
                }
            }
            None if self.termination.is_none() && self.children.is_empty() && self.watch.due(now, false) => {
                if let Some(pid) = self.watch.find() {
                    self.adopt(pid, now);
                }
            }
            Some(_) | None => {}
        }
    }

    /// Whether there is anything to be looked for. (Tools run servers of their own for a moment.)
    fn watches(&self) -> bool {
        match &self.running {
            Some(running) if running.adopted => running.ended.is_none(),
            Some(running) => running.executed && running.ended.is_none() && self.watch.folder().is_none(),
            None => self.termination.is_none() && self.children.is_empty() && self.watch.folder().is_some(),
        }
    }

    fn adopt(&mut self, pid: i32, now: u64) {
        let (Some(start_ticks), Some(data_dir)) = (processes::start_ticks(pid), self.watch.folder()) else { return };
        let postmaster = Postmaster {
            pid: u32::try_from(pid).unwrap_or(0),
            start_ticks,
            // It is one, or may become one at any moment.
            role: StartRole::Primary,
            started_us: now,
        };
        self.log.line(&format!("postmaster {pid} was started by somebody else: the agent is told, and decides"));
        self.running = Some(Running {
            data_dir: data_dir.to_owned(),
            postmaster: postmaster.clone(),
            starter: None,
            executed: true,
            refusal: None,
            ended: None,
            stoppers: Vec::new(),
            adopted: true,
        });
        self.latch_adopted();
        self.notice(Notice::Adopted(postmaster));
    }

    /// A server of somebody else's falls under the fence as soon as there is a permit: before, the agent has not said that it may be.
    fn latch_adopted(&mut self) {
        if self.running.as_ref().is_some_and(|running| running.adopted) && !self.fence.latched() {
            // Refused where the permit is over: then it is the agent's to stop it.
            let _ = self.fence.starting(Role::Primary, sys::now_us());
        }
    }

    /// The processes of tools and file operations: what is below them is theirs, all else is the postmaster's.
    fn apart(&self) -> BTreeSet<i32> {
        self.children.values().filter(|child| child.kind != Kind::Postmaster).map(|child| child.pid).collect()
    }

    /// What is left of the postmaster: every descendant that is not of a tool or a file operation.
    fn left(&self) -> io::Result<Vec<i32>> {
        if self.running.as_ref().is_some_and(|running| running.adopted) {
            return Ok(self.watch.processes());
        }
        let me = i32::try_from(std::process::id()).unwrap_or(1);
        Ok(processes::below(&processes::parents()?, me, &self.apart()))
    }

    /// Orphans are our children (subreaper), so a process of the postmaster's that is left is seen here, at least as a
    /// zombie. What cannot be seen is taken for running.
    fn none_left(&self) -> bool {
        self.left().is_ok_and(|left| left.is_empty())
    }

    // ---- signals and time ----

    fn step(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Interrupt => self.signal_postmaster(Signal::SIGINT),
            Step::Terminate => self.signal_postmaster(Signal::SIGTERM),
            Step::Quit => self.signal_postmaster(Signal::SIGQUIT),
            Step::Kill => self.kill_left(false),
        }
    }

    /// To the postmaster, or to its orphans when it is gone.
    fn signal_postmaster(&self, signal: Signal) {
        match &self.running {
            Some(running) if running.ended.is_none() => sys::signal(running.pid(), signal),
            Some(_) => self.left().unwrap_or_default().into_iter().for_each(|pid| sys::signal(pid, signal)),
            None => {}
        }
    }

    /// `all`: the fence spares nobody, and no fork slips through; tools that run beside are lost with it.
    fn kill_left(&mut self, all: bool) {
        if self.running.is_none() {
            return;
        }
        if self.init && all {
            sys::kill_everything();
        } else {
            self.left().unwrap_or_default().into_iter().for_each(|pid| sys::signal(pid, Signal::SIGKILL));
        }
    }

    /// SIGTERM. A second one changes nothing.
    pub fn terminate(&mut self, now: u64) {
        if self.termination.is_none() {
            self.log.line("SIGTERM: the agent has the word");
            self.termination = Some(Termination::default());
            self.last_heard = now;
            self.notice(Notice::Terminating);
        }
    }

    /// A fast stop of what still runs.
    fn leave(&mut self, now: u64) {
        if self.running.is_some() {
            let step = self.stopping.stop(StopMode::Fast, OWN_STOP_MS, now);
            self.step(step);
        }
    }

    /// Whether the supervisor is to exit.
    pub fn finished(&self) -> bool {
        let left = self.termination.as_ref().is_some_and(|termination| termination.leaving);
        let forgotten = self.idle() && sys::now_us() >= self.last_heard.saturating_add(FORGOTTEN_US);
        self.running.is_none() && (left || forgotten)
    }

    /// Nobody needs it. In a container that is for the kubelet to say.
    fn idle(&self) -> bool {
        self.options.detached && self.agent.is_none() && self.running.is_none() && self.children.is_empty()
    }

    /// When [`Self::on_time`] has to be called.
    pub fn next_timer(&self) -> Option<u64> {
        let silence = self.termination.as_ref().filter(|termination| !termination.leaving);
        self.fence
            .next_timer()
            .into_iter()
            .chain(self.stopping.next_timer())
            .chain(self.children.values().filter_map(|child| child.kill_at))
            .chain(silence.map(|_| self.last_heard.saturating_add(SILENCE_US)))
            .chain(self.watches().then(|| self.watch.next_timer()))
            .chain(self.idle().then(|| self.last_heard.saturating_add(FORGOTTEN_US)))
            .min()
    }

    /// Does what is due, the fence first.
    pub fn on_time(&mut self, now: u64) {
        match self.fence.due(now) {
            FenceAction::Nothing => {}
            FenceAction::Quit { deadline_us } => {
                self.signal_postmaster(Signal::SIGQUIT);
                self.log.line(&format!("the fence closes, {} us after its deadline", now - deadline_us));
                self.notice(Notice::Fencing { deadline_us });
            }
            FenceAction::Kill => self.kill_left(true),
        }
        let step = self.stopping.due(now);
        self.step(step);
        for child in self.children.values_mut() {
            if child.kill_at.is_some_and(|at| now >= at) {
                child.kill_at = None;
                sys::signal_group(child.pid, Signal::SIGKILL);
                sys::signal(child.pid, Signal::SIGKILL);
            }
        }
        if now >= self.last_heard.saturating_add(SILENCE_US)
            && let Some(termination) = self.termination.as_mut().filter(|termination| !termination.leaving)
        {
            termination.leaving = true;
            self.log.line("the agent is silent: stopping without it");
            self.leave(now);
        }
    }
}
