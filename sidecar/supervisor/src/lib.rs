//! The supervisor's protocol (used by the agent as well) and how it is framed.

pub mod frame;
pub mod protocol;

use std::path::{Path, PathBuf};

/// The volume of the WAL, where there is one: beside the data volume, and named after it.
pub fn wal_volume(volume: &Path) -> PathBuf {
    let mut path = volume.components().as_path().as_os_str().to_owned();
    path.push("-wal");
    path.into()
}
