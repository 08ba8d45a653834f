//! The real Patroni 4.1 and its `patronictl`, where members' users can execute them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::deps::cache::Cache;
use crate::deps::patroni;
use crate::host::run::run;

/// Patroni's programs. They have no memory of where they were installed, so each is an argument of the interpreter.
#[derive(Debug, Clone)]
pub struct Patroni {
    /// The interpreter of the virtual environment.
    pub python: PathBuf,
    /// The folder of its scripts.
    pub bin: PathBuf,
}

impl Patroni {
    /// Mounts the virtual environment of the cache below `root`: the cache itself may be root's alone.
    pub fn find(root: &Path, cache: &Cache) -> Result<Self> {
        let environment = patroni::ensure(cache).context("there is no Patroni in the cache (`make deps`)")?;
        let here = root.join("patroni");
        std::fs::create_dir_all(&here)?;
        run(&["mount", "--bind", "-o", "ro", &environment.display().to_string(), &here.display().to_string()])?;
        let bin = here.join("bin");
        Ok(Self { python: bin.join("python"), bin })
    }

    /// `patroni …`, with an empty environment.
    pub fn patroni(&self) -> Command {
        self.command("patroni")
    }

    /// `patronictl …`, with an empty environment.
    pub fn patronictl(&self) -> Command {
        self.command("patronictl")
    }

    fn command(&self, script: &str) -> Command {
        let mut command = self.python();
        command.arg(self.bin.join(script));
        command
    }

    /// `python …` of the virtual environment, with an empty environment.
    pub fn python(&self) -> Command {
        let mut command = Command::new(&self.python);
        // Written by pip once; nobody may write below the mount.
        command.arg("-B").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
        command
    }
}
