//! Members without Kubernetes: a real supervisor and a real PostgreSQL each, as an unprivileged user, in a folder of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use matriarch_ha::effect::{ServerConfig, Task, Upstream};
use matriarch_ha::event::{Event, ServerStatus, TaskError};
use matriarch_sidecar::config::Config;
use matriarch_sidecar::driver::clock;
use matriarch_sidecar::postgres::Postgres;
use matriarch_sidecar::supervisor::Supervisor;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// PostgreSQL and the supervisor's binary, or none: the test says so and passes, unless `MATRIARCH_REQUIRE_POSTGRES` is set.
/// `MATRIARCH_POSTGRES_BIN` is the folder of another PostgreSQL's programs.
pub struct Tools {
    supervisor: PathBuf,
    bin_dir: Option<PathBuf>,
    pub uid: u32,
    pub gid: u32,
}

impl Tools {
    pub fn find() -> Option<Self> {
        match Self::look() {
            Ok(tools) => Some(tools),
            Err(missing) => {
                assert!(
                    std::env::var_os("MATRIARCH_REQUIRE_POSTGRES").is_none(),
                    "MATRIARCH_REQUIRE_POSTGRES is set, but {missing}"
                );
                eprintln!("\n*** SKIPPED: {missing}\n");
                None
            }
        }
    }

    fn look() -> Result<Self, String> {
        let exe = std::env::current_exe().unwrap();
        let built = exe.ancestors().nth(2).unwrap().join("matriarch-supervisor");
        let supervisor = std::env::var_os("MATRIARCH_SUPERVISOR").map_or(built, PathBuf::from);
        if !supervisor.is_file() {
            return Err(format!("{} is not built (cargo build -p matriarch-supervisor)", supervisor.display()));
        }
        let bin_dir = std::env::var_os("MATRIARCH_POSTGRES_BIN").map(PathBuf::from);
        if let Some(dir) = bin_dir.as_ref().filter(|dir| !dir.join("postgres").is_file()) {
            return Err(format!("there is no PostgreSQL in {} (MATRIARCH_POSTGRES_BIN)", dir.display()));
        }
        let debian = bin_dir.is_some() || Path::new("/usr/lib/postgresql").is_dir();
        let in_path = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("initdb").is_file()));
        if !debian && !in_path {
            return Err("there is no PostgreSQL".to_owned());
        }
        let own = rustix::process::getuid().as_raw();
        if own != 0 {
            return Ok(Self { supervisor, bin_dir, uid: own, gid: rustix::process::getgid().as_raw() });
        }
        // initdb wants a user that /etc/passwd knows, and never root.
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let user = |name: &str| -> Option<(u32, u32)> {
            let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        let (uid, gid) = user("postgres").or_else(|| user("nobody")).ok_or("there is no user for PostgreSQL")?;
        Ok(Self { supervisor, bin_dir, uid, gid })
    }
}

/// A supervisor that is killed with everything below it when the test ends.
pub struct Member {
    pub name: String,
    pub dir: PathBuf,
    pub port: u16,
    pub config: Arc<Config>,
    pub postgres: Arc<Postgres>,
    pub supervisor: Supervisor,
    pub events: UnboundedReceiver<Event>,
    seq: u64,
    child: Child,
}

/// A port that nobody else gets: one that the kernel chose would be free again before PostgreSQL binds it, and could
/// become another member's (of a script beside this one), or a client's. So: each number once, below the range that
/// the kernel takes ports from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Shared memory of System V outlives a PostgreSQL that is killed and its data directory, and a kernel has room for 4,096 segments:
/// what this thread starts from now on has an IPC namespace, which ends with it.
fn own_ipc() {
    if rustix::process::getuid().is_root() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWIPC).expect("an IPC namespace");
    }
}

impl Member {
    pub async fn new(tools: &Tools, name: &str) -> Self {
        Self::with(tools, name, "", "").await
    }

    /// One whose section `matriarch` has more (`, key: value`, `DIR` is its folder).
    pub async fn with_matriarch(tools: &Tools, name: &str, matriarch: &str) -> Self {
        Self::made(tools, name, "", "", matriarch).await
    }

    /// One whose sections `bootstrap` and `postgresql` have more (in YAML's flow style, `DIR` is its folder).
    pub async fn with(tools: &Tools, name: &str, bootstrap: &str, postgresql: &str) -> Self {
        Self::made(tools, name, bootstrap, postgresql, "").await
    }

    /// One that is in no pod, with its configuration in `DIR/etc`, beside the volume.
    pub async fn with_config_dir(tools: &Tools, name: &str) -> Self {
        Self::made(tools, name, "", ", config_dir: DIR/etc", "").await
    }

    async fn made(tools: &Tools, name: &str, bootstrap: &str, postgresql: &str, matriarch: &str) -> Self {
        let outside = postgresql.contains("config_dir: DIR/etc");
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("matriarch-{}-{port}-{name}", std::process::id()));
        let secrets = dir.join("secrets");
        for folder in ["volume", "sockets", "secrets", "etc"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for (user, role) in
            [("superuser", "postgres"), ("replication", "replicator"), ("rewind", "rewinder"), ("app", "shop")]
        {
            std::fs::create_dir_all(secrets.join(user)).unwrap();
            std::fs::write(secrets.join(user).join("username"), role).unwrap();
            std::fs::write(secrets.join(user).join("password"), format!("{role}'s pass:word\\\n")).unwrap();
        }
        let supervisor = dir.join("matriarch-supervisor");
        // By another process: a descriptor open for writing here, inherited by a child that another script is just
        // starting, would make the program busy.
        assert!(Command::new("cp").arg(&tools.supervisor).arg(&supervisor).status().unwrap().success());
        for path in [dir.clone(), dir.join("volume"), dir.join("sockets"), dir.join("etc"), supervisor.clone()] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            chown(&path, Some(tools.uid), Some(tools.gid)).unwrap();
        }
        let text = format!(
            "scope: test
{restapi}bootstrap: {{initdb: [data-checksums, {{encoding: UTF8}}, {{locale: C.UTF-8}}]{bootstrap}}}
postgresql: {{listen: '127.0.0.1:{port}', data_dir: {dir}/volume/pgdata{postgresql}}}
matriarch: {{secrets_dir: {dir}/secrets, supervisor_socket: {dir}/sockets/supervisor.sock,
            postgres_socket_dir: {dir}/sockets, volume: {dir}/volume{matriarch}}}",
            matriarch = matriarch.replace("DIR", &dir.display().to_string()),
            dir = dir.display(),
            // In pods it is known.
            restapi = if outside { "restapi: {listen: '127.0.0.1:8008'}\n" } else { "" },
            bootstrap = bootstrap.replace("DIR", &dir.display().to_string()),
            postgresql = postgresql.replace("DIR", &dir.display().to_string()),
        );
        let env = |variable: &str| {
            Some(match variable {
                "POD_UID" if outside => return None,
                "POD_NAME" => name.to_owned(),
                "POD_IP" => "127.0.0.1".to_owned(),
                other => other.to_lowercase(),
            })
        };
        let config = Arc::new(Config::parse(Path::new("test.yml"), &text, env).unwrap());
        let mut command = Command::new(&supervisor);
        command
            .args(["run", "--volume", &dir.join("volume").display().to_string()])
            .args(["--socket", &config.matriarch.supervisor_socket.display().to_string()])
            .args(["--agent-uid", &rustix::process::getuid().as_raw().to_string()])
            .stdin(Stdio::null())
            .current_dir("/")
            .process_group(0);
        if outside {
            command.arg("--config-dir").arg(dir.join("etc"));
        }
        if let Some(bin_dir) = &tools.bin_dir {
            command.arg("--bin-dir").arg(bin_dir);
        }
        if rustix::process::getuid().is_root() {
            command.uid(tools.uid).gid(tools.gid);
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = loop {
            own_ipc();
            match command.spawn() {
                // Another test forked while the copy of the program was open for writing.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                spawned => break spawned.unwrap(),
            }
        };
        let (events_in, mut events) = unbounded_channel();
        let supervisor = Supervisor::connect(config.matriarch.supervisor_socket.clone(), events_in);
        let attached =
            tokio::time::timeout(Duration::from_secs(10), events.recv()).await.expect("no supervisor").unwrap();
        assert!(matches!(attached, Event::Attached(ref state) if state.version.is_some()), "{attached:?}");
        let postgres = Arc::new(Postgres::new(config.clone(), supervisor.clone()));
        Self { name: name.to_owned(), dir, port, config, postgres, supervisor, events, seq: 0, child }
    }

    pub fn permit_ms(&mut self, ms: u64) {
        self.seq += 1;
        self.supervisor.permit(self.seq, Some(clock::boot().plus_ms(ms)));
    }

    pub fn upstream(&self, slot: Option<&str>) -> Upstream {
        Upstream {
            member: self.name.clone(),
            host: format!("{}.invalid", self.name),
            ip: "127.0.0.1".to_owned(),
            port: self.port,
            slot: slot.map(ToOwned::to_owned),
        }
    }

    /// A script that PostgreSQL's user may run; `DIR` in it is our folder.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{}\n", text.replace("DIR", &self.dir.display().to_string())))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A copy of this member, which is the leader.
    pub fn copy(&self, slot: Option<&str>) -> Task {
        Task::BaseBackup { from: self.upstream(slot), leader: self.upstream(None) }
    }

    pub async fn task(&self, task: Task) -> Result<(), TaskError> {
        let start = Instant::now();
        let name = format!("{task:?}").split([' ', '{']).next().unwrap().to_owned();
        let result = self.postgres.task(task, std::future::pending()).await;
        eprintln!("{}: {name} took {} ms: {result:?}", self.name, start.elapsed().as_millis());
        result
    }

    pub async fn status(&self) -> ServerStatus {
        self.postgres.query(Duration::from_secs(2)).await.unwrap()
    }

    pub async fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.sql_in("postgres", sql).await
    }

    pub async fn sql_in(&self, dbname: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        let client = matriarch_sidecar::postgres::local::connect(&self.config, dbname, "").await.unwrap();
        let messages = client.simple_query(sql).await.unwrap();
        messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(ToOwned::to_owned)).collect())
                }
                _ => None,
            })
            .collect()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The folder of the programs of the server that runs.
    pub fn bin_dir(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.dir.join("volume/pgdata/postmaster.pid")).unwrap();
        let exe = std::fs::read_link(format!("/proc/{}/exe", text.lines().next().unwrap())).unwrap();
        exe.parent().unwrap().to_owned()
    }

    /// The next event that `wanted` takes.
    pub async fn event<T>(&mut self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), search).await.unwrap_or_else(|_| panic!("no event: {what}"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("MATRIARCH_SHOW_LOGS").is_some() {
            eprintln!("---- log of {}\n{}", self.name, self.log());
        }
        // Its children die with it: PostgreSQL's parent-death signal, and the postmaster's death for the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let marker = self.dir.display().to_string();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if pid != i32::try_from(std::process::id()).unwrap() && String::from_utf8_lossy(&line).contains(&marker) {
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_raw(pid).unwrap(),
                    rustix::process::Signal::KILL,
                );
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Parameters that make a small server, and `more`.
pub fn server(more: &[(&str, &str)]) -> ServerConfig {
    let small = [("shared_buffers", "16MB"), ("max_connections", "40")];
    let parameters: BTreeMap<String, String> =
        small.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ServerConfig { parameters, ..ServerConfig::default() }
}

/// Waits until something holds.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut holds: impl FnMut() -> F) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = holds().await {
            return value;
        }
        assert!(Instant::now() < end, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
