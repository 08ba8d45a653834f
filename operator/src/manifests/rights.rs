//! Who may do what: the operator's account and rights, and what users get by Kubernetes' own roles.

use serde_json::{Value, json};

use super::Install;

const GROUP: &str = "rbac.authorization.k8s.io";

/// ServiceAccount, the operator's rights (in the whole cluster or in namespaces) and those to its Lease.
pub(super) fn objects(install: &Install) -> Vec<Value> {
    let name = &install.name;
    let here = Some(install.namespace.as_str());
    let mut all = vec![json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": install.metadata(name, here)})];
    if install.namespaced {
        for namespace in install.watched() {
            all.extend(granted(install, name, Some(&namespace), &rules()));
        }
    } else {
        all.extend(granted(install, name, None, &cluster_rules()));
    }
    all.extend(granted(install, &format!("{name}-lease"), here, &lease_rules(name)));
    all
}

/// A role and its binding to the operator.
fn granted(install: &Install, name: &str, namespace: Option<&str>, rules: &Value) -> [Value; 2] {
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    [
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": kind,
            "metadata": install.metadata(name, namespace),
            "rules": rules,
        }),
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": format!("{kind}Binding"),
            "metadata": install.metadata(name, namespace),
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": install.name, "namespace": install.namespace}],
        }),
    ]
}

/// Added to Kubernetes' own roles: who may view a namespace sees clusters, who may edit it makes them.
pub(super) fn for_users(install: &Install) -> Vec<Value> {
    [("view", &["view", "edit", "admin"][..], view_rules()), ("edit", &["edit", "admin"], edit_rules())]
        .into_iter()
        .map(|(role, to, rules)| {
            let mut metadata = install.metadata(&format!("{}-aggregate-to-{role}", install.name), None);
            for one in to {
                metadata["labels"][format!("{GROUP}/aggregate-to-{one}")] = json!("true");
            }
            json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata, "rules": rules})
        })
        .collect()
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

pub(super) fn view_rules() -> Value {
    json!([
        rule("matriarch.dev", &["postgresclusters"], &["get", "list", "watch"]),
        rule("matriarch.dev", &["postgresclusters/status", "postgresclusters/scale"], &["get"]),
    ])
}

pub(super) fn edit_rules() -> Value {
    json!([
        rule("matriarch.dev", &["postgresclusters"], &["create", "update", "patch", "delete", "deletecollection"]),
        rule("matriarch.dev", &["postgresclusters/scale"], &["update", "patch"]),
    ])
}

/// create cannot be narrowed by name.
pub fn lease_rules(lease: &str) -> Value {
    json!([
        rule("coordination.k8s.io", &["leases"], &["create"]),
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [lease],
            "verbs": ["get", "update"],
        },
    ])
}

/// What the operator does itself, and what it holds only because it grants it to agents: Kubernetes lets nobody grant
/// more than he has.
pub fn rules() -> Value {
    // What is looked at comes from watches: get is held only where something is read by its name.
    let own = ["list", "watch", "create", "patch"];
    let own_and_delete = ["list", "watch", "create", "patch", "delete"];
    // get of the lock objects and of the slice: only granted, to the agents.
    let granted = ["get", "list", "watch", "create", "patch"];
    json!([
        rule("matriarch.dev", &["postgresclusters"], &["list", "watch"]),
        rule("matriarch.dev", &["postgresclusters/status"], &["patch"]),
        // ownerReferences with blockOwnerDeletion need this where that admission plugin is on.
        rule("matriarch.dev", &["postgresclusters/finalizers"], &["update"]),
        // delete: without its pods, to make it anew with another claim template.
        rule("apps", &["statefulsets"], &own_and_delete),
        rule("", &["configmaps", "endpoints"], &granted),
        rule("discovery.k8s.io", &["endpointslices"], &granted),
        // get: of those that the spec names, which bear no label.
        rule("", &["secrets"], &["get", "list", "watch", "create", "patch"]),
        rule("", &["services", "serviceaccounts"], &own),
        rule("", &["pods"], &["list", "watch", "patch", "delete"]),
        rule("", &["persistentvolumeclaims"], &["list", "watch", "patch", "delete"]),
        // delete: where the spec no longer asks for them.
        rule("policy", &["poddisruptionbudgets"], &own_and_delete),
        rule("networking.k8s.io", &["networkpolicies"], &own_and_delete),
        rule("monitoring.coreos.com", &["podmonitors"], &own_and_delete),
        rule("rbac.authorization.k8s.io", &["roles", "rolebindings"], &own),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ])
}

/// The same in the whole cluster, where it can see nodes as well: which one is drained, and whether a local volume's node
/// exists. In namespaces alone a drained leader hands over when it is evicted, and such a volume is not replaced.
pub fn cluster_rules() -> Value {
    let mut all = rules();
    if let Some(list) = all.as_array_mut() {
        list.push(rule("", &["nodes"], &["list", "watch"]));
        list.push(rule("", &["persistentvolumes"], &["get"]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_holds_whatever_it_grants() {
        let held: Vec<(String, String, String)> = triples(&rules());
        for (group, resource, verb) in crate::plan::example_agent_rules().iter().flat_map(triples) {
            assert!(held.contains(&(group.clone(), resource.clone(), verb.clone())), "{group}/{resource} {verb}");
        }
    }

    fn triples(rules: &Value) -> Vec<(String, String, String)> {
        let texts = |v: &Value| -> Vec<String> {
            v.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
        };
        let mut all = Vec::new();
        for rule in rules.as_array().unwrap() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        all.push((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
        all
    }
}
