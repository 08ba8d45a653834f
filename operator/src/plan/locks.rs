//! The shared objects: made beforehand with ownerReferences, and then left to the agents, but for the keys of the
//! dynamic configuration that the spec names.

use jiff::Timestamp;
use matriarch_crds::names::{POSTGRES_PORT, POSTGRES_PORT_NAME, SLICE_MANAGER};
use serde_json::{Value, json};

use super::{Write, metadata, owner};
use crate::config::{self, CHANGED_ANNOTATION, CHANGED_NAMES_ANNOTATION, NAMED_ANNOTATION};
use crate::kinds::Kind;
use crate::observe::Seen;

/// On the `-failover` object: when the operator asked for a switchover last.
pub const ASKED_ANNOTATION: &str = "matriarch.dev/switchover-asked";
/// On the `-failover` object: what that was, from whom to whom. A person's request leaves it there.
const REQUEST_ANNOTATION: &str = "matriarch.dev/switchover-request";

/// On the `-failover` object: what `spec.switchover` asked for last: `{"id", "from", "to"}`.
pub const FIELD_ANNOTATION: &str = "matriarch.dev/switchover";
/// On the `-failover` object: what came of the last switchover that was not done; agents write it.
pub const RESULT_ANNOTATION: &str = "matriarch.dev/result";
/// On the `-failover` object: when the operator replaced a volume last.
pub const VOLUME_ANNOTATION: &str = "matriarch.dev/volume-replaced";

/// What is missing is created; what exists keeps what agents wrote.
pub fn plan(seen: &Seen) -> Vec<Write> {
    let names = seen.names();
    let kind = seen.lock_kind();
    let mut writes = Vec::new();
    for name in [names.leader(), names.config(), names.failover(), names.sync()] {
        match seen.object(kind, &name) {
            None => writes.push(Write::Create { kind, object: lock(seen, &name) }),
            // Agents made it where nobody else did, or a Patroni cluster is taken over: it goes with the cluster too.
            Some(live) if !owned(seen, live) => writes.push(adopt(seen, kind, &name, live)),
            Some(_) => {}
        }
    }
    if !seen.endpoints_mode() && seen.object(Kind::EndpointSlice, &names.slice()).is_none() {
        writes.push(Write::Create { kind: Kind::EndpointSlice, object: slice(seen) });
    }
    writes.extend(configuration(seen));
    writes
}

fn lock(seen: &Seen, name: &str) -> Value {
    let mut metadata = metadata(seen, name);
    if name == seen.names().config() {
        let spec = &seen.cluster.spec;
        metadata["annotations"] = json!({
            "config": config::initial(spec, config::durability(seen)).to_string(),
            (NAMED_ANNOTATION): json!(config::named(spec)).to_string(),
        });
    }
    let (api_version, kind) = ("v1", if seen.endpoints_mode() { "Endpoints" } else { "ConfigMap" });
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

fn owned(seen: &Seen, live: &Value) -> bool {
    let uid = seen.cluster.metadata.uid.as_deref();
    live["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|o| o["uid"].as_str() == uid)
}

fn adopt(seen: &Seen, kind: Kind, name: &str, live: &Value) -> Write {
    let body = json!({"metadata": {
        "resourceVersion": live["metadata"]["resourceVersion"],
        "ownerReferences": owner(seen),
    }});
    Write::Patch { kind, name: name.to_owned(), body }
}

fn slice(seen: &Seen) -> Value {
    let names = seen.names();
    let mut metadata = metadata(seen, &names.slice());
    metadata["labels"]["kubernetes.io/service-name"] = json!(names.service());
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = json!(SLICE_MANAGER);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [{"name": POSTGRES_PORT_NAME, "port": POSTGRES_PORT, "protocol": "TCP"}],
    })
}

/// The dynamic configuration, by compare-and-swap.
fn configuration(seen: &Seen) -> Option<Write> {
    let change = config::change(seen)?;
    let mut annotations = json!({
        "config": change.config.to_string(),
        (NAMED_ANNOTATION): json!(change.named).to_string(),
    });
    if !change.parameters.is_empty() {
        annotations[CHANGED_ANNOTATION] = json!(seen.now.to_string());
        // An operator that did not note the names may have changed any: then none are noted from here on either.
        if let Some(before) = config::changed_names(seen) {
            let all: Vec<&String> = before.union(&change.parameters).collect();
            annotations[CHANGED_NAMES_ANNOTATION] = json!(json!(all).to_string());
        }
    }
    let body = json!({"metadata": {"resourceVersion": change.resource_version, "annotations": annotations}});
    Some(Write::Patch { kind: seen.lock_kind(), name: seen.names().config(), body })
}

/// Asks the agents for a switchover, as patronictl does, but by compare-and-swap; with the id of the wish, if it is one
/// by field.
pub fn switchover(seen: &Seen, from: &str, to: &str, id: Option<&str>) -> Option<Write> {
    let mut annotations = json!({
        "leader": from,
        "member": to,
        (ASKED_ANNOTATION): seen.now.to_string(),
        (REQUEST_ANNOTATION): request(from, to),
        (RESULT_ANNOTATION): null,
    });
    if let Some(id) = id {
        annotations[FIELD_ANNOTATION] = json!(json!({"id": id, "from": from, "to": to}).to_string());
    }
    on_failover(seen, &annotations)
}

/// Takes back a switchover that no agent acted on.
pub fn withdraw(seen: &Seen, why: &str) -> Option<Write> {
    on_failover(seen, &json!({"leader": null, "member": null, (REQUEST_ANNOTATION): null, (RESULT_ANNOTATION): why}))
}

/// Notes that a volume is replaced now; written before anything is deleted, so that the next one waits in any case.
pub fn replaces_volume(seen: &Seen) -> Option<Write> {
    on_failover(seen, &json!({(VOLUME_ANNOTATION): seen.now.to_string()}))
}

fn on_failover(seen: &Seen, annotations: &Value) -> Option<Write> {
    let name = seen.names().failover();
    let live = seen.object(seen.lock_kind(), &name)?;
    let body = json!({"metadata": {
        "resourceVersion": live["metadata"]["resourceVersion"],
        "annotations": annotations,
    }});
    Some(Write::Patch { kind: seen.lock_kind(), name, body })
}

fn request(from: &str, to: &str) -> String {
    format!("from {from} to {to}")
}

/// What is asked for is what the operator asked for last: the same, and the lock has not changed hands since, for then that was done,
/// and somebody asks for it once more.
pub fn switchover_is_ours(seen: &Seen) -> bool {
    let failover = seen.names().failover();
    let said = |key: &str| seen.lock_annotation(&failover, key).unwrap_or_default();
    let same = said(REQUEST_ANNOTATION) == request(said("leader"), said("member"));
    let acquired = seen.lock_annotation(&seen.names().leader(), "acquireTime");
    let acquired: Option<Timestamp> = acquired.and_then(|at| at.parse().ok());
    same && switchover_asked(seen).zip(acquired).is_some_and(|(asked, acquired)| acquired < asked)
}

/// From whom to whom the operator asked for a switchover last.
pub fn switchover_requested(seen: &Seen) -> Option<(&str, &str)> {
    seen.lock_annotation(&seen.names().failover(), REQUEST_ANNOTATION)?.strip_prefix("from ")?.split_once(" to ")
}

/// When the operator asked for a switchover last.
pub fn switchover_asked(seen: &Seen) -> Option<Timestamp> {
    seen.lock_annotation(&seen.names().failover(), ASKED_ANNOTATION)?.parse().ok()
}

/// When the operator replaced a volume last.
pub fn volume_replaced(seen: &Seen) -> Option<Timestamp> {
    seen.lock_annotation(&seen.names().failover(), VOLUME_ANNOTATION)?.parse().ok()
}
