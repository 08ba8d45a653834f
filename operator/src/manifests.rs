//! What installs the operator: namespace, rights and Deployment. The same function makes `rbac/`, the Helm chart's
//! templates and the output of `matriarch-operator manifests`.

use serde_json::{Value, json};

/// What differs between installations. For the Helm chart these are template expressions.
#[derive(Debug, Clone)]
pub struct Install {
    /// Name of all objects.
    pub name: String,
    /// Namespace of the operator.
    pub namespace: String,
    /// Whether the namespace is made too.
    pub create_namespace: bool,
    /// Image of the operator.
    pub operator_image: String,
    /// Image of agent and supervisor.
    pub sidecar_image: String,
    /// How many operators; one works, the others wait.
    pub replicas: Value,
    /// The only namespace in which clusters are looked at; empty: all.
    pub watch_namespace: String,
    /// Resources of the container.
    pub resources: Value,
}

impl Default for Install {
    fn default() -> Self {
        Self {
            name: "matriarch-operator".to_owned(),
            namespace: "matriarch-system".to_owned(),
            create_namespace: true,
            operator_image: "matriarch-operator:latest".to_owned(),
            sidecar_image: "matriarch-sidecar:latest".to_owned(),
            replicas: json!(1),
            watch_namespace: String::new(),
            resources: json!({"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}}),
        }
    }
}

/// ServiceAccount, ClusterRole, its binding, Role for the Lease, its binding, Deployment; in order of creation.
pub fn objects(install: &Install) -> Vec<Value> {
    let mut all = Vec::new();
    if install.create_namespace {
        all.push(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": install.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }));
    }
    all.extend(rights(install));
    all.push(deployment(install));
    all
}

/// Everything but the namespace and the Deployment.
pub fn rights(install: &Install) -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let name = &install.name;
    let here = metadata(install);
    let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": install.namespace}]);
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here}),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": here["labels"]},
            "rules": rules(),
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": here["labels"]},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": subjects,
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "Role",
            "metadata": here,
            "rules": [
                rule("coordination.k8s.io", &["leases"], &["create"]),
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "resourceNames": [LEASE],
                    "verbs": ["get", "update"],
                },
            ],
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": subjects,
        }),
    ]
}

/// Name of the Lease of the operators.
pub const LEASE: &str = "matriarch-operator";

fn metadata(install: &Install) -> Value {
    json!({
        "name": install.name,
        "namespace": install.namespace,
        "labels": {"app.kubernetes.io/name": "matriarch-operator", "app.kubernetes.io/instance": install.name},
    })
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// What the operator does itself, and what it holds only because it grants it to agents: Kubernetes lets nobody grant
/// more than he has.
fn rules() -> Value {
    let own = ["get", "list", "watch", "create", "patch"];
    json!([
        rule("matriarch.dev", &["postgresclusters"], &["get", "list", "watch"]),
        rule("matriarch.dev", &["postgresclusters/status"], &["patch"]),
        // ownerReferences with blockOwnerDeletion need this where that admission plugin is on.
        rule("matriarch.dev", &["postgresclusters/finalizers"], &["update"]),
        rule("apps", &["statefulsets"], &own),
        // update of configmaps, endpoints and endpointslices: only granted, to the agents.
        rule("", &["configmaps", "endpoints"], &["get", "list", "watch", "create", "patch", "update"]),
        rule("discovery.k8s.io", &["endpointslices"], &["get", "list", "watch", "create", "patch", "update"]),
        rule("", &["secrets", "services", "serviceaccounts"], &own),
        rule("", &["pods"], &["get", "list", "watch", "patch", "delete"]),
        rule("", &["persistentvolumeclaims"], &["list", "watch", "patch"]),
        rule("policy", &["poddisruptionbudgets"], &own),
        rule("rbac.authorization.k8s.io", &["roles", "rolebindings"], &own),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ])
}

fn deployment(install: &Install) -> Value {
    let labels = metadata(install)["labels"].clone();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(install),
        "spec": {
            "replicas": install.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": install.name,
                    "enableServiceLinks": false,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "operator",
                        "image": install.operator_image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/matriarch-operator", "run"],
                        "env": [
                            {"name": "MATRIARCH_SIDECAR_IMAGE", "value": install.sidecar_image},
                            {"name": "MATRIARCH_WATCH_NAMESPACE", "value": install.watch_namespace},
                            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                        ],
                        "resources": install.resources,
                        "securityContext": {
                            "readOnlyRootFilesystem": true,
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}

/// Objects as one YAML stream.
pub fn yaml(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object)?);
    }
    Ok(text)
}

/// The head of generated files.
const GENERATED: &str = "# Generated by `cargo run -p matriarch-operator --example generate`; do not edit.\n";

/// Files that are generated and committed: path in the repository, and content.
pub fn files() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    let install = Install::default();
    let chart = Install {
        name: "{{ .Release.Name }}".to_owned(),
        namespace: "{{ .Release.Namespace }}".to_owned(),
        create_namespace: false,
        operator_image: "{{ .Values.operatorImage }}".to_owned(),
        sidecar_image: "{{ .Values.sidecarImage }}".to_owned(),
        replicas: json!("{{ .Values.replicas }}"),
        watch_namespace: "{{ .Values.watchNamespace }}".to_owned(),
        resources: json!("{{ .Values.resources | toJson }}"),
    };
    let mut templates = yaml(&objects(&chart))?;
    // Numbers and maps must not be quoted when the template is filled in.
    for bare in ["{{ .Values.replicas }}", "{{ .Values.resources | toJson }}"] {
        for quote in ['"', '\''] {
            templates = templates.replace(&format!("{quote}{bare}{quote}"), bare);
        }
    }
    Ok(vec![
        ("rbac/operator.yaml", format!("{GENERATED}{}", yaml(&rights(&install))?)),
        ("charts/matriarch/templates/operator.yaml", format!("{GENERATED}{templates}")),
        ("charts/matriarch/crds/postgresclusters.yaml", matriarch_crds::generated::CRD_YAML.to_owned()),
        ("rbac/agents.yaml", format!("{GENERATED}{}", crate::plan::example_agent_rights()?)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifests_are_current() {
        for (path, content) in files().unwrap() {
            let committed =
                std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default();
            assert!(committed == content, "{path} is stale: run `cargo run -p matriarch-operator --example generate`");
        }
    }

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
