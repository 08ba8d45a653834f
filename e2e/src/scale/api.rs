//! A command beside an API server of its own: for tests that need one and nothing else of Kubernetes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bare::{ControlPlane, sandbox};
use crate::deps::cache::Cache;

/// Inside of the sandbox: runs `command` with `KUBECONFIG` and `MATRIARCH_TEST_KUBECONFIG`; whether it succeeded.
pub async fn with_api(root: &Path, command: &[String]) -> Result<bool> {
    sandbox::prepare(root)?;
    let plane = ControlPlane::start(root, &Cache::open()?).await?;
    let (program, arguments) = command.split_first().context("no command")?;
    let kubeconfig = plane.admin_kubeconfig();
    let status = Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", &kubeconfig)
        .env("MATRIARCH_TEST_KUBECONFIG", &kubeconfig)
        .status()
        .with_context(|| format!("unable to start {program}"))?;
    Ok(status.success())
}
