//! `PATRONI_*` environment variables as a document, by Patroni's names: `PATRONI_<SECTION>_<KEY>`.

use serde_json::{Map, Value};

use super::Error;

/// Keys of each section that are one value.
const SECTIONS: [(&str, &[&str]); 4] = [
    (
        "restapi",
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "cafile",
            "verify_client",
            "allowlist",
            "allowlist_include_members",
            "http_extra_headers",
            "https_extra_headers",
            "server_tokens",
        ],
    ),
    ("postgresql", &["listen", "connect_address", "proxy_address", "config_dir", "data_dir", "pgpass", "bin_dir"]),
    ("log", &["type", "level", "format", "dir"]),
    ("ctl", &["insecure", "cacert", "certfile", "keyfile"]),
];
/// Sections with `authentication: {username, password}`.
const WITH_LOGIN: [&str; 2] = ["restapi", "ctl"];
/// Roles below `postgresql.authentication`.
const ROLES: [&str; 3] = ["superuser", "replication", "rewind"];
/// Parameters of a login.
const LOGIN: [&str; 11] = [
    "username",
    "password",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
];
/// Keys of `kubernetes` that are lists, mappings or truths, written as YAML.
const STRUCTURED: [&str; 5] = ["labels", "ports", "use_endpoints", "bypass_api_service", "retriable_http_codes"];

/// What the variables say; empty ones say nothing.
pub fn document(env: impl IntoIterator<Item = (String, String)>) -> Result<Value, Error> {
    let mut document = Value::Object(Map::new());
    for (variable, text) in env {
        let Some(rest) = variable.strip_prefix("PATRONI_") else { continue };
        if text.is_empty() {
            continue;
        }
        if let Some(path) = path(&rest.to_ascii_lowercase()) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let value = match path.as_slice() {
                ["kubernetes", key] if STRUCTURED.contains(key) => structured(&variable, key, &text)?,
                ["restapi", key] if key.ends_with("_headers") => structured(&variable, key, &text)?,
                _ => Value::String(text),
            };
            put(&mut document, &path, value);
        }
    }
    Ok(document)
}

/// Where a variable's value belongs; none: it is not one of ours.
fn path(rest: &str) -> Option<Vec<String>> {
    let owned = |parts: &[&str]| Some(parts.iter().map(|&part| part.to_owned()).collect());
    if matches!(rest, "name" | "scope" | "namespace") {
        return owned(&[rest]);
    }
    let (section, key) = rest.split_once('_')?;
    if ROLES.contains(&section) && LOGIN.contains(&key) {
        return owned(&["postgresql", "authentication", section, key]);
    }
    if WITH_LOGIN.contains(&section) && matches!(key, "username" | "password") {
        return owned(&[section, "authentication", key]);
    }
    if matches!(section, "kubernetes" | "tags") {
        return owned(&[section, key]);
    }
    let known = SECTIONS.iter().any(|(name, keys)| *name == section && keys.contains(&key));
    if known { owned(&[section, key]) } else { None }
}

/// YAML, with or without the brackets: `a: b, c: d`, `[1, 2]`, `on`.
fn structured(variable: &str, key: &str, text: &str) -> Result<Value, Error> {
    let bracketed = match key {
        "labels" | "http_extra_headers" | "https_extra_headers" if !text.trim_start().starts_with('{') => {
            format!("{{{text}}}")
        }
        "ports" | "retriable_http_codes" if !text.trim_start().starts_with('[') => format!("[{text}]"),
        _ => text.to_owned(),
    };
    super::value::yaml(&bracketed)
        .map_err(|error| Error::value(variable, format!("{text:?} is not as it should be: {error}")))
}

fn put(document: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *document = value;
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    if let Value::Object(map) = document {
        put(map.entry(*first).or_insert(Value::Null), rest, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Value, Error> {
        document(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn variables_find_their_place() {
        let document = of(&[
            ("PATRONI_SCOPE", "orders"),
            ("PATRONI_NAME", "orders-0"),
            ("PATRONI_KUBERNETES_NAMESPACE", "shop"),
            ("PATRONI_KUBERNETES_LABELS", "{application: patroni, team: a}"),
            ("PATRONI_KUBERNETES_USE_ENDPOINTS", "true"),
            ("PATRONI_KUBERNETES_PORTS", "{name: postgresql, port: 5432}"),
            ("PATRONI_KUBERNETES_POD_IP", "10.0.0.1"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/data/pg"),
            ("PATRONI_POSTGRESQL_CONNECT_ADDRESS", "10.0.0.1:5432"),
            ("PATRONI_SUPERUSER_PASSWORD", "secret"),
            ("PATRONI_REPLICATION_USERNAME", "standby"),
            ("PATRONI_RESTAPI_LISTEN", "0.0.0.0:8008"),
            ("PATRONI_RESTAPI_PASSWORD", "rest"),
            ("PATRONI_LOG_LEVEL", ""),
            ("PATRONI_SOMETHING_ELSE", "x"),
            ("HOME", "/root"),
        ])
        .unwrap();
        assert_eq!(
            document,
            json!({
                "scope": "orders", "name": "orders-0",
                "kubernetes": {"namespace": "shop", "labels": {"application": "patroni", "team": "a"}, "use_endpoints": true,
                               "ports": [{"name": "postgresql", "port": 5432}], "pod_ip": "10.0.0.1"},
                "postgresql": {"data_dir": "/data/pg", "connect_address": "10.0.0.1:5432",
                               "authentication": {"superuser": {"password": "secret"}, "replication": {"username": "standby"}}},
                "restapi": {"listen": "0.0.0.0:8008", "authentication": {"password": "rest"}},
            })
        );
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = of(&[("PATRONI_KUBERNETES_LABELS", "{a: [")]).unwrap_err().to_string();
        assert!(error.starts_with("PATRONI_KUBERNETES_LABELS: "), "{error}");
    }
}
