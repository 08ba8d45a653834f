//! Orders that exist only as REST calls: `matriarch-sidecar ctl` in the agent's container, by pods/exec with the user's rights.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use matriarch_crds::names::AGENT_CONTAINER;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::Error;
use crate::store::Store;

/// What an agent answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// The HTTP code.
    pub code: u16,
    /// A document, or a sentence.
    pub body: Value,
}

impl Answer {
    /// Accepted or done.
    pub fn fine(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// For people.
    pub fn text(&self) -> String {
        match &self.body {
            Value::String(text) if text.is_empty() => format!("code {}", self.code),
            Value::String(text) => text.trim_end().to_owned(),
            other => other.to_string(),
        }
    }
}

/// Asks the agent of a member.
pub async fn ask(
    store: &Store,
    member: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
    patience: Duration,
) -> Result<Answer, Error> {
    let seconds = patience.as_secs().max(1).to_string();
    let mut argv = vec!["/matriarch-sidecar", "--log", "error", "ctl", "--timeout", &seconds, method, path];
    let body = body.map(Value::to_string);
    argv.extend(body.as_deref());
    // The agent's own limit comes first.
    let out = run(store, member, AGENT_CONTAINER, &argv, "", patience + Duration::from_secs(5)).await?;
    serde_json::from_str(&out.stdout).map_err(|_| {
        let said = if out.stderr.trim().is_empty() { out.stdout.trim() } else { out.stderr.trim() };
        if said.contains("no answer within") {
            return Error::Unknown(format!("{member} has not done it after {seconds} s; it may still happen"));
        }
        Error::Agent(format!("the agent of {member} did not answer {method} {path}: {said}"))
    })
}

/// What a command in a container wrote.
#[derive(Debug, Default)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// It ended with code 0.
    pub success: bool,
}

/// Runs a command in a container to its end.
pub async fn run(
    store: &Store,
    member: &str,
    container: &str,
    argv: &[&str],
    input: &str,
    patience: Duration,
) -> Result<Output, Error> {
    let pods: Api<Pod> = Api::namespaced(store.session.patient.clone(), &store.session.namespace);
    let params = AttachParams::default().container(container).stdin(!input.is_empty()).stdout(true).stderr(true);
    let work = async {
        let failed = Error::call("get and create", "pods/exec", format!("the agent of {member}"));
        let process = pods.exec(member, argv.iter().copied(), &params).await.map_err(failed)?;
        finish(process, input).await.map_err(|error| Error::Agent(format!("the connection to {member} broke: {error}")))
    };
    let silent = || Error::Unknown(format!("{member} did not answer within {} s", patience.as_secs()));
    timeout(patience, work).await.map_err(|_| silent())?
}

async fn finish(mut process: AttachedProcess, input: &str) -> std::io::Result<Output> {
    if let Some(mut stdin) = process.stdin() {
        stdin.write_all(input.as_bytes()).await?;
        stdin.shutdown().await?;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err, status) = (process.stdout(), process.stderr(), process.take_status());
    let (one, two) = tokio::join!(drain(out, &mut stdout), drain(err, &mut stderr));
    one.and(two)?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    Ok(Output {
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        success: status.and_then(|s| s.status).as_deref() == Some("Success"),
    })
}

async fn drain(stream: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> std::io::Result<()> {
    match stream {
        Some(mut stream) => stream.read_to_end(into).await.map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_document_or_a_sentence() {
        let answer: Answer = serde_json::from_str(r#"{"code": 503, "body": "restart failed\n"}"#).unwrap();
        assert!(!answer.fine());
        assert_eq!(answer.text(), "restart failed");
        let answer: Answer = serde_json::from_str(r#"{"code": 200, "body": {"a": 1}}"#).unwrap();
        assert!(answer.fine() && answer.text() == r#"{"a":1}"#);
    }
}
