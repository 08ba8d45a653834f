//! Commands in containers, over the API server as kubectl does it; and logs.

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, LogParams};
use tokio::io::AsyncReadExt as _;

use super::Cluster;

/// What a command in a container wrote, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// 0 on success.
    pub code: i32,
}

impl Output {
    /// stdout of a command that succeeded; else an error with all it wrote.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

impl Cluster {
    /// Runs a command in a container and waits for its end. A command that fails is an [`Output`] with its code; an error
    /// means that the command could not be run.
    pub async fn exec(&self, namespace: &str, pod: &str, container: &str, argv: &[&str]) -> Result<Output> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let params = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
        let what = || format!("unable to run {argv:?} in {namespace}/{pod} {container}");
        let mut process = pods.exec(pod, argv.iter().copied(), &params).await.with_context(what)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut out = process.stdout().context("no stdout")?;
        let mut err = process.stderr().context("no stderr")?;
        let status = process.take_status().context("no status")?;
        let (one, two, status) = tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr), status);
        one.and(two).with_context(what)?;
        let status = status.with_context(|| format!("{}: the connection ended before the command", what()))?;
        let code = match (status.status.as_deref(), status.details) {
            (Some("Success"), _) => 0,
            (_, details) => details
                .and_then(|details| details.causes)
                .into_iter()
                .flatten()
                .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
                .and_then(|cause| cause.message?.parse().ok())
                .with_context(|| format!("{}: {}", what(), status.message.unwrap_or_default()))?,
        };
        Ok(Output {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            code,
        })
    }

    /// All that a container has written; of the one before its last restart if `previous`.
    pub async fn logs(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let params = LogParams { container: Some(container.to_owned()), previous, ..LogParams::default() };
        pods.logs(pod, &params).await.with_context(|| format!("no logs of {namespace}/{pod} {container}"))
    }
}
