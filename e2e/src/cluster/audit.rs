//! Counts requests to the API server from its audit log: what does an idle cluster cost, and who asks?

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct ObjectRef {
    resource: String,
    namespace: String,
    subresource: String,
}

impl Cluster {
    /// Requests that arrived from `since` until `until`. A watch counts once, when it begins. Not in the log: what the
    /// scheduler, kube-proxy and DNS ask, and the kubelets' reads.
    pub fn api_requests(&self, since: Timestamp, until: Timestamp) -> Result<RequestCounts> {
        let path = self.layout().audit_log();
        let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        let mut counts = RequestCounts::new();
        for line in BufReader::new(file).lines() {
            let Ok(line) = serde_json::from_str::<Line>(&line?) else { continue }; // the last one may be half written
            let counted = if line.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            let arrived = line.request_received_timestamp;
            if line.stage != counted || arrived < since || arrived >= until {
                continue;
            }
            let object = line.object_ref.unwrap_or_default();
            let resource = match object.subresource.as_str() {
                "" => object.resource,
                subresource => format!("{}/{subresource}", object.resource),
            };
            let request = Request { user: line.user.username, verb: line.verb, resource, namespace: object.namespace };
            *counts.entry(request).or_default() += 1;
        }
        Ok(counts)
    }
}
