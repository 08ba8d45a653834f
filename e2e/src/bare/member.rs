//! One member: its folder, its agent's process, and what can be done to it and to what it started.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::patroni::Patroni;
use super::postgres::Postgres;
use super::stage::Stage;
use crate::host::process::Process;
use crate::workload::Database;

/// Of every member: each has an address of its own.
pub const POSTGRES_PORT: u16 = 5432;
/// The REST API.
pub const API_PORT: u16 = 8008;
/// Of the superuser.
pub const PASSWORD: &str = "tusk's pass:word";
/// For one question.
const ASK: Duration = Duration::from_secs(2);

/// One member.
#[derive(Debug)]
pub struct Member {
    /// Its name, and that of its Pod object.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// All that is its own.
    pub folder: PathBuf,
    /// What it runs.
    pub postgres: Postgres,
    program: PathBuf,
    patroni: Patroni,
    /// Its agent is Patroni, from the next start on.
    runs_patroni: AtomicBool,
    /// Environment of the agent.
    env: Vec<(String, String)>,
    agent: Mutex<Option<Child>>,
}

impl Member {
    /// Makes its folder, which belongs to PostgreSQL's user.
    pub fn new(name: &str, address: Ipv4Addr, team: &Path, stage: &Stage) -> Result<Self> {
        let (folder, postgres) = (team.join(name), &stage.postgres);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        chown(&folder, Some(postgres.uid), Some(postgres.gid))?;
        Ok(Self {
            name: name.to_owned(),
            address,
            folder,
            postgres: postgres.clone(),
            program: stage.agent.clone(),
            patroni: stage.patroni.clone(),
            runs_patroni: AtomicBool::default(),
            env: Vec::new(),
            agent: Mutex::default(),
        })
    }

    /// PGDATA.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("pgdata")
    }

    /// What agent, supervisor and postmaster write.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The text of the log.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Where the configuration is.
    pub fn config(&self) -> PathBuf {
        self.folder.join("patroni.yml")
    }

    /// Writes the configuration.
    pub fn configure(&self, config: &Value) -> Result<()> {
        fs::write(self.config(), serde_saphyr::to_string(config)?)?;
        Ok(())
    }

    /// Sets the agent's environment from its next start on.
    pub fn set_env(&mut self, env: &[(&str, &str)]) {
        self.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Starts the agent; fine when it runs.
    pub fn start(&self, kubeconfig: &Path) -> Result<()> {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = agent.as_mut()
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        let mut command = self.command(kubeconfig)?;
        command.uid(self.postgres.uid).gid(self.postgres.gid);
        *agent = Some(command.spawn().context("unable to start the agent")?);
        Ok(())
    }

    /// From its next start on its agent is Patroni, or ours.
    pub fn run_patroni(&self, patroni: bool) {
        self.runs_patroni.store(patroni, Ordering::Relaxed);
    }

    /// Its agent is Patroni.
    pub fn runs_patroni(&self) -> bool {
        self.runs_patroni.load(Ordering::Relaxed)
    }

    /// `matriarch-sidecar run …`, or `patroni …`, as this program's user.
    pub fn command(&self, kubeconfig: &Path) -> Result<Command> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = if self.runs_patroni() { self.patroni.patroni() } else { Command::new(&self.program) };
        if !self.runs_patroni() {
            command.env_clear().args(["--log-format", "text", "run"]);
        }
        command.env("PATH", "/usr/bin:/bin").env("HOME", &self.folder).env("KUBECONFIG", kubeconfig);
        command.env("MATRIARCH_LOG", "info").envs(self.env.iter().cloned());
        command.arg(self.config()).current_dir("/");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// The agent's process, if it runs.
    pub fn agent(&self) -> Result<Process> {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = agent.as_ref().map(Child::id);
        pid.and_then(Process::of).with_context(|| format!("no agent of {} runs", self.name))
    }

    /// SIGKILL to the agent alone.
    pub fn kill_agent(&self) -> Result<()> {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = agent.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM to the agent, and waits for its end.
    pub async fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.agent()?.signal(Signal::TERM)?;
        self.ended(deadline).await
    }

    /// Waits for the agent's end.
    pub async fn ended(&self, deadline: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            let status = match self.agent.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                Some(child) => child.try_wait()?,
                None => bail!("the agent of {} was not started", self.name),
            };
            if let Some(status) = status {
                return Ok(status);
            }
            if begin.elapsed() > deadline {
                bail!("the agent of {} still runs after {} s", self.name, deadline.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The supervisor that this member's agent started.
    pub fn supervisor(&self) -> Result<Process> {
        let socket = self.folder.join("pgdata.matriarch/supervisor.sock").display().to_string();
        let is_it = |line: &str| line.contains("--socket") && line.contains(&socket);
        find(is_it).into_iter().next().with_context(|| format!("no supervisor of {} runs", self.name))
    }

    /// The postmaster, by `postmaster.pid`.
    pub fn postmaster(&self) -> Result<Process> {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid"))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).context("no pid")?;
        Process::of(pid).with_context(|| format!("the postmaster of {} is gone", self.name))
    }

    /// Every process that has this member's folder in its command line or is a server's below it, supervisor and agent included.
    pub fn processes(&self) -> Vec<Process> {
        let marker = format!("{}/", self.folder.display());
        let data_dir = self.data_dir();
        let mine = |pid: u32, line: &str| {
            line.contains(&marker) || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data_dir)
        };
        find_with_pid(mine)
    }

    /// Fails when anything of it still runs.
    pub fn nothing_runs(&self) -> Result<()> {
        let lines: Vec<String> = self
            .processes()
            .iter()
            .map(|one| crate::host::process::command_line(one.pid))
            .filter(|line| !line.is_empty())
            .collect();
        if !lines.is_empty() {
            bail!("of {} there still runs: {}", self.name, lines.join("; "));
        }
        Ok(())
    }

    /// SIGKILL to everything of this member, until nothing is left.
    pub fn kill_everything(&self) -> Result<()> {
        self.kill_agent()?;
        for _ in 0..50 {
            let all = self.processes();
            if all.is_empty() {
                return Ok(());
            }
            for process in all {
                process.signal(Signal::KILL)?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("processes of {} survive SIGKILL", self.name)
    }

    /// SIGSTOP to everything: as if the machine had been frozen.
    pub fn freeze(&self) -> Result<Vec<Process>> {
        let all = self.processes();
        for process in &all {
            process.signal(Signal::STOP)?;
        }
        Ok(all)
    }

    /// The database `postgres`, as the superuser.
    pub fn database(&self) -> Database {
        database(self.address)
    }

    /// Rows of a statement that may run twice.
    pub async fn sql(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.database().query(sql, Duration::from_secs(5)).await
    }

    /// One value.
    pub async fn value(&self, sql: &str) -> Result<String> {
        let rows = self.sql(sql).await?;
        rows.into_iter().next().and_then(|row| row.into_iter().next()).with_context(|| format!("no row: {sql}"))
    }

    /// `GET /patroni`.
    pub async fn status(&self) -> Result<Value> {
        let (_, body) = get(self.address, "/patroni").await?;
        Ok(serde_json::from_str(&body)?)
    }

    /// `POST`, with the code and text of the answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, String)> {
        request(self.address, "POST", path, &body.to_string(), Duration::from_secs(40)).await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.kill_everything();
    }
}

/// The database `postgres` at an address, as the superuser.
pub fn database(address: Ipv4Addr) -> Database {
    Database {
        address: address.to_string(),
        port: POSTGRES_PORT,
        server_port: POSTGRES_PORT,
        user: "postgres".to_owned(),
        password: PASSWORD.to_owned(),
        dbname: "postgres".to_owned(),
    }
}

fn find(is_it: impl Fn(&str) -> bool) -> Vec<Process> {
    find_with_pid(|_, line| is_it(line))
}

fn find_with_pid(is_it: impl Fn(u32, &str) -> bool) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|&pid| is_it(pid, &crate::host::process::command_line(pid)))
        .filter_map(Process::of)
        .collect()
}

/// `GET`, with the code and text of the answer.
pub async fn get(address: Ipv4Addr, path: &str) -> Result<(u16, String)> {
    request(address, "GET", path, "", ASK).await
}

/// One request over one connection.
pub async fn request(
    address: Ipv4Addr,
    method: &str,
    path: &str,
    body: &str,
    deadline: Duration,
) -> Result<(u16, String)> {
    request_at(SocketAddr::from((address, API_PORT)), method, path, body, deadline).await
}

/// One request over one connection, to any port.
pub async fn request_at(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    deadline: Duration,
) -> Result<(u16, String)> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let host = address.ip();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        anyhow::Ok((code, if chunked { whole(body) } else { body.to_owned() }))
    };
    tokio::time::timeout(deadline, asked).await.context("no answer in time")?
}

/// A body that came in chunks.
fn whole(mut chunks: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let chunk = usize::from_str_radix(size.trim(), 16)
            .ok()
            .filter(|size| *size > 0)
            .and_then(|size| rest.split_at_checked(size));
        let Some((chunk, rest)) = chunk else { break };
        text.push_str(chunk);
        chunks = rest.trim_start_matches("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_make_a_body() {
        assert_eq!(whole("3\r\na,b\r\n2\r\n\nc\r\n0\r\n\r\n"), "a,b\nc");
        assert_eq!(whole(""), "");
    }
}
