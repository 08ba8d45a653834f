//! Where the programs of a major are, and who runs them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::deps::cache::Cache;
use crate::images::postgres::wheel_layer;

/// PostgreSQL's programs, and an unprivileged user that `/etc/passwd` knows, as initdb wants it.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The folder of `postgres`.
    pub bin_dir: PathBuf,
    /// Who runs it.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The folder of a major's programs, for tests that run PostgreSQL without a sandbox: Debian's, or unpacked for good below the folder for
/// temporary files, where PostgreSQL's user can read them.
pub fn programs(major: &str) -> Result<PathBuf> {
    let root = std::env::temp_dir().join(format!("matriarch-postgresql-{major}"));
    let unpacked = root.join("postgresql/usr/lib/postgresql").join(major).join("bin");
    if unpacked.join("postgres").is_file() {
        return Ok(unpacked);
    }
    let unfinished = root.with_extension(format!("{}", std::process::id()));
    std::fs::create_dir_all(&unfinished)?;
    let found = Postgres::find(&unfinished, &Cache::open()?, major)?.bin_dir;
    if !found.starts_with(&unfinished) {
        std::fs::remove_dir_all(&unfinished)?;
        return Ok(found);
    }
    std::fs::rename(&unfinished, &root)?;
    Ok(unpacked)
}

impl Postgres {
    /// From Debian's packages, or unpacked below `root` from the same layer that the images are made of.
    pub fn find(root: &Path, cache: &Cache, major: &str) -> Result<Self> {
        let (uid, gid) = user()?;
        let debian = Path::new("/usr/lib/postgresql").join(major).join("bin");
        let bin_dir = if debian.join("postgres").is_file() {
            debian
        } else {
            let target = root.join("postgresql");
            let layer = wheel_layer(cache, major)?;
            tar::Archive::new(File::open(&layer)?).unpack(&target).with_context(|| layer.display().to_string())?;
            target.join("usr/lib/postgresql").join(major).join("bin")
        };
        if !bin_dir.join("postgres").is_file() {
            bail!("there is no PostgreSQL {major}: neither a Debian package nor in the cache (`make deps`)");
        }
        Ok(Self { bin_dir, uid, gid })
    }
}

fn user() -> Result<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).context("/etc/passwd has neither postgres nor nobody")
}
