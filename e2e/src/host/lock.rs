//! A lock on a file, so that two runs of the harness do not build or change the same thing at once.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

/// Held as long as it lives; the kernel drops it when the process dies.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "holds the lock by being open")] File);

impl FileLock {
    /// Waits for the lock on `path`, which is created when absent.
    pub fn acquire(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).append(true).open(path).with_context(|| path.display().to_string())?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            eprintln!("  waiting for another run that holds {}", path.display());
            flock(&file, FlockOperation::LockExclusive)?;
        }
        Ok(Self(file))
    }
}
