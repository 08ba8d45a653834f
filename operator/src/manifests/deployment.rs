//! The Deployment of the operator, and the PodDisruptionBudget of several.

use matriarch_crds::names::AGENT_UID;
use serde_json::{Value, json};

use super::{HTTP_PORT, Install};

/// Deployment, and a PodDisruptionBudget where there are several operators.
pub(super) fn objects(install: &Install) -> Vec<Value> {
    let here = Some(install.namespace.as_str());
    let mut all = vec![json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": install.metadata(&install.name, here),
        "spec": spec(&Filled::of(install)),
    })];
    if install.replicas > 1 {
        all.push(json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": install.metadata(&install.name, here),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": install.selector()}},
        }));
    }
    all
}

/// What is filled into the Deployment; for the chart these are tokens that become template expressions.
pub(super) struct Filled {
    pub name: Value,
    pub account: Value,
    pub selector: Value,
    pub pod_labels: Value,
    pub pod_annotations: Value,
    pub operator_image: Value,
    pub pull_policy: Value,
    pub pull_secrets: Value,
    pub sidecar_image: Value,
    pub replicas: Value,
    pub watched: Value,
    pub log: Value,
    pub resources: Value,
    pub node_selector: Value,
    pub tolerations: Value,
    pub affinity: Value,
    pub spread: Value,
    pub priority: Value,
}

impl Filled {
    fn of(install: &Install) -> Self {
        Self {
            name: json!(install.name),
            account: json!(install.name),
            selector: install.selector(),
            pod_labels: install.labels(),
            pod_annotations: json!({}),
            operator_image: json!(install.operator_image),
            pull_policy: json!("IfNotPresent"),
            pull_secrets: json!([]),
            sidecar_image: json!(install.sidecar_image),
            replicas: json!(install.replicas),
            watched: json!(install.watched().join(",")),
            log: json!("info"),
            resources: json!({"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}}),
            node_selector: json!({}),
            tolerations: json!([]),
            affinity: json!({}),
            spread: json!([]),
            priority: json!(""),
        }
    }
}

pub(super) fn spec(with: &Filled) -> Value {
    let probe = |path: &str, period: u8| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period});
    json!({
        "replicas": with.replicas,
        "selector": {"matchLabels": with.selector},
        "template": {
            "metadata": {"labels": with.pod_labels, "annotations": with.pod_annotations},
            "spec": {
                "serviceAccountName": with.account,
                "enableServiceLinks": false,
                "imagePullSecrets": with.pull_secrets,
                "nodeSelector": with.node_selector,
                "tolerations": with.tolerations,
                "affinity": with.affinity,
                "topologySpreadConstraints": with.spread,
                "priorityClassName": with.priority,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": AGENT_UID,
                    "runAsGroup": AGENT_UID,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "operator",
                    "image": with.operator_image,
                    "imagePullPolicy": with.pull_policy,
                    "command": ["/matriarch-operator", "run"],
                    "env": [
                        {"name": "MATRIARCH_SIDECAR_IMAGE", "value": with.sidecar_image},
                        {"name": "MATRIARCH_WATCH_NAMESPACES", "value": with.watched},
                        {"name": "MATRIARCH_LEASE", "value": with.name},
                        {"name": "RUST_LOG", "value": with.log},
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    ],
                    "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
                    // Ready: it waits for the Lease, or works with full caches.
                    "readinessProbe": probe("/readyz", 2),
                    "livenessProbe": probe("/healthz", 10),
                    "resources": with.resources,
                    "securityContext": {
                        "readOnlyRootFilesystem": true,
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        },
    })
}
