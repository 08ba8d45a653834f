//! The agents' configuration: Patroni's static YAML with a section of Matriarch's own.

use matriarch_crds::PostgresClusterSpec;
use matriarch_crds::names::{
    API_PORT, APPLICATION, APPLICATION_LABEL, DATA_DIR, POSTGRES_PORT, POSTGRES_PORT_NAME, POSTGRES_SOCKET_DIR,
    ROLE_LABEL, SCOPE_LABEL, SECRETS_DIR, SERVER_TLS_DIR, SUPERVISOR_SOCKET, TLS_DIR, WAL_DIR,
};
use serde_json::{Value, json};

use super::metadata;
use crate::config;
use crate::observe::Seen;

/// The ConfigMap: `patroni.yml` (JSON is YAML), and `dbname` for the folder of the application's credentials.
pub fn object(seen: &Seen) -> Value {
    let spec = &seen.cluster.spec;
    let names = seen.names();
    let mut patroni = json!({
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
            "initdb": initdb(spec),
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
    let own = &mut patroni["matriarch"];
    if spec.wal_storage.is_some() {
        own["wal_dir"] = json!(WAL_DIR);
    }
    if spec.tls.secret.is_some() {
        own["server_tls"] = json!(SERVER_TLS_DIR);
    }
    let bootstrap = spec.bootstrap.clone().unwrap_or_default();
    if let Some(clone) = bootstrap.clone {
        own["clone"] = json!({
            "host": clone.host,
            "port": clone.port,
            "ssl_mode": clone.ssl_mode.as_str(),
        });
    }
    let sql = bootstrap.initdb.unwrap_or_default().post_init_sql;
    if !sql.is_empty() {
        own["post_init_sql"] = json!(sql);
    }
    let yaml = serde_saphyr::to_string(&patroni).unwrap_or_else(|_| patroni.to_string());
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(seen, &names.agent_config()),
        "data": {"patroni.yml": yaml, "dbname": spec.application.database},
    })
}

/// Options of initdb: checksums and a locale that no update of a library changes, unless the spec says otherwise.
fn initdb(spec: &PostgresClusterSpec) -> Value {
    let options = spec.bootstrap.as_ref().and_then(|b| b.initdb.clone()).unwrap_or_default();
    let mut all = Vec::new();
    // Since PostgreSQL 18 they are on without being asked for, and only newer ones know how to say no.
    if options.data_checksums != Some(false) {
        all.push(json!("data-checksums"));
    }
    all.push(json!({"encoding": options.encoding.as_deref().unwrap_or("UTF8")}));
    all.push(json!({"locale": options.locale.as_deref().unwrap_or("C.UTF-8")}));
    if let Some(provider) = options.locale_provider {
        all.push(json!({"locale-provider": provider.as_str()}));
    }
    if let Some(locale) = &options.icu_locale {
        all.push(json!({"icu-locale": locale}));
    }
    if let Some(size) = options.wal_segment_size {
        all.push(json!({"wal-segsize": size.to_string()}));
    }
    json!(all)
}
