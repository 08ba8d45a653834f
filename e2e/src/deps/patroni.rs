//! Patroni from PyPI, in a virtual environment of Debian's Python.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::cache::{Cache, crate_folder, short_hash};
use crate::host::progress::step;
use crate::host::run::run;

/// Debian's: other users than root can execute it, which may not be so for the first one in PATH.
pub const PYTHON: &str = "/usr/bin/python3";

/// The virtual environment, made when the cache lacks it. Its scripts name a folder that is renamed in the end: they are run
/// as arguments of its `bin/python`.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let requirements = crate_folder().join("binaries/patroni/requirements.txt");
    let pinned = fs::read_to_string(&requirements).context("what Patroni needs is read from the work tree")?;
    // Compiled modules are for one minor version of Python.
    let python = run(&[PYTHON, "--version"])?;
    cache.entry(&format!("patroni/{}", short_hash(&[&pinned, &python])), |out| {
        run(&[PYTHON, "-m", "venv", &out.display().to_string()])?;
        step("installing Patroni from PyPI", || {
            run(&[
                out.join("bin/python").display().to_string().as_str(),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--requirement",
                &requirements.display().to_string(),
            ])
        })?;
        Ok(())
    })
}
