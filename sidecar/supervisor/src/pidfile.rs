//! What a killed postmaster left behind: `postmaster.pid` and the lock file of its unix socket.
//!
//! PostgreSQL refuses to start while the process id in either file belongs to any living process. In containers small
//! process ids come again with every start, so that is regularly a stranger. PostgreSQL's second proof is the shared
//! memory segment named in the seventh line: a segment with somebody attached means that backends of the former
//! postmaster still run.
//!
//! Removing `postmaster.pid` would lose that second proof. So it is not removed: its process id is replaced by the one
//! that is about to become the postmaster, which PostgreSQL takes as "left by a process that is gone", and goes on to
//! check the segment by itself. Before that
//! * the lock beside the data directory is held, which every postmaster started by a supervisor holds with all of its
//!   children, in whichever container of whichever node shares the volume;
//! * a living process with the data directory as its working directory (every PostgreSQL process changes into it) is
//!   taken for what it seems to be, and the start is refused. This finds servers that a person started by hand.
//!
//! What is left to chance: a server started by hand in *another* container on the same volume. PostgreSQL itself sees
//! neither its process id nor its segment there. Nothing can be proven about that one from here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a start cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A server that this supervisor did not start.
    #[error("process {pid} runs in {data_dir}: a server that somebody else started")]
    Running {
        /// Its process id.
        pid: i32,
        /// Where.
        data_dir: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot put {path} right")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the files of a former postmaster of `data_dir` (a path without links) harmless for the process `me`, which
/// holds the lock and is about to become the postmaster. Says what it did.
pub fn settle(data_dir: &Path, me: i32) -> Result<Option<String>, PidFileError> {
    let path = data_dir.join("postmaster.pid");
    let failed = |source| PidFileError::Io { path: path.clone(), source };
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let lines: Vec<&str> = text.lines().collect();
    // PostgreSQL writes it in one piece; an empty or cut one comes from a machine that lost power, and names nothing.
    let Some(pid) = lines.first().and_then(|line| line.trim().parse::<i32>().ok()).map(i32::saturating_abs) else {
        fs::remove_file(&path).map_err(failed)?;
        return Ok(Some(format!("removed {}, which names no process", path.display())));
    };
    if pid == me || !exists(pid) {
        return Ok(None);
    }
    if works_in(pid, data_dir) {
        return Err(PidFileError::Running { pid, data_dir: data_dir.to_owned() });
    }
    remove_socket_lock(&lines, pid)?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    let temporary = data_dir.join("postmaster.pid.matriarch");
    fs::write(&temporary, format!("{me}\n{rest}")).map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)?;
    Ok(Some(format!("{} named process {pid}, which is no server of this directory", path.display())))
}

/// The socket's lock file holds nothing but the process id and what the other file says as well: it may go.
fn remove_socket_lock(lines: &[&str], pid: i32) -> Result<(), PidFileError> {
    let (Some(port), Some(folder)) = (lines.get(3), lines.get(4)) else { return Ok(()) };
    if folder.is_empty() || port.parse::<u16>().is_err() {
        return Ok(());
    }
    let path = Path::new(folder).join(format!(".s.PGSQL.{port}.lock"));
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let mut its = text.lines();
    if its.next().and_then(|line| line.trim().parse().ok()) == Some(pid) && its.next() == lines.get(1).copied() {
        fs::remove_file(&path).map_err(|source| PidFileError::Io { path, source })?;
    }
    Ok(())
}

/// Processes and threads: PostgreSQL's kill(pid, 0) finds both.
fn exists(pid: i32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Whether a living process is PostgreSQL in this directory. One whose folder may not be seen is judged by its name.
fn works_in(pid: i32, data_dir: &Path) -> bool {
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(folder) => folder == data_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(_) => fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::test_dir::TestDir;

    fn content(pid: u32, socket_dir: &Path) -> String {
        format!("{pid}\n/data\n1700000000\n5432\n{}\n*\n  5432001     65536\nready   \n", socket_dir.display())
    }

    #[test]
    fn a_stranger_does_not_block_and_the_segment_is_kept() {
        let dir = TestDir::new();
        let data = dir.path().canonicalize().unwrap();
        let file = data.join("postmaster.pid");
        let lock = data.join(".s.PGSQL.5432.lock");
        for stranger in [1, std::os::unix::process::parent_id(), std::process::id()] {
            fs::write(&file, content(stranger, &data)).unwrap();
            fs::write(&lock, format!("{stranger}\n/data\n1\n5432\n")).unwrap();
            assert!(settle(&data, 4242).unwrap().is_some());
            assert_eq!(fs::read_to_string(&file).unwrap(), content(4242, &data));
            assert!(!lock.exists());
        }
    }

    #[test]
    fn a_thread_of_a_stranger_does_not_block() {
        let dir = TestDir::new();
        let data = dir.path().canonicalize().unwrap();
        let (tell, hear) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
            let _ = ended.recv();
        });
        let tid: u32 = hear.recv().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
        fs::write(data.join("postmaster.pid"), content(tid, &data)).unwrap();
        assert!(settle(&data, 4242).unwrap().is_some());
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn a_server_of_this_directory_is_never_missed() {
        let dir = TestDir::new();
        let data = dir.path().canonicalize().unwrap();
        let mut child = Command::new("sleep").arg("60").current_dir(&data).stdin(Stdio::null()).spawn().unwrap();
        // A fork works in the parent's folder before it has changed into its own.
        fs::write(data.join("postmaster.pid"), content(child.id(), &data)).unwrap();
        let result = settle(&data, 4242);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(result, Err(PidFileError::Running { .. })), "{result:?}");
    }

    #[test]
    fn dead_empty_and_missing() {
        let dir = TestDir::new();
        let data = dir.path();
        assert!(settle(data, 4242).unwrap().is_none());
        fs::write(data.join("postmaster.pid"), content(4_194_303, data)).unwrap();
        assert!(settle(data, 4242).unwrap().is_none(), "PostgreSQL deals with this one");
        fs::write(data.join("postmaster.pid"), "").unwrap();
        assert!(settle(data, 4242).unwrap().is_some());
        assert!(!data.join("postmaster.pid").exists());
    }
}
