//! Outside of the operator's pods the agent starts the supervisor itself: a process of its own session, which PostgreSQL and its
//! fence outlive the agent with. The next agent finds it by its socket.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config_dir;
use crate::config::Config;

/// The program, beside our own.
const PROGRAM: &str = "matriarch-supervisor";
/// Between two starts.
const PAUSE: Duration = Duration::from_secs(1);

/// Why PostgreSQL cannot be run here; every sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL refuses to.
    #[error(
        "PostgreSQL does not run as root: start the agent as the user that shall own the data (`User=postgres` in systemd, \
         or `runuser -u postgres -- matriarch-sidecar run …`)"
    )]
    Root,
    /// The folder above the data directory.
    #[error(
        "{path} cannot be used ({source}): it must exist or be makeable, and be writable for the agent's user, because new copies \
         are made beside the data directory and take its place by a rename"
    )]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder of the configuration.
    #[error(
        "postgresql.config_dir: {path} cannot be used ({source}): it must exist or be makeable, and be writable for the agent's user, \
         who writes postgresql.conf, pg_hba.conf and pg_ident.conf there"
    )]
    ConfigDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Two members with one folder would write over each other's configuration.
    #[error(
        "postgresql.config_dir: the server in {other} has its configuration in {dir}, as {file} says: write a folder for each member \
         alone; where that server is no more, remove {file}"
    )]
    Taken {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        other: PathBuf,
        /// What says so.
        file: PathBuf,
    },
    /// A rename cannot replace a mount point.
    #[error(
        "{path} is a mount point: write a folder below it as postgresql.data_dir, because new copies take its place by a rename"
    )]
    MountPoint {
        /// Which.
        path: PathBuf,
    },
    /// The supervisor's program.
    #[error(
        "{path} cannot be started ({source}): install it beside matriarch-sidecar (`matriarch-sidecar install DIR` copies both)"
    )]
    Start {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// As /proc tells the folder of a process. It need not exist yet.
fn without_links(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    let beside = || Some(parent?.join(path.file_name()?));
    path.canonicalize().ok().or_else(beside).unwrap_or_else(|| path.to_owned())
}

/// Starts the supervisor when nobody listens on its socket.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<String>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    child: Option<Child>,
    at: Option<Instant>,
}

impl Launcher {
    /// Makes the folders and checks what PostgreSQL would fail for. The configuration's folder may stay another one for now.
    pub fn prepare(config: &mut Config) -> Result<Self, Error> {
        if rustix::process::geteuid().is_root() {
            return Err(Error::Root);
        }
        usable(&config.matriarch.volume)?;
        if is_mount_point(&config.postgres.data_dir) {
            return Err(Error::MountPoint { path: config.postgres.data_dir.clone() });
        }
        usable(&config.matriarch.state_dir)?;
        usable(&config.matriarch.postgres_socket_dir)?;
        let config_dir = config_dir::settle(config)?;
        let volume = &config.matriarch.volume;
        let own = std::env::current_exe().and_then(std::fs::canonicalize).unwrap_or_default();
        let program = own.parent().unwrap_or(Path::new("/")).join(PROGRAM);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments = vec![
            "run".to_owned(),
            "--volume".to_owned(),
            text(volume),
            "--socket".to_owned(),
            text(&config.matriarch.supervisor_socket),
            "--agent-uid".to_owned(),
            rustix::process::geteuid().as_raw().to_string(),
            "--detached".to_owned(),
        ];
        arguments.extend(["--data-dir".to_owned(), text(&without_links(&config.postgres.data_dir))]);
        // Below the volume it may write anyway.
        if let Some(dir) = config_dir.filter(|dir| !dir.starts_with(volume)) {
            arguments.extend(["--config-dir".to_owned(), text(&dir)]);
        }
        if let Some(bin_dir) = &config.postgres.bin_dir {
            arguments.extend(["--bin-dir".to_owned(), text(bin_dir)]);
        }
        for (program, name) in &config.postgres.bin_names {
            arguments.extend(["--bin-name".to_owned(), format!("{program}={name}")]);
        }
        Ok(Self { program, arguments, last: Mutex::default() })
    }

    /// Starts it, at most once a second. One that finds another at work ends by itself.
    pub(super) fn launch(&self) -> Result<(), Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(());
        }
        last.at = Some(Instant::now());
        if let Some(child) = &mut last.child {
            // What ended is taken note of, so that it does not stay as a zombie.
            let _ = child.try_wait();
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).current_dir("/");
        for (name, _) in std::env::vars_os() {
            // Passwords, and what Kubernetes injects.
            if name.to_str().is_none_or(|name| name.starts_with("PATRONI_") || name.starts_with("KUBERNETES_")) {
                command.env_remove(&name);
            }
        }
        let child = command.spawn().map_err(|source| Error::Start { path: self.program.clone(), source })?;
        tracing::info!(supervisor.pid = child.id(), "a supervisor for PostgreSQL is started");
        last.child = Some(child);
        Ok(())
    }
}

/// Whether a folder is there or could be made, and is writable for us, without making it; else which one on the way is not, and why.
pub fn makeable(dir: &Path) -> Result<(), (&Path, std::io::Error)> {
    use rustix::fs::{Access, access};
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir);
    if !there.is_dir() {
        return Err((there, std::io::ErrorKind::NotADirectory.into()));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| (there, errno.into()))
}

/// There, a folder, and writable for us.
pub(super) fn usable(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    if !path.is_dir() {
        std::fs::create_dir_all(path).map_err(failed)?;
        let private = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(failed)?;
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|errno| failed(errno.into()))
}

/// On another file system than the folder above it.
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    match (device(path), path.parent().and_then(device)) {
        (Some(own), Some(above)) => own != above,
        _ => false,
    }
}
