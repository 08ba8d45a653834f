//! What the agents of one cluster may do: a ServiceAccount, a Role and a RoleBinding of their own.
//!
//! get and patch are narrowed by name to the shared objects and to the cluster's own pods. list and watch by
//! label, and create, cannot be narrowed by name in Kubernetes: they hold for the namespace.

use serde_json::{Value, json};

use super::metadata;
use crate::kinds::Kind;
use crate::observe::Seen;

/// The most instances that a spec may ask for: their pods' names are in the Role from the start, so that scaling
/// never races with rights.
const MOST_INSTANCES: i32 = 9;

/// ServiceAccount, Role, RoleBinding.
pub fn objects(seen: &Seen) -> Vec<(Kind, Value)> {
    let name = seen.names().agent();
    vec![
        (
            Kind::ServiceAccount,
            json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": metadata(seen, &name),
                "automountServiceAccountToken": false,
            }),
        ),
        (
            Kind::Role,
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": metadata(seen, &name),
                "rules": rules(seen),
            }),
        ),
        (
            Kind::RoleBinding,
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata(seen, &name),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": seen.namespace()}],
            }),
        ),
    ]
}

fn rules(seen: &Seen) -> Value {
    let names = seen.names();
    let store = if seen.endpoints_mode() { "endpoints" } else { "configmaps" };
    let pods: Vec<String> = (0..MOST_INSTANCES).map(|n| format!("{}-{n}", seen.name())).collect();
    let mut rules = vec![
        json!({
            "apiGroups": [""],
            "resources": [store],
            "resourceNames": [names.leader(), names.config(), names.failover(), names.sync()],
            "verbs": ["get", "patch"],
        }),
        // create: a lock object that somebody deletes while the operator is away has to come back.
        json!({"apiGroups": [""], "resources": [store], "verbs": ["list", "watch", "create"]}),
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}),
        json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": pods, "verbs": ["patch"]}),
    ];
    if !seen.endpoints_mode() {
        rules.push(json!({
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "resourceNames": [names.slice()],
            "verbs": ["get", "patch"],
        }));
    }
    json!(rules)
}
