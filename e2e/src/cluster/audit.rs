//! Reads the API server's audit log: what does an idle cluster cost, who asks, and by which right?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;

use super::Cluster;

/// What is counted together. Ordered by user, so that a table reads well.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `system:serviceaccount:NAMESPACE:NAME`, `admin` …
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` …
    pub verb: String,
    /// `leases`, `pods/status` …
    pub resource: String,
    /// Empty for resources that live in none.
    pub namespace: String,
}

impl Request {
    /// Whether the request changes something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// How many of each.
pub type RequestCounts = BTreeMap<Request, u64>;

/// One finished request, or the beginning of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who, what, where.
    pub request: Request,
    /// When it arrived.
    pub arrived: Timestamp,
    /// The API group; empty for the core.
    pub group: String,
    /// The object; empty where the request is about many.
    pub name: String,
    /// The status code of the answer.
    pub code: u16,
    /// `allow` or `forbid`; empty where nothing was decided.
    pub decision: String,
    /// Which binding of which role allowed it.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Timestamp,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
}

impl Line {
    fn access(mut self) -> Access {
        let object = self.object_ref.unwrap_or_default();
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            subresource => format!("{}/{subresource}", object.resource),
        };
        let mut annotation = |key: &str| self.annotations.remove(key).unwrap_or_default();
        Access {
            decision: annotation("authorization.k8s.io/decision"),
            reason: annotation("authorization.k8s.io/reason"),
            request: Request { user: self.user.username, verb: self.verb, resource, namespace: object.namespace },
            arrived: self.request_received_timestamp,
            group: object.api_group,
            name: object.name,
            code: self.response_status.unwrap_or_default().code,
        }
    }
}

/// Calls `each` with every request of a log that arrived from `since` until `until`.
pub fn read(path: &std::path::Path, since: Timestamp, until: Timestamp, each: &mut impl FnMut(Access)) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    for line in BufReader::new(file).lines() {
        let Ok(line) = serde_json::from_str::<Line>(&line?) else { continue }; // the last one may be half written
        let counted = if line.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        // What was refused has no beginning.
        let refused = line.verb == "watch" && line.response_status.as_ref().is_some_and(|status| status.code >= 400);
        let arrived = line.request_received_timestamp;
        if (line.stage == counted || refused) && arrived >= since && arrived < until {
            each(line.access());
        }
    }
    Ok(())
}

impl Cluster {
    /// Requests that arrived from `since` until `until`. A watch counts once, when it begins. Not in the log: what the
    /// scheduler, kube-proxy and DNS ask, and the kubelets' reads.
    pub fn api_requests(&self, since: Timestamp, until: Timestamp) -> Result<RequestCounts> {
        let mut counts = RequestCounts::new();
        self.accesses(since, until, |access| *counts.entry(access.request).or_default() += 1)?;
        Ok(counts)
    }

    /// The same requests one by one, those of files that the API server has put aside first.
    pub fn accesses(&self, since: Timestamp, until: Timestamp, mut each: impl FnMut(Access)) -> Result<()> {
        let is_log = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("audit") && path.extension().is_some_and(|extension| extension == "log")
        };
        let entries = std::fs::read_dir(self.layout().logs())?.flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(is_log).collect();
        // audit-TIME.log sorts before audit.log.
        files.sort();
        files.iter().try_for_each(|file| read(file, since, until, &mut each))
    }
}
