//! What has to be written so that a cluster is as its spec says: pure, from [`Seen`] to a list of [`Write`].

pub mod claims;
pub mod declared;
pub mod diff;
pub mod locks;
pub mod monitoring;
pub mod mounted;
pub mod network_policy;
pub mod pdb;
pub mod rbac;
pub mod restarts;
pub mod secrets;
pub mod services;
pub mod statefulset;

mod agent_config;

use matriarch_crds::PostgresClusterSpec;
use matriarch_crds::names::OPERATOR;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::next_step::{Step, hibernate, next_step, set};
use crate::observe::{Seen, labels};
use crate::tls;

/// On pod templates: hash of what of the spec needs a new pod to take effect.
pub const RESTART_ANNOTATION: &str = "matriarch.dev/restart-hash";
/// On everything that is applied: hash of what was applied last, so that a removed field is noticed.
pub const APPLIED_ANNOTATION: &str = "matriarch.dev/applied-hash";

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Server-side apply.
    Apply {
        /// Kind.
        kind: Kind,
        /// The fields that are ours.
        object: Value,
    },
    /// Create; that it exists already is fine and leaves it as it is.
    Create {
        /// Kind.
        kind: Kind,
        /// The whole object.
        object: Value,
    },
    /// Merge patch; with `metadata.resourceVersion` a compare-and-swap.
    Patch {
        /// Kind.
        kind: Kind,
        /// Name.
        name: String,
        /// The patch.
        body: Value,
    },
    /// The image of a running pod's agent.
    AgentImage {
        /// The pod.
        pod: String,
        /// The image.
        image: String,
    },
    /// PostgreSQL is restarted in its pod.
    Restart(restarts::Restart),
    /// Grows a claim. That the storage cannot is told, and hinders nothing else.
    Grow {
        /// Name of the claim.
        claim: String,
        /// The patch.
        body: Value,
    },
    /// Delete without what belongs to it, if it is still the one with that uid.
    Orphan {
        /// Kind.
        kind: Kind,
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Delete, if it is still the one with that uid.
    Delete {
        /// Kind.
        kind: Kind,
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Issue the certificate authority and/or the members' certificate.
    Issue(tls::Need),
}

/// All writes of one reconcile, in order, and the step that is under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub writes: Vec<Write>,
    /// What `next_step` decided.
    pub step: Step,
}

/// Decides everything.
pub fn plan(seen: &Seen) -> Plan {
    let step = next_step(seen);
    let mut writes = Vec::new();
    if seen.cluster.metadata.deletion_timestamp.is_some() {
        return Plan { writes, step: Step::Stable };
    }
    writes.extend(secrets::plan(seen));
    if let Some(need) = tls::need(seen) {
        writes.push(Write::Issue(need));
    }
    writes.extend(locks::plan(seen));
    for (kind, object) in applied(seen) {
        apply_if_different(seen, kind, object, &mut writes);
    }
    writes.extend(monitoring::surplus(seen));
    writes.extend(pdb::surplus(seen));
    // A Secret of the user's that is missing or unusable: nothing that runs is touched, nothing new is started.
    if seen.user_secrets.iter().all(|s| s.lacks.is_none()) {
        if !set::being_deleted(seen) && (set_exists(seen) || !hibernate::sleeps(seen)) {
            apply_if_different(seen, Kind::StatefulSet, statefulset::object(seen), &mut writes);
        }
        writes.extend(of_step(seen, &step));
        writes.extend(claims::removed(seen, &step));
    }
    writes.extend(claims::ownership(seen));
    writes.extend(mounted::plan(seen));
    writes.extend(claims::grow(seen));
    Plan { writes, step }
}

fn set_exists(seen: &Seen) -> bool {
    seen.object(Kind::StatefulSet, &seen.name()).is_some()
}

/// Objects that are wholly the operator's, but for the StatefulSet.
fn applied(seen: &Seen) -> Vec<(Kind, Value)> {
    let mut all = vec![(Kind::ConfigMap, agent_config::object(seen))];
    all.extend(services::objects(seen).into_iter().map(|o| (Kind::Service, o)));
    all.extend(rbac::objects(seen));
    all.extend(network_policy::object(seen).map(|o| (Kind::NetworkPolicy, o)));
    all.extend(monitoring::object(seen).map(|o| (Kind::PodMonitor, o)));
    all.extend(pdb::objects(seen).into_iter().map(|o| (Kind::PodDisruptionBudget, o)));
    all.extend(declared::object(seen).map(|o| (Kind::Secret, o)));
    all
}

fn of_step(seen: &Seen, step: &Step) -> Vec<Write> {
    let delete = |kind: Kind, name: &str, uid: &str| Write::Delete { kind, name: name.to_owned(), uid: uid.to_owned() };
    match step {
        Step::Stable | Step::Hibernated | Step::Create | Step::Wait { .. } => Vec::new(),
        Step::RecreateSet { uid } => {
            vec![Write::Orphan { kind: Kind::StatefulSet, name: seen.name(), uid: uid.clone() }]
        }
        Step::UpgradeAgent { pod } => {
            vec![Write::AgentImage { pod: pod.clone(), image: seen.sidecar_image.clone() }]
        }
        Step::ReplacePod { pod, uid, .. } => vec![delete(Kind::Pod, pod, uid)],
        Step::Restart { pod, uid, turn, .. } => restarts::write(seen, pod, uid, *turn).into_iter().collect(),
        Step::ReplaceVolume { pod, uid, claims, .. } => {
            let claims = claims.iter().map(|(name, uid)| delete(Kind::PersistentVolumeClaim, name, uid));
            let mut writes: Vec<Write> = claims.chain([delete(Kind::Pod, pod, uid)]).collect();
            if writes.len() > 1 {
                // Noted first; without the note (the object is missing) nothing is deleted.
                let Some(note) = locks::replaces_volume(seen) else { return Vec::new() };
                writes.insert(0, note);
            }
            writes
        }
        Step::Switchover { from, to, id, .. } => locks::switchover(seen, from, to, id.as_deref()).into_iter().collect(),
        Step::Withdraw { why } => locks::withdraw(seen, why).into_iter().collect(),
    }
}

fn apply_if_different(seen: &Seen, kind: Kind, mut object: Value, writes: &mut Vec<Write>) {
    let hash = diff::hash(&object);
    object["metadata"]["annotations"][APPLIED_ANNOTATION] = json!(hash);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !seen.object(kind, name).is_some_and(|live| diff::contains(live, &object)) {
        writes.push(Write::Apply { kind, object });
    }
}

/// `metadata` of an object that goes with the cluster.
fn metadata(seen: &Seen, name: &str) -> Value {
    let mut metadata = kept_metadata(seen, name);
    metadata["ownerReferences"] = owner(seen);
    metadata
}

/// `metadata` of an object that stays when the cluster is deleted.
fn kept_metadata(seen: &Seen, name: &str) -> Value {
    let mut labels = labels(&seen.name());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), OPERATOR.to_owned());
    json!({"name": name, "namespace": seen.namespace(), "labels": labels})
}

fn owner(seen: &Seen) -> Value {
    use kube::Resource;
    seen.cluster.controller_owner_ref(&()).map_or(Value::Null, |o| json!([o]))
}

/// Hash of what of the spec needs a new pod to take effect. Not of the sidecar's image: agents are upgraded in place.
/// Fields that are not used add nothing, so that an operator that knows more of them replaces no pod.
pub fn restart_hash(spec: &PostgresClusterSpec) -> String {
    let mut all = json!({
        "image": spec.image,
        "resources": spec.resources,
        "affinity": spec.affinity,
        "tolerations": spec.tolerations,
        "nodeSelector": spec.node_selector,
        "secrets": spec.secrets,
    });
    let server_tls = [&spec.tls.secret, &spec.tls.ca_secret];
    let more = json!({
        "topologySpreadConstraints": spec.topology_spread_constraints,
        "priorityClassName": spec.priority_class_name,
        "schedulerName": spec.scheduler_name,
        "pod": spec.pod,
        "serverTls": server_tls.iter().any(|name| name.is_some()).then_some(server_tls),
    });
    for (key, value) in more.as_object().into_iter().flatten().filter(|(_, value)| !diff::is_empty(value)) {
        all[key] = value.clone();
    }
    diff::hash(&all)
}

/// A cluster of which nothing exists yet, for the examples in `rbac/` and for tests.
pub fn example(spec: PostgresClusterSpec) -> Seen {
    let mut cluster = matriarch_crds::PostgresCluster::new("orders", spec);
    cluster.metadata.namespace = Some("shop".to_owned());
    cluster.metadata.uid = Some("0d9e5a2c-0000-4000-8000-000000000000".to_owned());
    Seen {
        now: jiff::Timestamp::UNIX_EPOCH,
        cluster,
        sidecar_image: "matriarch-sidecar:0.1.0".to_owned(),
        objects: std::collections::BTreeMap::new(),
        members: Vec::new(),
        user_secrets: Vec::new(),
        knows_pod_monitors: false,
        named_secrets: std::collections::BTreeMap::new(),
        nodes: None,
        lost_local: std::collections::BTreeSet::new(),
        passwords: ["p1", "p2", "p3", "p4"].map(str::to_owned),
    }
}

/// The smallest spec, in either store mode.
pub fn example_spec(endpoints: bool) -> PostgresClusterSpec {
    let mode = if endpoints { "Endpoints" } else { "ConfigMaps" };
    let spec = json!({
        "instances": 3, "image": "docker.io/library/postgres:17", "storage": {"size": "20Gi"}, "storeMode": mode,
    });
    serde_json::from_value(spec).unwrap_or_else(|_| unreachable!("a constant of the right shape"))
}

/// The agents' rights in both modes, for the rights that the operator must hold.
pub fn example_agent_rules() -> Vec<Value> {
    [false, true]
        .into_iter()
        .flat_map(|endpoints| rbac::objects(&example(example_spec(endpoints))))
        .filter(|(kind, _)| *kind == Kind::Role)
        .map(|(_, role)| role["rules"].clone())
        .collect()
}

/// The agents' rights of a cluster `orders` in the namespace `shop`, as YAML to be reviewed.
pub fn example_agent_rights() -> Result<String, serde_saphyr::ser::Error> {
    let objects: Vec<Value> = rbac::objects(&example(example_spec(false)))
        .into_iter()
        .map(|(_, mut object)| {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("ownerReferences");
            }
            object
        })
        .collect();
    crate::manifests::yaml(&objects)
}

#[cfg(test)]
mod tests;
