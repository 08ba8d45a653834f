//! `matriarch-sidecar install DIR`: the static binaries go to a volume that the postgres container sees.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is installed, from the folder of the running program.
const BINARIES: [&str; 2] = ["matriarch-sidecar", "matriarch-supervisor"];

/// A binary was not installed.
#[derive(Debug, thiserror::Error)]
#[error("{from} cannot be copied to {to}: {source}")]
pub struct Error {
    from: PathBuf,
    to: PathBuf,
    source: io::Error,
}

/// Copies both binaries into `dir`, each atomically: whoever executes one meanwhile gets the old or the new one, whole.
pub fn install(dir: &Path) -> Result<(), Error> {
    let own = std::env::current_exe().and_then(fs::canonicalize).unwrap_or_else(|_| "/matriarch-sidecar".into());
    let folder = own.parent().unwrap_or(Path::new("/"));
    for name in BINARIES {
        let from = if name == BINARIES[0] { own.clone() } else { folder.join(name) };
        let to = dir.join(name);
        copy(&from, &to).map_err(|source| Error { from, to, source })?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = to.with_extension("new");
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&temporary)?;
    io::copy(&mut source, &mut target)?;
    target.set_permissions(fs::Permissions::from_mode(0o755))?;
    target.sync_all()?;
    drop(target); // a file that is open for writing cannot be executed
    fs::rename(&temporary, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_can_be_executed_and_replaces_an_older_one() {
        let dir = std::env::temp_dir().join(format!("matriarch-install-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("from"), dir.join("bin/to"));
        for content in ["one", "two"] {
            fs::write(&from, content).unwrap();
            copy(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), content);
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        }
        assert_eq!(fs::read_dir(dir.join("bin")).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
