//! What must be on the machine before a cluster can come up: Debian packages, Go-built binaries, Patroni, image layers.

pub mod apt;
pub mod cache;
pub mod go;
pub mod patroni;

use anyhow::{Result, bail};

use crate::host::lock::FileLock;
use crate::images;
use cache::Cache;

/// Installs and builds whatever is missing. Takes about 15 minutes on 2 cores the first time, under a second later.
pub fn ensure(cache: &Cache) -> Result<()> {
    require_root()?;
    let _lock = FileLock::acquire(&cache.folder().join("lock"))?;
    apt::ensure()?;
    go::ensure(cache)?;
    patroni::ensure(cache)?;
    images::ensure(cache)?;
    Ok(())
}

/// Namespaces, cgroups, loop devices and mounts all need it.
pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the test cluster makes namespaces, cgroups and mounts: run it as root");
    }
    Ok(())
}
