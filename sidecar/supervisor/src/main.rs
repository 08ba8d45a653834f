//! `matriarch-supervisor`: process 1 of the postgres container.
//!
//! One thread and one `poll` loop. Whatever can wait for a disk or another process happens in children, so that the
//! fence closes in time whatever else hangs. See [`supervisor`].

mod adopt;
mod child;
mod connection;
mod event_loop;
mod files;
mod job;
mod launch;
mod log;
mod paths;
mod pidfile;
mod processes;
mod programs;
mod stopping;
mod supervisor;
mod sys;
#[cfg(test)]
mod test_dir;
mod watchdog;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::event_loop::RunError;
use crate::supervisor::Options;

const USAGE: &str = "usage: matriarch-supervisor run --volume DIR --socket PATH --agent-uid UID [--bin-dir DIR] [--versions DIR] [--data-dir DIR] [--config-dir DIR] [--detached]
  --volume     the data volume: all file operations stay below it
  --socket     the unix socket to listen on
  --agent-uid  the only user that may connect
  --bin-dir    where PostgreSQL's programs are; else PATH and --versions are searched
  --versions   where versions of PostgreSQL are that are not in PATH (/usr/lib/postgresql)
  --data-dir   where a server may run already that was started before us (without links)
  --config-dir where PostgreSQL's configuration files are, if not below the volume: single files right in it may be read and written
  --detached   outside of a container: a session of its own, one for each socket, and an end when nothing is left to do";

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error("{0}\n{USAGE}")]
    Usage(String),
    #[error(transparent)]
    Run(#[from] RunError),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let result = match args.next().and_then(|first| first.into_string().ok()).as_deref() {
        Some(job::COMMAND) => {
            return ExitCode::from(job::main(args.next().as_deref().and_then(|parent| parent.to_str())));
        }
        Some("run") => options(args).and_then(|options| Ok(event_loop::run(options)?)),
        Some("--version" | "-V") => {
            println!("matriarch-supervisor {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => Err(MainError::Usage("a command is missing".to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("matriarch-supervisor: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = OsString>) -> Result<Options, MainError> {
    let (mut volume, mut socket, mut agent_uid) = (None, None, None);
    let mut versions = PathBuf::from(programs::DEBIAN);
    let (mut bin_dir, mut data_dir, mut config_dir, mut detached) = (None, None, None, false);
    let mut bin_names = BTreeMap::new();
    while let Some(name) = args.next() {
        let name = name.to_string_lossy().into_owned();
        if name == "--detached" {
            detached = true;
            continue;
        }
        let value = args.next().ok_or_else(|| MainError::Usage(format!("{name} needs a value")))?;
        match name.as_str() {
            "--volume" => volume = Some(PathBuf::from(value)),
            "--socket" => socket = Some(PathBuf::from(value)),
            "--agent-uid" => agent_uid = value.to_str().and_then(|uid| uid.parse().ok()),
            "--bin-dir" => bin_dir = Some(PathBuf::from(value)),
            "--bin-name" => {
                let (program, name) = value
                    .to_str()
                    .and_then(|value| value.split_once('='))
                    .ok_or_else(|| MainError::Usage("--bin-name is PROGRAM=NAME".to_owned()))?;
                bin_names.insert(program.to_owned(), name.to_owned());
            }
            "--data-dir" => data_dir = Some(PathBuf::from(value)),
            "--config-dir" => config_dir = Some(folder(Path::new(&value))?),
            "--versions" => versions = PathBuf::from(value),
            _ => return Err(MainError::Usage(format!("{name} is unknown"))),
        }
    }
    let missing = |name: &str| MainError::Usage(format!("{name} is missing or wrong"));
    Ok(Options {
        volume: volume
            .filter(|volume| volume.is_absolute())
            .map(|volume| volume.components().collect())
            .ok_or_else(|| missing("--volume"))?,
        socket: socket.ok_or_else(|| missing("--socket"))?,
        agent_uid: agent_uid.ok_or_else(|| missing("--agent-uid"))?,
        bin_dir,
        bin_names,
        data_dir,
        config_dir,
        versions,
        detached,
    })
}

/// An absolute folder, as it is compared with: without `..`, double and closing slashes.
fn folder(path: &Path) -> Result<PathBuf, MainError> {
    paths::plain(path)
        .filter(|path| path.parent().is_some())
        .ok_or_else(|| MainError::Usage(format!("--config-dir {} is no absolute folder without `..`", path.display())))
}

/// An error with all of its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
