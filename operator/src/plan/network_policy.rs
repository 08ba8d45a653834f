//! `spec.networkPolicy`: who may open connections to the members' pods.

use matriarch_crds::names::{API_PORT, APPLICATION, APPLICATION_LABEL, OPERATOR, POSTGRES_PORT, SCOPE_LABEL};
use serde_json::{Value, json};

use super::metadata;
use crate::observe::Seen;

/// PostgreSQL for those whom the spec names (all when it names none); the agents' API for members and the operator, and for Prometheus
/// where it is to read metrics there. What members themselves connect to is not narrowed.
pub fn object(seen: &Seen) -> Option<Value> {
    let spec = &seen.cluster.spec;
    if !spec.network_policy.enabled {
        return None;
    }
    let members = json!({"matchLabels": {(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()}});
    let (postgres, api) = (port(POSTGRES_PORT), port(API_PORT));
    let mut clients = json!({"ports": [postgres]});
    if !spec.network_policy.from.is_empty() {
        clients["from"] = json!(spec.network_policy.from);
    }
    // In whatever namespace: who it is, its certificate says.
    let operator = json!({
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": OPERATOR}},
    });
    let mut ingress = vec![
        json!({"from": [{"podSelector": members}], "ports": [postgres, api]}),
        clients,
        json!({"from": [operator], "ports": [api]}),
    ];
    if spec.monitoring.pod_monitor {
        // As the Prometheus operator labels its pods, in whatever namespace.
        let prometheus = json!({
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
        });
        ingress.push(json!({"from": [prometheus], "ports": [api]}));
    }
    Some(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(seen, &seen.name()),
        "spec": {"podSelector": members, "policyTypes": ["Ingress"], "ingress": ingress},
    }))
}

fn port(number: u16) -> Value {
    json!({"port": number, "protocol": "TCP"})
}
