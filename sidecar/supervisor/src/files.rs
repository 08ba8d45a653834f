//! File operations, in a child of their own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use matriarch_supervisor::protocol::{Answer, FileOp, Refusal};

use crate::paths::{self, PathError};
use crate::sys;

/// Longest file that is read.
const MAX_READ: u64 = 512 * 1024;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A path that may not be touched.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Bad in itself.
    #[error("{path}: {why}")]
    Invalid {
        /// On what.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Somebody works in there.
    #[error("another process holds the lock beside {path}")]
    Locked {
        /// On what.
        path: PathBuf,
    },
    /// Not there, and that is no good.
    #[error("there is no {path}")]
    NotFound {
        /// What.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot {what} {path}")]
    Io {
        /// Doing what.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FileError {
    /// Gives the path and the deed to an error of the operating system.
    pub fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// As the agent sees it.
    pub fn answer(&self) -> Answer {
        let kind = match self {
            Self::Path(PathError::Resolve { .. }) | Self::Io { .. } => Refusal::Io,
            Self::Path(_) | Self::Invalid { .. } => Refusal::Invalid,
            Self::Locked { .. } => Refusal::Locked,
            Self::NotFound { .. } => Refusal::NotFound,
        };
        Answer::Refused { kind, message: crate::chain(self) }
    }
}

/// Does one.
pub fn run(volume: &Path, config_dir: Option<&Path>, op: &FileOp) -> Result<Answer, FileError> {
    let root = |path: &Path| paths::root(volume, config_dir, path);
    match op {
        FileOp::Read { path } => read(&paths::target_of(root(path), path)?),
        FileOp::Write { path, content, mode } => {
            write(&not_a_lock(paths::name_in(root(path), path)?)?, content.as_bytes(), *mode)
        }
        FileOp::WriteHex { path, hex, mode } => {
            let path = not_a_lock(paths::name_in(volume, path)?)?;
            let bytes =
                bytes(hex).ok_or_else(|| FileError::Invalid { path: path.clone(), why: "not hexadecimal digits" })?;
            write(&path, &bytes, *mode)
        }
        FileOp::Remove { path } => remove(&not_a_lock(paths::name_in(volume, path)?)?),
        FileOp::Rename { from, to } => {
            rename(&not_a_lock(paths::name_in(volume, from)?)?, &not_a_lock(paths::name_in(volume, to)?)?)
        }
        FileOp::RemoveTree { path } => remove_tree(&paths::name_in(volume, path)?),
        FileOp::List { path } => list(&paths::target_of(volume, path)?),
    }
}

/// Whoever removed the lock beside a data directory, or put another file there, would break it for all others.
fn not_a_lock(path: PathBuf) -> Result<PathBuf, FileError> {
    if path.extension().is_some_and(|extension| extension == "lock") {
        return Err(FileError::Invalid { path, why: "the locks beside data directories are the supervisor's" });
    }
    Ok(path)
}

/// Nobody works in the folder as long as this is held. A folder without a lock beside it was never worked in.
fn idle(path: &Path) -> Result<Option<File>, FileError> {
    match sys::lock(&sys::lock_path(path), false) {
        Ok(None) => Err(FileError::Locked { path: path.to_owned() }),
        Ok(held) => Ok(held),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(FileError::io("lock", path)(error)),
    }
}

fn read(path: &Path) -> Result<Answer, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::Content { content: None }),
        Err(error) => return Err(FileError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_READ + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > MAX_READ {
        return Err(FileError::Invalid { path: path.to_owned(), why: "longer than 512 KiB" });
    }
    let content = String::from_utf8(bytes).map_err(|_| FileError::Invalid {
        path: path.to_owned(),
        why: "not UTF-8: reading it as text would change it",
    })?;
    Ok(Answer::Content { content: Some(content) })
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<Answer, FileError> {
    let invalid = |why| FileError::Invalid { path: path.to_owned(), why };
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(|| invalid("not a file"))?;
    if mode & !0o777 != 0 {
        return Err(invalid("not permission bits"));
    }
    if path.is_dir() {
        return Err(invalid("a folder"));
    }
    make_folder(folder)?;
    // The process id keeps two writers of one file apart; what a crash left is overwritten or stays, and is no harm.
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(FileError::io("write", path)(source));
    }
    sync_folder(folder)?;
    Ok(Answer::Ok)
}

/// Makes a folder and its parents, 0700.
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FileError::io("make the folder", path))
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(
                std::str::from_utf8(pair)
                    .ok()
                    .filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?,
                16,
            )
            .ok()
        })
        .collect()
}

fn remove(path: &Path) -> Result<Answer, FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::io("remove", path)(error)),
    }
    Ok(Answer::Ok)
}

fn rename(from: &Path, to: &Path) -> Result<Answer, FileError> {
    let _idle = idle(from)?;
    let _idle_there = idle(to)?;
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => return Err(FileError::NotFound { path: from.to_owned() }),
        // File systems that cannot do both at once. Nobody else makes names here: the lock is held.
        Err(rustix::io::Errno::INVAL) if to.symlink_metadata().is_err() => {
            fs::rename(from, to).map_err(FileError::io("rename", from))?;
        }
        Err(errno) => return Err(FileError::io("rename", from)(errno.into())),
    }
    sync_parent(from)?;
    sync_parent(to)?;
    Ok(Answer::Ok)
}

fn remove_tree(path: &Path) -> Result<Answer, FileError> {
    let _idle = idle(path)?;
    match fs::remove_dir_all(path) {
        Ok(()) => sync_parent(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::io("remove", path)(error)),
    }
    Ok(Answer::Ok)
}

fn list(path: &Path) -> Result<Answer, FileError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::Names { names: None }),
        Err(error) => return Err(FileError::io("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::io("list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(Answer::Names { names: Some(names) })
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(FileError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[allow(clippy::needless_pass_by_value, reason = "reads better")]
    fn do_it(dir: &TestDir, op: FileOp) -> Answer {
        run(dir.path(), None, &op).unwrap_or_else(|error| error.answer())
    }

    fn refusal(answer: Answer) -> Refusal {
        match answer {
            Answer::Refused { kind, .. } => kind,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn writes_reads_lists_removes() {
        let dir = TestDir::new();
        let path = dir.path().join("a/b/file");
        let read = || do_it(&dir, FileOp::Read { path: path.clone() });
        assert_eq!(read(), Answer::Content { content: None });
        for content in ["one", "two"] {
            let op = FileOp::Write { path: path.clone(), content: content.to_owned(), mode: 0o640 };
            assert_eq!(do_it(&dir, op), Answer::Ok);
            assert_eq!(read(), Answer::Content { content: Some(content.to_owned()) });
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        let names = do_it(&dir, FileOp::List { path: dir.path().join("a/b") });
        assert_eq!(names, Answer::Names { names: Some(vec!["file".to_owned()]) }, "no temporary file is left");
        for _ in 0..2 {
            assert_eq!(do_it(&dir, FileOp::Remove { path: path.clone() }), Answer::Ok);
            assert_eq!(do_it(&dir, FileOp::RemoveTree { path: dir.path().join("a") }), Answer::Ok);
        }
        assert_eq!(do_it(&dir, FileOp::List { path: dir.path().join("a") }), Answer::Names { names: None });
    }

    #[test]
    fn beside_the_volume_only_the_configuration_is_written() {
        let dir = TestDir::new();
        let (volume, etc) = (dir.path().join("volume"), dir.path().join("etc"));
        let path = etc.join("postgresql.conf");
        let do_it = |op: FileOp| run(&volume, Some(&etc), &op).unwrap_or_else(|error| error.answer());
        let write = |path: &Path| FileOp::Write { path: path.to_owned(), content: "x".to_owned(), mode: 0o600 };
        fs::create_dir(&volume).unwrap();
        assert_eq!(refusal(do_it(write(&path))), Refusal::Io, "the folder is not made");
        fs::create_dir(&etc).unwrap();
        assert_eq!(do_it(write(&path)), Answer::Ok);
        assert_eq!(do_it(FileOp::Read { path: path.clone() }), Answer::Content { content: Some("x".to_owned()) });
        std::os::unix::fs::symlink(dir.path().join("secret"), etc.join("link")).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        for op in [
            FileOp::Read { path: etc.join("link") },
            write(&etc.join("folder/x")),
            write(&dir.path().join("x")),
            FileOp::Remove { path: path.clone() },
            FileOp::RemoveTree { path: etc.clone() },
            FileOp::List { path: etc.clone() },
            FileOp::Rename { from: path.clone(), to: volume.join("x") },
            FileOp::Rename { from: volume.clone(), to: etc.join("v") },
        ] {
            assert_eq!(refusal(do_it(op.clone())), Refusal::Invalid, "{op:?}");
        }
        assert_eq!(refusal(run(&volume, None, &write(&path)).unwrap_or_else(|error| error.answer())), Refusal::Invalid);
        // A link is replaced, not followed.
        assert_eq!(do_it(write(&etc.join("link"))), Answer::Ok);
        assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "s");
    }

    #[test]
    fn bytes_are_written_as_they_are() {
        let dir = TestDir::new();
        let path = dir.path().join("state");
        let write = |hex: &str| do_it(&dir, FileOp::WriteHex { path: path.clone(), hex: hex.to_owned(), mode: 0o600 });
        assert_eq!(write("00ff0a80"), Answer::Ok);
        assert_eq!(fs::read(&path).unwrap(), [0, 255, 10, 128]);
        for bad in ["0", "0g", "+1", "ä"] {
            assert_eq!(refusal(write(bad)), Refusal::Invalid, "{bad}");
        }
    }

    #[test]
    fn rename_replaces_nothing() {
        let dir = TestDir::new();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let rename = || do_it(&dir, FileOp::Rename { from: from.clone(), to: to.clone() });
        assert_eq!(refusal(rename()), Refusal::NotFound);
        fs::create_dir(&from).unwrap();
        assert_eq!(rename(), Answer::Ok);
        fs::create_dir(&from).unwrap();
        assert_eq!(refusal(rename()), Refusal::Io);
    }

    #[test]
    fn a_folder_that_somebody_works_in_stays() {
        let dir = TestDir::new();
        let data = dir.path().join("pgdata");
        fs::create_dir(&data).unwrap();
        let held = sys::lock(&sys::lock_path(&data), true).unwrap();
        assert!(held.is_some());
        assert_eq!(refusal(do_it(&dir, FileOp::RemoveTree { path: data.clone() })), Refusal::Locked);
        let rename = FileOp::Rename { from: data.clone(), to: dir.path().join("old") };
        assert_eq!(refusal(do_it(&dir, rename)), Refusal::Locked);
        let unlock = FileOp::Remove { path: sys::lock_path(&data) };
        assert_eq!(refusal(do_it(&dir, unlock)), Refusal::Invalid);
        assert!(data.exists());
        drop(held);
        assert_eq!(do_it(&dir, FileOp::RemoveTree { path: data.clone() }), Answer::Ok);
        assert!(!data.exists() && sys::lock_path(&data).exists());
    }

    #[test]
    fn too_long_and_not_text() {
        let dir = TestDir::new();
        let path = dir.path().join("file");
        let read = || do_it(&dir, FileOp::Read { path: path.clone() });
        fs::write(&path, vec![b'x'; 512 * 1024]).unwrap();
        assert!(matches!(read(), Answer::Content { content: Some(_) }));
        fs::write(&path, vec![b'x'; 512 * 1024 + 1]).unwrap();
        assert_eq!(refusal(read()), Refusal::Invalid);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(refusal(read()), Refusal::Invalid);
    }
}
