//! How a child becomes a postmaster or a tool: own session, lock held, folder checked.

use std::fs;
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use matriarch_supervisor::protocol::{Answer, Refusal, StartRole};

use crate::files::{FileError, make_folder};
use crate::job::{Launch, Outcome, tell};
use crate::pidfile::{self, PidFileError};
use crate::{paths, sys};

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{data_dir} is no data directory: {why}")]
    NotReady { data_dir: PathBuf, why: &'static str },
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error("cannot {what}")]
    Process { what: &'static str, source: io::Error },
    #[error("cannot execute {program}")]
    Execute { program: PathBuf, source: io::Error },
}

impl LaunchError {
    fn answer(&self) -> Answer {
        let kind = match self {
            Self::File(error) => return error.answer(),
            Self::NotReady { .. } => Refusal::NotFound,
            Self::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => Refusal::NotFound,
            Self::PidFile(PidFileError::Running { .. }) => Refusal::WrongState,
            Self::PidFile(_) | Self::Process { .. } | Self::Execute { .. } => Refusal::Io,
        };
        Answer::Refused { kind, message: crate::chain(self) }
    }

    fn process(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { what, source }
    }
}

/// Does not return where all goes well.
pub fn become_program(launch: &Launch, socket: &mut UnixStream) -> Answer {
    match try_become(launch, socket) {
        Ok(never) => match never {},
        Err(error) => error.answer(),
    }
}

fn try_become(launch: &Launch, socket: &mut UnixStream) -> Result<std::convert::Infallible, LaunchError> {
    rustix::process::setsid().map_err(|errno| LaunchError::process("open a session")(errno.into()))?;

    let mut args = launch.args.clone();
    if let Some(written) = &launch.lock {
        let data_dir = paths::target_of(&launch.volume, written).map_err(FileError::from)?;
        if let Some(parent) = data_dir.parent() {
            make_folder(parent)?;
        }
        let lock = sys::lock(&sys::lock_path(&data_dir), true)
            .map_err(FileError::io("lock", &data_dir))?
            .ok_or_else(|| FileError::Locked { path: data_dir.clone() })?;
        sys::keep_open_over_exec(&lock).map_err(LaunchError::process("keep the lock"))?;
        // Held from here on by this process, by the program that it becomes, and by every child of that.
        std::mem::forget(lock);
        if let Some(role) = launch.role {
            prepare(&data_dir, role)?;
            args.splice(0..0, ["-D".to_owned(), data_dir.to_string_lossy().into_owned()]);
        }
    }

    let stdin = if launch.stdin.is_empty() { Stdio::null() } else { Stdio::from(in_memory(&launch.stdin)?) };
    let mut command = Command::new(&launch.program);
    command.args(args).env_clear().envs(&launch.env).stdin(stdin);
    tell(socket, &Outcome::Executing);
    let source = command.exec();
    Err(LaunchError::Execute { program: launch.program.clone(), source })
}

/// Checks a data directory before a postmaster starts in it, and makes it as PostgreSQL wants it.
fn prepare(data_dir: &Path, role: StartRole) -> Result<(), LaunchError> {
    let not_ready = |why| LaunchError::NotReady { data_dir: data_dir.to_owned(), why };
    if !data_dir.join("PG_VERSION").is_file() {
        return Err(not_ready("it has no PG_VERSION"));
    }
    // Kubernetes' fsGroup makes it writable for the group, which PostgreSQL refuses.
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700))
        .map_err(FileError::io("make private", data_dir))?;
    match (role, data_dir.join("standby.signal").exists()) {
        (StartRole::Primary, true) => return Err(not_ready("standby.signal is there, but it was to start as primary")),
        (StartRole::Standby, false) => return Err(not_ready("it has no standby.signal, so it would be a primary")),
        (StartRole::Primary, false) | (StartRole::Standby, true) => {}
    }
    let me = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    if let Some(done) = pidfile::settle(data_dir, me)? {
        // Standard error is the container's log, as the postmaster's will be.
        eprintln!("matriarch-supervisor: {done}");
    }
    Ok(())
}

/// A file without a disk, to be read from its start.
fn in_memory(text: &str) -> Result<fs::File, LaunchError> {
    let failed = LaunchError::process;
    let fd = rustix::fs::memfd_create("stdin", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| failed("make a file in memory")(errno.into()))?;
    let mut file = fs::File::from(fd);
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed("write a file in memory"))?;
    Ok(file)
}

/// The first half of `pg_ctl promote`; the second is SIGUSR1, which the supervisor sends.
pub fn ask_promotion(volume: &Path, data_dir: &Path) -> Answer {
    let done = paths::target_of(volume, data_dir).map_err(FileError::from).and_then(|data_dir| {
        let path = data_dir.join("promote");
        fs::File::create(&path).map(drop).map_err(FileError::io("make", &path))
    });
    done.map_or_else(|error| error.answer(), |()| Answer::Ok)
}
