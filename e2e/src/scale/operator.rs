//! The operator's process: installed with its shipped roles, started, looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bare::ControlPlane;
use crate::host::child;
use crate::operator::{self, NAMESPACE};
use crate::scenarios::memory::{self, Memory};

/// What is needed to start it.
pub struct Operator {
    program: PathBuf,
    kubeconfig: PathBuf,
    log: PathBuf,
}

/// A running one; dropping it kills it.
pub struct Running(child::Running);

impl Operator {
    /// Applies what `matriarch-operator manifests` prints. Nobody makes a pod of its Deployment.
    pub async fn install(plane: &ControlPlane, root: &Path, binaries: &Path) -> Result<Self> {
        let program = binaries.join("matriarch-operator");
        operator::install(&plane.client, &program, "operator:1", "sidecar:1").await?;
        let kubeconfig = root.join("operator.json");
        plane.write_kubeconfig(&kubeconfig, &operator::token(&plane.client, Duration::from_hours(2)).await?)?;
        Ok(Self { program, kubeconfig, log: root.join("operator.log") })
    }

    /// Starts it, with what it is shipped with: one worker thread a core, log level info.
    pub fn start(&self) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--sidecar-image", "sidecar:1", "--lease-namespace", NAMESPACE]);
        command.args(["--identity", "scale", "--listen", "127.0.0.1:0"]).env("KUBECONFIG", &self.kubeconfig);
        Ok(Running(child::Running::start(&mut command, &self.log)?))
    }

    /// The end of its log, for a failure.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Running {
    /// Its memory now.
    pub fn memory(&self) -> Result<Memory> {
        memory::read(self.0.id())
    }

    /// The processor time that it has used, in hundredths of a second.
    pub fn ticks(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let (_, rest) = text.rsplit_once(") ").context("an unexpected /proc/PID/stat")?;
        let field = |n: usize| rest.split(' ').nth(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        Ok(field(11) + field(12))
    }
}
