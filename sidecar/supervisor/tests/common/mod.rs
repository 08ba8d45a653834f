//! A supervisor in a folder of its own, and a client that speaks to it as the agent does.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use matriarch_supervisor::frame::{self, Decoder};
use matriarch_supervisor::protocol::*;
use rustix::process::{Pid, Signal, kill_process};

pub const SECOND: u64 = 1_000_000;
/// K of the design: from the deadline to "no process runs".
pub const K_US: u64 = 900_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * SECOND + u64::try_from(now.tv_nsec).unwrap() / 1000
}

pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits until something holds.
pub fn until<T>(what: &str, seconds: u64, mut holds: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        sleep_ms(5);
    }
}

pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// To a process that may be gone by now: PostgreSQL's workers come and go.
pub fn send_signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => panic!("{errno}"),
    }
}

/// Processes with `text` in their command line or environment.
pub fn processes_with(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let holds = ["cmdline", "environ"].iter().any(|file| {
            std::fs::read(entry.path().join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        });
        if holds && alive(pid) {
            found.push(pid);
        }
    }
    found
}

/// Processes that work in a folder or below it.
pub fn processes_in(dir: &Path) -> Vec<u32> {
    let works_in =
        |entry: &std::fs::DirEntry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    let entries = std::fs::read_dir("/proc").unwrap().flatten().filter(works_in);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| alive(*pid)).collect()
}

/// How the supervisor is run.
#[derive(Clone, Default)]
pub struct Setup {
    /// PATH of the supervisor; none: what the test has.
    pub path: Option<String>,
    /// Where it looks for versions that are not in PATH; none: where Debian has them.
    pub versions: Option<String>,
    /// As this user.
    pub user: Option<(u32, u32)>,
    /// As process 1 of a pid namespace of its own.
    pub init: bool,
    /// Whom it listens to; none: the test's own user.
    pub agent_uid: Option<u32>,
    /// It is told where the data directory is.
    pub told: bool,
    /// More variables.
    pub env: BTreeMap<String, String>,
}

/// A folder with volume and socket, and a supervisor in it.
pub struct World {
    pub dir: PathBuf,
    pub setup: Setup,
    program: PathBuf,
    child: Child,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let name = format!("supervisor-world-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(dir.join("volume")).unwrap();
        std::fs::create_dir_all(dir.join("sockets")).unwrap();
        let program = std::env::var_os("MATRIARCH_SUPERVISOR")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_matriarch-supervisor")), PathBuf::from);
        // Another user may not reach the build's folder.
        let copy = dir.join("matriarch-supervisor");
        // By another process: a descriptor open for writing here, inherited by a child that another test is just
        // starting, would make the program busy.
        assert!(Command::new("cp").arg(&program).arg(&copy).status().unwrap().success());
        for path in [dir.clone(), dir.join("volume"), dir.join("sockets"), copy.clone()] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            if let Some((uid, gid)) = setup.user {
                chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
        let child = spawn(&copy, &dir, "supervisor.sock", &setup);
        Self { dir, setup, program: copy, child }
    }

    /// Another supervisor on the same volume.
    pub fn second(&self) -> Second {
        Second { child: spawn(&self.program, &self.dir, "second.sock", &self.setup), dir: self.dir.clone() }
    }

    pub fn volume(&self) -> PathBuf {
        self.dir.join("volume")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("volume/pgdata")
    }

    /// The supervisor, as the test sees it.
    pub fn pid(&self) -> u32 {
        if self.setup.init {
            let path = format!("/proc/{0}/task/{0}/children", self.child.id());
            until("the namespace's process 1", 5, || std::fs::read_to_string(&path).ok()?.trim().parse().ok())
        } else {
            self.child.id()
        }
    }

    pub fn client(&self) -> Client {
        Client::greeted(&self.dir.join("sockets/supervisor.sock"))
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.dir.join("sockets/supervisor.sock"))
    }

    pub fn exit_code(&mut self, seconds: u64) -> Option<i32> {
        until("the supervisor's exit", seconds, || self.child.try_wait().unwrap()).code()
    }

    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// A start of the data directory.
    pub fn start(&self, role: StartRole) -> Start {
        Start { role, data_dir: self.data_dir(), args: Vec::new(), env: BTreeMap::new() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = kill_process(
            Pid::from_raw(i32::try_from(self.pid_if_alive()).unwrap_or(0)).unwrap_or(Pid::INIT),
            Signal::KILL,
        );
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What the fence let through must not disturb other tests.
        let mut left = processes_with(&self.dir.to_string_lossy());
        left.extend(processes_in(&self.dir));
        for pid in left {
            if pid != std::process::id() {
                let _ = Pid::from_raw(i32::try_from(pid).unwrap()).map(|pid| kill_process(pid, Signal::KILL));
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl World {
    fn pid_if_alive(&mut self) -> u32 {
        // Of process 1 in a namespace the wrapper is killed, which ends it as well.
        self.child.id()
    }
}

pub struct Second {
    child: Child,
    dir: PathBuf,
}

impl Second {
    pub fn client(&self) -> Client {
        Client::greeted(&self.dir.join("sockets/second.sock"))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, dir: &Path, socket: &str, setup: &Setup) -> Child {
    let mut words: Vec<String> = Vec::new();
    if setup.init {
        words.extend(["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"].map(str::to_owned));
    }
    if let Some((uid, gid)) = setup.user {
        words.extend([
            "setpriv".to_owned(),
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".to_owned(),
        ]);
    }
    words.extend([program.display().to_string(), "run".to_owned()]);
    words.extend(["--volume".to_owned(), dir.join("volume").display().to_string()]);
    words.extend(["--socket".to_owned(), dir.join("sockets").join(socket).display().to_string()]);
    let agent_uid = setup.agent_uid.unwrap_or(rustix::process::getuid().as_raw());
    words.extend(["--agent-uid".to_owned(), agent_uid.to_string()]);
    if setup.told {
        let volume = dir.join("volume").canonicalize().unwrap();
        words.extend(["--data-dir".to_owned(), volume.join("pgdata").display().to_string()]);
    }
    if let Some(versions) = &setup.versions {
        words.extend(["--versions".to_owned(), versions.clone()]);
    }
    // As a script starts it in the background: what it does not undo, PostgreSQL's scripts inherit.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"trap '' INT QUIT; exec "$@""#, "sh"])
        .args(&words)
        .stdin(Stdio::null())
        .current_dir("/")
        .process_group(0);
    command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env("MATRIARCH_SECRET", "x").envs(&setup.env);
    if let Some(path) = &setup.path {
        command.env("PATH", format!("{path}:/usr/bin:/bin:/usr/sbin:/sbin"));
    }
    own_ipc();
    command.spawn().unwrap()
}

/// The agent's side.
pub struct Client {
    pub stream: UnixStream,
    decoder: Decoder,
    next: u64,
    pub hello: Option<Hello>,
    /// Came in while something else was waited for.
    pub notices: Vec<Notice>,
    pub replies: BTreeMap<u64, Answer>,
    pub output: BTreeMap<u64, String>,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let stream = until("a socket", 10, || UnixStream::connect(path).ok());
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Self {
            stream,
            decoder: Decoder::new(),
            next: 1,
            hello: None,
            notices: Vec::new(),
            replies: BTreeMap::new(),
            output: BTreeMap::new(),
        }
    }

    pub fn greeted(path: &Path) -> Self {
        let mut client = Self::connect(path);
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        match client.call(Request::Hello { protocol: PROTOCOL, boot_id: boot_id.trim().to_owned(), now_us: now() }) {
            Answer::Hello(hello) => client.hello = Some(hello),
            other => panic!("no hello: {other:?}"),
        }
        client
    }

    pub fn send(&mut self, request: Request) -> u64 {
        let id = self.next;
        self.next += 1;
        self.stream.write_all(&frame::encode(&Call { id, request }).unwrap()).unwrap();
        id
    }

    /// Takes what comes; false: the connection ended.
    pub fn pump(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => self.decoder.push(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("{error}"),
        }
        while let Some(message) = self.decoder.next::<Message>().unwrap() {
            match message {
                Message::Reply { id, answer } => drop(self.replies.insert(id, answer)),
                Message::Output { id, text, .. } => self.output.entry(id).or_default().push_str(&text),
                Message::Notice(notice) => self.notices.push(notice),
            }
        }
        true
    }

    pub fn wait(&mut self, id: u64) -> Answer {
        self.wait_for(id, 30)
    }

    pub fn wait_for(&mut self, id: u64, seconds: u64) -> Answer {
        until("a reply", seconds, || {
            if !self.replies.contains_key(&id) {
                assert!(self.pump() || self.replies.contains_key(&id), "the connection ended");
            }
            self.replies.remove(&id)
        })
    }

    pub fn call(&mut self, request: Request) -> Answer {
        let id = self.send(request);
        self.wait(id)
    }

    pub fn status(&mut self) -> Status {
        match self.call(Request::Status) {
            Answer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub fn exited(&mut self, seconds: u64) -> Exited {
        until("the exit", seconds, || {
            self.pump();
            self.notices.iter().find_map(|notice| match notice {
                Notice::Exited(exited) => Some(exited.clone()),
                _ => None,
            })
        })
    }

    /// A permit for so many milliseconds; gives the deadline.
    pub fn permit_ms(&mut self, ms: u64) -> u64 {
        let deadline_us = now() + ms * 1000;
        let seq = self.status().permit_seq + 1;
        assert_eq!(self.call(Request::Permit { seq, deadline_us }), Answer::Ok);
        deadline_us
    }

    pub fn started(&mut self, start: Start) -> Postmaster {
        match self.call(Request::Start(start)) {
            Answer::Started { postmaster } => postmaster,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn run(&mut self, program: &str, args: &[&str], env: &[(&str, &str)], stdin: &str) -> (Answer, String) {
        let id = self.send(run_request(program, args, env, stdin));
        let answer = self.wait_for(id, 120);
        (answer, self.output.remove(&id).unwrap_or_default())
    }
}

pub fn run_request(program: &str, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Request {
    Request::Run(Run {
        program: program.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        stdin: stdin.to_owned(),
    })
}

pub fn refusal(answer: &Answer) -> Refusal {
    match answer {
        Answer::Refused { kind, .. } => *kind,
        other => panic!("not refused: {other:?}"),
    }
}

pub const OK: Answer = Answer::Done { code: Some(0), signal: None };

/// Says loudly that a test did not run, or fails where that was forbidden.
pub fn skip(why: &str) {
    let required = std::env::var("MATRIARCH_REQUIRE_POSTGRES").is_ok_and(|value| value == "1");
    assert!(!required, "cannot run: {why}");
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Past the capture of the test's output.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {name}: {why}");
}

/// Shared memory of System V outlives a PostgreSQL that is killed and its data directory, and a kernel has room for 4,096 segments:
/// what this thread starts from now on has an IPC namespace, which ends with it.
fn own_ipc() {
    if rustix::process::getuid().is_root() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWIPC).expect("an IPC namespace");
    }
}

/// Whether a process 1 can be made here.
pub fn can_be_init() -> bool {
    Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
