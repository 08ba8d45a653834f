//! Which paths file operations may touch: below the data volume, or the volume of the WAL beside it, also when a link is on the way;
//! and single files right in the folder of PostgreSQL's configuration, where whoever started us has named one.

use std::io;
use std::path::{Component, Path, PathBuf};

use matriarch_supervisor::wal_volume;

/// Why a path is refused.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// As it is written.
    #[error("{path} is not an absolute path below {volume} without `..`")]
    Outside {
        /// The path.
        path: PathBuf,
        /// The volume.
        volume: PathBuf,
    },
    /// Where it leads.
    #[error("{path} leads to {real}, which is outside of {volume}")]
    LeadsOutside {
        /// The path.
        path: PathBuf,
        /// What its links lead to.
        real: PathBuf,
        /// The volume.
        volume: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot resolve {path}")]
    Resolve {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The folder that a single file must lie below: its own, if that is the folder of the configuration, else the volume. Whole folders
/// are renamed, removed and listed on the volume alone.
pub fn root<'a>(volume: &'a Path, config_dir: Option<&'a Path>, path: &Path) -> &'a Path {
    match config_dir {
        Some(dir) if !dir.starts_with(volume) && path.parent() == Some(dir) => dir,
        _ => volume,
    }
}

/// An absolute path without `..`, and without double and closing slashes; None if it is written otherwise.
pub fn plain(path: &Path) -> Option<PathBuf> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (plain && path.is_absolute()).then(|| path.components().collect())
}

/// Checks how a path is written, without I/O, and gives it back without double and closing slashes.
pub fn written(volume: &Path, path: &Path) -> Result<PathBuf, PathError> {
    let below = |clean: &Path, volume: &Path| clean.starts_with(volume) && clean != volume;
    plain(path)
        .filter(|clean| (below(clean, volume) || below(clean, &wal_volume(volume))) && !has_zero(clean))
        .ok_or_else(|| PathError::Outside { path: path.to_owned(), volume: volume.to_owned() })
}

fn has_zero(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

/// The folder of `path` with every link resolved, and the last name as it is written: where an operation on the name
/// itself (write, remove, rename) happens.
pub fn name_in(volume: &Path, path: &Path) -> Result<PathBuf, PathError> {
    let clean = written(volume, path)?;
    let outside = || PathError::Outside { path: path.to_owned(), volume: volume.to_owned() };
    let (folder, name) = clean.parent().zip(clean.file_name()).ok_or_else(outside)?;
    Ok(resolve(volume, folder)?.join(name))
}

/// `path` with every link resolved, the last one as well: where something is read or works.
pub fn target_of(volume: &Path, path: &Path) -> Result<PathBuf, PathError> {
    resolve(volume, &written(volume, path)?)
}

/// Resolves what exists of `path`; what does not exist yet cannot be a link.
fn resolve(volume: &Path, path: &Path) -> Result<PathBuf, PathError> {
    let failed = |source| PathError::Resolve { path: path.to_owned(), source };
    let root = volume.canonicalize().map_err(failed)?;
    let wal_root = wal_volume(volume).canonicalize().ok();
    let mut missing = Vec::new();
    let mut there = path;
    let real = loop {
        match there.canonicalize() {
            Ok(real) => break real,
            // A dangling link has a name although it leads nowhere: what is written through it would land elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound && there.symlink_metadata().is_err() => {
                let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { return Err(failed(error)) };
                missing.push(name);
                there = parent;
            }
            Err(error) => return Err(failed(error)),
        }
    };
    if !real.starts_with(&root) && !wal_root.is_some_and(|wal| real.starts_with(wal)) {
        return Err(PathError::LeadsOutside { path: path.to_owned(), real, volume: volume.to_owned() });
    }
    Ok(missing.iter().rev().fold(real, |path, name| path.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn only_plain_paths_below_the_volume() {
        let volume = Path::new("/v");
        assert_eq!(written(volume, Path::new("/v/pg//data/")).unwrap(), Path::new("/v/pg/data"));
        for path in ["/v", "/v/", "/", "/w/x", "/vv/x", "v/x", "x", "", "/v/../etc/passwd", "/v/a/../b", "/v/a\0b"] {
            assert!(written(volume, Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn the_volume_of_the_wal_is_ours_as_well() {
        let dir = TestDir::new();
        let (volume, wal) = (dir.path().join("volume"), dir.path().join("volume-wal"));
        std::fs::create_dir_all(volume.join("pgdata")).unwrap();
        assert!(target_of(&volume, &wal.join("pg_wal")).is_err(), "there is none");
        std::fs::create_dir_all(wal.join("pg_wal")).unwrap();
        std::os::unix::fs::symlink(wal.join("pg_wal"), volume.join("pgdata/pg_wal")).unwrap();
        let real = wal.canonicalize().unwrap().join("pg_wal");
        assert_eq!(target_of(&volume, &volume.join("pgdata/pg_wal")).unwrap(), real);
        assert_eq!(name_in(&volume, &wal.join("pg_wal")).unwrap(), real);
        for path in [wal.clone(), dir.path().join("volume-walnut/x"), dir.path().join("volume-wal2/x")] {
            assert!(written(&volume, &path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_folder_of_the_configuration_holds_single_files() {
        let (volume, etc) = (Path::new("/v"), Path::new("/etc/pg"));
        let root = |path: &'static str| root(volume, Some(etc), Path::new(path));
        for path in ["/etc/pg/postgresql.conf", "/etc/pg//x", "/etc/pg/./x"] {
            assert_eq!(root(path), etc, "{path}");
        }
        for path in ["/etc/pg", "/etc/pg/a/b", "/etc/pg/../x", "/etc/pg2/x", "/etc/x", "/v/x", "etc/pg/x"] {
            assert_eq!(root(path), volume, "{path}");
            assert!(path.starts_with("/v") || written(volume, Path::new(path)).is_err(), "{path}");
        }
        assert!(written(root("/etc/pg/.."), Path::new("/etc/pg/..")).is_err());
        assert_eq!(super::root(volume, Some(Path::new("/v/etc")), Path::new("/v/etc/x")), volume);
        assert_eq!(super::root(volume, None, Path::new("/etc/pg/x")), volume);
    }

    #[test]
    fn links_do_not_lead_out() {
        let dir = TestDir::new();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("real")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), volume.join("out")).unwrap();
        std::os::unix::fs::symlink(volume.join("real"), volume.join("in")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), volume.join("dangling")).unwrap();
        let root = volume.canonicalize().unwrap();
        assert_eq!(target_of(&volume, &volume.join("in")).unwrap(), root.join("real"));
        assert_eq!(name_in(&volume, &volume.join("in/new/file")).unwrap(), root.join("real/new/file"));
        assert!(matches!(target_of(&volume, &volume.join("out")), Err(PathError::LeadsOutside { .. })));
        assert!(matches!(name_in(&volume, &volume.join("out/x")), Err(PathError::LeadsOutside { .. })));
        assert!(target_of(&volume, &volume.join("dangling")).is_err());
        assert!(name_in(&volume, &volume.join("dangling/x")).is_err());
        // The link itself may be removed or replaced.
        assert_eq!(name_in(&volume, &volume.join("out")).unwrap(), root.join("out"));
    }
}
