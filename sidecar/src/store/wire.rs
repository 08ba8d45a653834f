//! Kubernetes objects as they come over the wire, read only as far as the agent cares, and the bodies that it sends.

use std::collections::BTreeMap;

use matriarch_ha::effect::Patch;
use matriarch_ha::event::{Kind, Object, StoreError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::Config;

/// A list.
#[derive(Deserialize)]
pub struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Raw>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
}

impl List {
    /// The objects and the list's resourceVersion.
    pub fn into_parts(self) -> (Vec<Object>, String) {
        (self.items.unwrap_or_default().into_iter().map(Object::from).collect(), self.metadata.resource_version)
    }
}

/// One object of any of our kinds.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Raw {
    metadata: Meta,
    status: Option<PodStatus>,
    subsets: Option<Vec<Subset>>,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    uid: String,
    resource_version: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<String>,
    owner_references: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subset {
    addresses: Option<Vec<Address>>,
}

#[derive(Deserialize)]
struct Address {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    addresses: Vec<String>,
}

impl From<Raw> for Object {
    fn from(raw: Raw) -> Self {
        let subsets =
            raw.subsets.unwrap_or_default().into_iter().flat_map(|subset| subset.addresses.unwrap_or_default());
        let endpoints = raw.endpoints.unwrap_or_default().into_iter().flat_map(|endpoint| endpoint.addresses);
        Self {
            name: raw.metadata.name,
            uid: raw.metadata.uid,
            resource_version: raw.metadata.resource_version,
            labels: raw.metadata.labels.unwrap_or_default(),
            annotations: raw.metadata.annotations.unwrap_or_default(),
            ip: raw.status.and_then(|status| status.pod_ip).filter(|ip| !ip.is_empty()),
            deleting: raw.metadata.deletion_timestamp.is_some(),
            owners: raw.metadata.owner_references.unwrap_or_default(),
            addresses: subsets.map(|address| address.ip).chain(endpoints).collect(),
        }
    }
}

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// `ADDED` or `MODIFIED`.
    Applied(Object),
    /// `DELETED`.
    Deleted(Object),
    /// `BOOKMARK`, with its resourceVersion.
    Bookmark(String),
    /// `ERROR`, which ends the watch.
    Error(StoreError),
}

/// Reads one line of a watch; the error is a sentence.
pub fn line(text: &[u8]) -> Result<Line, String> {
    #[derive(Deserialize)]
    struct Head<'a> {
        r#type: &'a str,
    }
    #[derive(Deserialize)]
    struct Body<T> {
        object: T,
    }
    let bad = |error: serde_json::Error| format!("a line of a watch cannot be read: {error}");
    let head: Head = serde_json::from_slice(text).map_err(bad)?;
    let object = || serde_json::from_slice::<Body<Raw>>(text).map(|body| Object::from(body.object)).map_err(bad);
    Ok(match head.r#type {
        "ADDED" | "MODIFIED" => Line::Applied(object()?),
        "DELETED" => Line::Deleted(object()?),
        "BOOKMARK" => Line::Bookmark(object()?.resource_version),
        "ERROR" => {
            let status = serde_json::from_slice::<Body<Status>>(text).map_err(bad)?.object;
            Line::Error(status.into_error(None, None))
        }
        other => return Err(format!("a watch delivered {other:?}, which is none of the types that Kubernetes has")),
    })
}

/// Kubernetes' `Status`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Status {
    code: Option<u16>,
    message: Option<String>,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: Option<u32>,
}

impl Status {
    /// By what can be done about it; HTTP's status line and retry-after header win.
    fn into_error(self, http: Option<u16>, retry_after: Option<u32>) -> StoreError {
        let retry = retry_after.or(self.details.and_then(|details| details.retry_after_seconds)).filter(|&s| s > 0);
        let message = self.message.unwrap_or_default();
        match http.or(self.code).unwrap_or(500) {
            409 => StoreError::Conflict,
            404 => StoreError::NotFound,
            410 => StoreError::Gone,
            403 => StoreError::Forbidden(message),
            code => StoreError::Status(code, message, retry),
        }
    }
}

/// An answer that is not 2xx.
pub fn error(code: u16, body: &[u8], retry_after: Option<u32>) -> StoreError {
    let status = serde_json::from_slice::<Status>(body).unwrap_or_else(|_| Status {
        message: Some(String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned()),
        ..Status::default()
    });
    status.into_error(Some(code), retry_after)
}

/// The body of a merge patch.
pub fn patch(config: &Config, patch: &Patch) -> Value {
    let mut metadata = Map::new();
    if let Some(version) = &patch.resource_version {
        metadata.insert("resourceVersion".into(), json!(version));
    }
    if !patch.annotations.is_empty() {
        metadata.insert("annotations".into(), json!(patch.annotations));
    }
    let mut labels: BTreeMap<String, Option<String>> = match patch.kind {
        Kind::Lock => config.labels().into_iter().map(|(name, value)| (name, Some(value))).collect(),
        Kind::Pod | Kind::Slice => BTreeMap::new(),
    };
    labels.extend(patch.labels.clone());
    if !labels.is_empty() {
        metadata.insert("labels".into(), json!(labels));
    }
    let mut body = Map::new();
    body.insert("metadata".into(), Value::Object(metadata));
    if let Some(addresses) = &patch.addresses {
        match patch.kind {
            Kind::Lock if config.kubernetes.use_endpoints => {
                body.insert("subsets".into(), subsets(config, addresses));
            }
            Kind::Slice => {
                body.insert("endpoints".into(), endpoints(config, addresses));
            }
            Kind::Lock | Kind::Pod => {}
        }
    }
    Value::Object(body)
}

/// The body of a create.
pub fn create(
    config: &Config,
    kind: Kind,
    name: &str,
    annotations: &BTreeMap<String, String>,
    owners: &[Value],
) -> Value {
    let mut labels = config.labels();
    let mut body = Map::new();
    match kind {
        Kind::Lock if config.kubernetes.use_endpoints => {
            body.insert("apiVersion".into(), json!("v1"));
            body.insert("kind".into(), json!("Endpoints"));
        }
        Kind::Lock => {
            body.insert("apiVersion".into(), json!("v1"));
            body.insert("kind".into(), json!("ConfigMap"));
        }
        Kind::Pod => {
            body.insert("apiVersion".into(), json!("v1"));
            body.insert("kind".into(), json!("Pod"));
        }
        Kind::Slice => {
            labels.insert("kubernetes.io/service-name".into(), config.matriarch.service.clone());
            labels.insert(
                "endpointslice.kubernetes.io/managed-by".into(),
                matriarch_crds::names::SLICE_MANAGER.to_owned(),
            );
            body.insert("apiVersion".into(), json!("discovery.k8s.io/v1"));
            body.insert("kind".into(), json!("EndpointSlice"));
            let family = if config.pod.ip.contains(':') { "IPv6" } else { "IPv4" };
            body.insert("addressType".into(), json!(family));
            body.insert("ports".into(), ports(config));
            body.insert("endpoints".into(), json!([]));
        }
    }
    let metadata = json!({
        "name": name, "namespace": config.pod.namespace, "labels": labels, "annotations": annotations, "ownerReferences": owners,
    });
    body.insert("metadata".into(), metadata);
    Value::Object(body)
}

fn ports(config: &Config) -> Value {
    let port = |port: &crate::config::Port| {
        let mut one = Map::new();
        if let Some(name) = &port.name {
            one.insert("name".into(), json!(name));
        }
        one.insert("port".into(), json!(port.port));
        one.insert("protocol".into(), json!(port.protocol.as_deref().unwrap_or("TCP")));
        Value::Object(one)
    };
    config.kubernetes.ports.iter().map(port).collect()
}

/// Who stands behind an address, where that is us.
fn target(config: &Config, address: &str) -> Option<Value> {
    let pod = &config.pod;
    (pod.ip == address).then(|| json!({"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}))
}

/// Endpoints: one subset, or none at all.
fn subsets(config: &Config, addresses: &[String]) -> Value {
    if addresses.is_empty() {
        return json!([]);
    }
    let address = |ip: &String| {
        let mut one = json!({"ip": ip});
        if let Some(target) = target(config, ip) {
            one["targetRef"] = target;
        }
        one
    };
    json!([{"addresses": addresses.iter().map(address).collect::<Value>(), "ports": ports(config)}])
}

/// EndpointSlice: one endpoint an address.
fn endpoints(config: &Config, addresses: &[String]) -> Value {
    let endpoint = |ip: &String| {
        let mut one = json!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}});
        if let Some(target) = target(config, ip) {
            one["targetRef"] = target;
        }
        one
    };
    addresses.iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(more: &str) -> Config {
        let text = format!("scope: orders\nkubernetes: {{ports: [{{name: postgresql}}]{more}}}");
        let env = |name: &str| Some(if name == "POD_IP" { "10.0.0.1" } else { name }.to_owned());
        Config::parse(Path::new("x"), &text, env).unwrap()
    }

    fn patch_of(kind: Kind, addresses: Option<Vec<String>>) -> Patch {
        Patch {
            id: 1,
            kind,
            name: "o".into(),
            resource_version: Some("7".into()),
            annotations: BTreeMap::from([("leader".into(), None), ("ttl".into(), Some("10".into()))]),
            labels: BTreeMap::new(),
            addresses,
            timeout_ms: 1,
        }
    }

    #[test]
    fn a_patch_deletes_with_null_and_compares_the_version() {
        let body = patch(&config(""), &patch_of(Kind::Lock, Some(vec!["10.0.0.1".into()])));
        assert_eq!(
            body,
            json!({"metadata": {"resourceVersion": "7", "annotations": {"leader": null, "ttl": "10"},
                   "labels": {"application": "matriarch", "cluster-name": "orders"}}})
        );
    }

    #[test]
    fn addresses_go_where_the_mode_says() {
        let body = patch(&config(", use_endpoints: true"), &patch_of(Kind::Lock, Some(vec!["10.0.0.1".into()])));
        assert_eq!(body["subsets"][0]["addresses"][0]["targetRef"]["uid"], "POD_UID");
        assert_eq!(body["subsets"][0]["ports"], json!([{"name": "postgresql", "port": 5432, "protocol": "TCP"}]));
        let body = patch(&config(", use_endpoints: true"), &patch_of(Kind::Lock, Some(vec![])));
        assert_eq!(body["subsets"], json!([]));
        let body = patch(&config(""), &patch_of(Kind::Slice, Some(vec!["10.0.0.9".into()])));
        assert_eq!(body["endpoints"][0]["addresses"], json!(["10.0.0.9"]));
        assert!(body["endpoints"][0].get("targetRef").is_none());
        assert!(patch(&config(""), &patch_of(Kind::Slice, None)).get("endpoints").is_none());
    }

    #[test]
    fn watch_lines_are_read() {
        let added = br#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a","uid":"u","resourceVersion":"5","deletionTimestamp":"x","managedFields":[{}]},"spec":{},"status":{"podIP":"10.0.0.1","phase":"Running"}}}"#;
        let Line::Applied(object) = line(added).unwrap() else { panic!() };
        assert_eq!((object.name.as_str(), object.ip.as_deref(), object.deleting), ("a", Some("10.0.0.1"), true));
        let bookmark = br#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}"#;
        assert_eq!(line(bookmark), Ok(Line::Bookmark("9".into())));
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"status":"Failure","message":"too old","code":410}}"#;
        assert_eq!(line(gone), Ok(Line::Error(StoreError::Gone)));
        let slice =
            br#"{"type":"MODIFIED","object":{"metadata":{"name":"s"},"endpoints":[{"addresses":["1.1.1.1"]}]}}"#;
        let Line::Applied(object) = line(slice).unwrap() else { panic!() };
        assert_eq!(object.addresses, ["1.1.1.1"]);
        assert!(line(b"{}").is_err());
    }

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(error(409, b"{}", None), StoreError::Conflict);
        let body = br#"{"kind":"Status","message":"slow down","details":{"retryAfterSeconds":2}}"#;
        assert_eq!(error(429, body, None), StoreError::Status(429, "slow down".into(), Some(2)));
        assert_eq!(error(503, b"upstream gone\n", Some(1)), StoreError::Status(503, "upstream gone".into(), Some(1)));
        assert_eq!(error(403, br#"{"message":"no"}"#, None), StoreError::Forbidden("no".into()));
    }
}
