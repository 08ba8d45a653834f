//! The agents' configuration: Patroni's static YAML with a section of Matriarch's own.

use matriarch_crds::names::{
    API_PORT, APPLICATION, APPLICATION_LABEL, DATA_DIR, POSTGRES_PORT, POSTGRES_PORT_NAME, POSTGRES_SOCKET_DIR,
    ROLE_LABEL, SCOPE_LABEL, SECRETS_DIR, SUPERVISOR_SOCKET, TLS_DIR,
};
use serde_json::{Value, json};

use super::metadata;
use crate::config;
use crate::observe::Seen;

/// The ConfigMap: `patroni.yml` (JSON is YAML), and `dbname` for the folder of the application's credentials.
pub fn object(seen: &Seen) -> Value {
    let spec = &seen.cluster.spec;
    let names = seen.names();
    let patroni = json!({
        "scope": names.scope(),
        "kubernetes": {
            "labels": {(APPLICATION_LABEL): APPLICATION},
            "scope_label": SCOPE_LABEL,
            "role_label": ROLE_LABEL,
            "use_endpoints": seen.endpoints_mode(),
            "ports": [{"name": POSTGRES_PORT_NAME, "port": POSTGRES_PORT}],
        },
        "restapi": {
            "listen": format!("0.0.0.0:{API_PORT}"),
            "certfile": format!("{TLS_DIR}/tls.crt"),
            "keyfile": format!("{TLS_DIR}/tls.key"),
            "cafile": format!("{TLS_DIR}/ca.crt"),
            "verify_client": "optional",
        },
        "bootstrap": {
            "dcs": config::initial(spec, config::durability(seen)),
            "initdb": ["data-checksums", {"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
        },
        "postgresql": {"listen": format!("*:{POSTGRES_PORT}"), "data_dir": DATA_DIR},
        "matriarch": {
            "service": names.service(),
            "slice": names.slice(),
            "pods_service": names.pods_service(),
            "secrets_dir": SECRETS_DIR,
            "supervisor_socket": SUPERVISOR_SOCKET,
            "postgres_socket_dir": POSTGRES_SOCKET_DIR,
        },
    });
    let yaml = serde_saphyr::to_string(&patroni).unwrap_or_else(|_| patroni.to_string());
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(seen, &names.agent_config()),
        "data": {"patroni.yml": yaml, "dbname": spec.application.database},
    })
}
