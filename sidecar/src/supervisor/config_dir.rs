//! `postgresql.config_dir` outside of pods: whose folder it is, and which one is in force while PostgreSQL runs.
//!
//! The supervisor is told the folder when it is started, and takes no other word for it: who has taken over the agent gains nothing.
//! So the folder of a server that runs stays, and another one comes into force when nothing runs any more; a note beside the data
//! directory says which one that is. Each folder belongs to one data directory, by a file in it: two members that were given the same
//! one find out before either has written anything there.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::launch::{Error, makeable, usable};
use crate::config::Config;

/// In the folder: the data directory that it belongs to.
const OWNER: &str = ".matriarch";
/// Beside the data directory: the folder in force.
const NOTE: &str = "config_dir";

/// Makes the folder ours, and says where it is: none, when it lies in the data directory. While something runs under another one, that
/// one stays in force, in `config` as well.
pub fn settle(config: &mut Config) -> Result<Option<PathBuf>, Error> {
    let data_dir = config.postgres.data_dir.clone();
    let note = config.matriarch.state_dir.join(NOTE);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, source }
    };
    let noted = match std::fs::read_to_string(&note) {
        Ok(text) => Some(PathBuf::from(text.trim_end_matches('\n'))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&note)(error)),
    };
    let watched = UnixStream::connect(&config.matriarch.supervisor_socket).is_ok();
    let in_force = match noted {
        Some(noted) if watched || runs(&data_dir) => {
            keep(config, &noted);
            return Ok(elsewhere(noted, &data_dir));
        }
        // Of an agent from before there were such folders.
        None if watched && !config.postgres.config_dir.starts_with(&config.matriarch.volume) => {
            keep(config, &data_dir);
            return Ok(None);
        }
        _ => config.postgres.config_dir.clone(),
    };
    let ours = elsewhere(in_force.clone(), &data_dir);
    if let Some(dir) = &ours {
        usable(dir).map_err(|error| match error {
            Error::Folder { path, source } => Error::ConfigDir { path, source },
            other => other,
        })?;
        own(dir, &config.postgres.config_base_name, &data_dir)?;
    }
    atomically(&note, &in_force).map_err(failed(&note))?;
    Ok(ours)
}

/// What is wrong with the folder, without changing anything.
pub fn problem(config: &Config) -> Option<String> {
    let (dir, data_dir) = (&config.postgres.config_dir, &config.postgres.data_dir);
    elsewhere(dir.clone(), data_dir)?;
    let error = makeable(dir).err().map(|(path, source)| Error::ConfigDir { path: path.to_owned(), source });
    let said = error.or_else(|| taken(dir, &config.postgres.config_base_name, data_dir).err())?.to_string();
    Some(said.trim_start_matches("postgresql.config_dir: ").to_owned())
}

/// A folder in the data directory comes and goes with it.
fn elsewhere(dir: PathBuf, data_dir: &Path) -> Option<PathBuf> {
    (!dir.starts_with(data_dir)).then_some(dir)
}

/// What runs goes on with its folder.
fn keep(config: &mut Config, in_force: &Path) {
    if config.postgres.config_dir == in_force {
        return;
    }
    tracing::warn!(
        "postgresql.config_dir: PostgreSQL or its supervisor runs with {}, which stays in force until both have been stopped and the \
         agent is started anew: then it is {}",
        in_force.display(),
        config.postgres.config_dir.display()
    );
    in_force.clone_into(&mut config.postgres.config_dir);
    // So that it stays so when the file is read again.
    if let Some(section) = config.document.get_mut("postgresql").and_then(serde_json::Value::as_object_mut) {
        section.insert("config_dir".to_owned(), in_force.to_string_lossy().into_owned().into());
    }
}

/// A postmaster works in the data directory.
fn runs(data_dir: &Path) -> bool {
    let pid = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok();
    let pid = pid.and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
    let works_in = pid.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok());
    works_in.is_some_and(|dir| same(&dir, data_dir))
}

/// The same file or folder, by whatever links.
pub fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

/// Nobody else's, by what is written there.
fn taken(dir: &Path, base_name: &str, data_dir: &Path) -> Result<bool, Error> {
    let of = |file: PathBuf, other: &str| Error::Taken { dir: dir.to_owned(), other: other.into(), file };
    let owner = dir.join(OWNER);
    match std::fs::read_to_string(&owner) {
        Ok(text) if same(Path::new(text.trim_end_matches('\n')), data_dir) => return Ok(true),
        Ok(text) => return Err(of(owner, text.trim_end_matches('\n'))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::ConfigDir { path: owner, source }),
    }
    // A server that is none of ours yet: Debian's, or Patroni's.
    let conf = dir.join(format!("{base_name}.conf"));
    let text = std::fs::read_to_string(&conf).unwrap_or_default();
    match text.lines().rev().find_map(data_directory) {
        Some(other) if !same(Path::new(&other), data_dir) => Err(of(conf, &other)),
        _ => Ok(false),
    }
}

/// `data_directory = '/var/lib/postgresql/17/main'`
fn data_directory(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("data_directory")?.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let inner = value.strip_prefix('\'')?;
    let (value, _) = inner.split_once('\'')?;
    value.starts_with('/').then(|| value.to_owned())
}

fn own(dir: &Path, base_name: &str, data_dir: &Path) -> Result<(), Error> {
    if taken(dir, base_name, data_dir)? {
        return Ok(());
    }
    let failed = |source| Error::ConfigDir { path: dir.to_owned(), source };
    let (owner, mine) = (dir.join(OWNER), dir.join(format!("{OWNER}.{}", std::process::id())));
    atomically(&mine, data_dir).map_err(failed)?;
    // Whole, and by one alone.
    let linked = std::fs::hard_link(&mine, &owner);
    let _ = std::fs::remove_file(&mine);
    match linked {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken(dir, base_name, data_dir).map(drop),
        Err(error) => Err(failed(error)),
    }
}

/// A file with a path in it.
fn atomically(file: &Path, path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let temporary = file.with_extension("tmp");
    let mut out = std::fs::File::create(&temporary)?;
    out.write_all(path.as_os_str().as_bytes())?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    std::fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests;
