//! The Services: of the primary, of the standbys, and the headless one that gives members their names.

use matriarch_crds::cluster::ServiceTemplate;
use matriarch_crds::names::{
    API_PORT, APPLICATION, APPLICATION_LABEL, POSTGRES_PORT, POSTGRES_PORT_NAME, ROLE_LABEL, ROLE_REPLICA, SCOPE_LABEL,
};
use serde_json::{Value, json};

use super::metadata;
use crate::observe::Seen;

/// All of them.
pub fn objects(seen: &Seen) -> Vec<Value> {
    let names = seen.names();
    let members = json!({(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()});
    let mut standbys = members.clone();
    standbys[ROLE_LABEL] = json!(ROLE_REPLICA);
    let postgres = port(POSTGRES_PORT_NAME, POSTGRES_PORT);
    let api = port("api", API_PORT);
    let templates = &seen.cluster.spec.services;
    let mut all = vec![
        // No selector: the leader itself writes where the Service leads.
        client(seen, &names.service(), &templates.primary, json!({"ports": [postgres]})),
        client(
            seen,
            &names.read_only_service(),
            &templates.read_only,
            json!({"ports": [postgres], "selector": standbys}),
        ),
        service(
            &metadata(seen, &names.pods_service()),
            &json!({"clusterIP": "None", "publishNotReadyAddresses": true, "ports": [postgres, api], "selector": members}),
        ),
    ];
    if seen.endpoints_mode() {
        // Keeps the like-named Endpoints object, which has no addresses, from being collected.
        for name in [names.config(), names.failover(), names.sync()] {
            all.push(service(&metadata(seen, &name), &json!({"clusterIP": "None", "ports": [postgres]})));
        }
    }
    all
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"})
}

fn service(metadata: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// One that clients use, as the spec shapes it. Labels of our own win.
fn client(seen: &Seen, name: &str, template: &ServiceTemplate, mut spec: Value) -> Value {
    let mut metadata = metadata(seen, name);
    for (key, value) in &template.labels {
        if metadata["labels"].get(key).is_none() {
            metadata["labels"][key] = json!(value);
        }
    }
    if !template.annotations.is_empty() {
        metadata["annotations"] = json!(template.annotations);
    }
    spec["type"] = json!(template.type_.as_str());
    if let Some(class) = &template.load_balancer_class {
        spec["loadBalancerClass"] = json!(class);
    }
    if !template.load_balancer_source_ranges.is_empty() {
        spec["loadBalancerSourceRanges"] = json!(template.load_balancer_source_ranges);
    }
    if let Some(policy) = template.external_traffic_policy {
        spec["externalTrafficPolicy"] = json!(policy.as_str());
    }
    if let Some(node_port) = template.node_port {
        spec["ports"][0]["nodePort"] = json!(node_port);
    }
    service(&metadata, &spec)
}
