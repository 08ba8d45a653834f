//! Detached processes: started in a cgroup and a network namespace, and known by pid *and* start time, so that a
//! recycled pid is never signalled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::cgroup;

/// How to start a process; stored, so that it can be started again with the same arguments.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in messages and the stem of its log file.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Additional environment.
    pub env: Vec<(String, String)>,
    /// The name of its network namespace.
    pub netns: String,
    /// Its cgroup, relative to every hierarchy's root.
    pub cgroup: PathBuf,
    /// Where its output goes (appended).
    pub log: PathBuf,
}

/// A process, by pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid in the host's pid namespace.
    pub pid: u32,
    /// Its start time in clock ticks after boot, field 22 of /proc/PID/stat.
    pub started: u64,
}

/// What the harness was started with beyond the standard three is not handed on: a lock that the caller holds (`flock`)
/// would be held by the cluster's processes as long as they run.
const CLOSE: &str = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";

impl Spec {
    /// Starts the process in a session of its own. `setsid`, `nsenter` and `sh` all exec, so the pid is the program's.
    pub fn start(&self) -> Result<Process> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let join = cgroup::procs_files(&self.cgroup)
            .iter()
            .map(|file| format!("echo $$ > {}", file.display()))
            .collect::<Vec<_>>()
            .join("; ");
        let child = Command::new("setsid")
            .arg("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .args(["sh", "-c", &format!("{join}; {CLOSE}; exec \"$@\""), &self.name])
            .args(&self.argv)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("unable to start {}", self.name))?;
        Process::of(child.id()).with_context(|| format!("{} ended at once, see {}", self.name, self.log.display()))
    }
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (state != 'Z').then_some(Self { pid, started })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; nothing happens when the process is gone already.
    pub fn signal(self, signal: Signal) -> Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { bail!("no pid: {}", self.pid) };
        if self.is_alive() {
            match kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => bail!("unable to signal pid {}: {error}", self.pid),
            }
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let begin = Instant::now();
        while self.is_alive() {
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("pid {} is still there 10 s after SIGKILL", self.pid);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// State letter and start time of a process, from /proc/PID/stat.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// The command line of a process, for messages; empty for kernel threads and gone processes.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

/// Reads a record that was written by [`write_record`].
pub fn read_record<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Writes a JSON record so that a crash leaves the old or the new one, never half of it.
pub fn write_record<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_string_pretty(record)?)?;
    fs::rename(&temporary, path).with_context(|| path.display().to_string())
}
