//! The Services: of the primary, of the standbys, and the headless one that gives members their names.

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
    let postgres =
        json!({"name": POSTGRES_PORT_NAME, "port": POSTGRES_PORT, "targetPort": POSTGRES_PORT, "protocol": "TCP"});
    let api = json!({"name": "api", "port": API_PORT, "targetPort": API_PORT, "protocol": "TCP"});
    let mut all = vec![
        // No selector: the leader itself writes where the Service leads.
        service(seen, &names.service(), &json!({"ports": [postgres]})),
        service(seen, &names.read_only_service(), &json!({"ports": [postgres], "selector": standbys})),
        service(
            seen,
            &names.pods_service(),
            &json!({"clusterIP": "None", "publishNotReadyAddresses": true, "ports": [postgres, api], "selector": members}),
        ),
    ];
    if seen.endpoints_mode() {
        // Keeps the like-named Endpoints object, which has no addresses, from being collected.
        for name in [names.config(), names.failover(), names.sync()] {
            all.push(service(seen, &name, &json!({"clusterIP": "None", "ports": [postgres]})));
        }
    }
    all
}

fn service(seen: &Seen, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(seen, name), "spec": spec})
}
