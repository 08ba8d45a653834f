//! `PATRONI_*` environment variables as a document, by Patroni's names: `PATRONI_<SECTION>_<KEY>`.

use serde_json::{Map, Value};

use super::Error;
use super::postgresql::LOGIN;

/// Keys of each section that are one value.
const SECTIONS: [(&str, &[&str]); 4] = [
    (
        "restapi",
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "keyfile_password",
            "cafile",
            "ciphers",
            "verify_client",
            "http_extra_headers",
            "https_extra_headers",
            "allowlist",
            "allowlist_include_members",
            "request_queue_size",
            "server_tokens",
        ],
    ),
    ("postgresql", &["listen", "connect_address", "proxy_address", "config_dir", "data_dir", "pgpass", "bin_dir"]),
    (
        "log",
        &[
            "type",
            "level",
            "traceback_level",
            "format",
            "dateformat",
            "static_fields",
            "max_queue_size",
            "dir",
            "mode",
            "file_size",
            "file_num",
            "loggers",
            "deduplicate_heartbeat_logs",
        ],
    ),
    ("ctl", &["insecure", "cacert", "certfile", "keyfile", "keyfile_password"]),
];
/// Patroni's former names.
const ALIASES: [(&str, &str); 3] =
    [("loglevel", "log_level"), ("logformat", "log_format"), ("log_datefmt", "log_dateformat")];
/// Sections with `authentication: {username, password}`.
const WITH_LOGIN: [&str; 2] = ["restapi", "ctl"];
/// Roles below `postgresql.authentication`.
const ROLES: [&str; 3] = ["superuser", "replication", "rewind"];
/// What encloses a list or a mapping.
type Brackets = Option<(char, char)>;
/// Keys that are lists, mappings or truths, written as YAML, and the brackets that may be left out.
const STRUCTURED: [(&str, &str, Brackets); 11] = [
    ("kubernetes", "labels", Some(('{', '}'))),
    ("kubernetes", "bootstrap_labels", Some(('{', '}'))),
    ("kubernetes", "ports", Some(('[', ']'))),
    ("kubernetes", "retriable_http_codes", Some(('[', ']'))),
    ("kubernetes", "use_endpoints", None),
    ("kubernetes", "bypass_api_service", None),
    ("restapi", "http_extra_headers", Some(('{', '}'))),
    ("restapi", "https_extra_headers", Some(('{', '}'))),
    ("restapi", "allowlist", Some(('[', ']'))),
    ("log", "static_fields", Some(('{', '}'))),
    ("log", "loggers", Some(('{', '}'))),
];

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
            let brackets = STRUCTURED.iter().find(|(section, key, _)| path == [*section, *key]).map(|found| found.2);
            // Without placeholders it is a list of fields, as in Patroni.
            let fields = path == ["log", "format"] && !text.contains("%(");
            let brackets = brackets.or(fields.then_some(Some(('[', ']'))));
            let value = match brackets {
                Some(brackets) => structured(&variable, brackets, &text)?,
                None => Value::String(text),
            };
            put(&mut document, &path, value);
        }
    }
    Ok(document)
}

/// Where a variable's value belongs; none: it is not one of ours.
fn path(rest: &str) -> Option<Vec<String>> {
    let rest = ALIASES.iter().find(|(former, _)| *former == rest).map_or(rest, |(_, present)| present);
    let owned = |parts: &[&str]| Some(parts.iter().map(|&part| part.to_owned()).collect());
    if matches!(rest, "name" | "scope" | "namespace") {
        return owned(&[rest]);
    }
    let (section, key) = rest.split_once('_')?;
    if ROLES.contains(&section) && (matches!(key, "username" | "password") || LOGIN.contains(&key)) {
        return owned(&["postgresql", "authentication", section, key]);
    }
    if WITH_LOGIN.contains(&section) && matches!(key, "username" | "password") {
        return owned(&[section, "authentication", key]);
    }
    if matches!(section, "kubernetes" | "tags") {
        return owned(&[section, key]);
    }
    if let ("postgresql", Some(program)) = (section, key.strip_prefix("bin_").filter(|program| *program != "dir")) {
        return owned(&["postgresql", "bin_name", program]);
    }
    let known = SECTIONS.iter().any(|(name, keys)| *name == section && keys.contains(&key));
    if known { owned(&[section, key]) } else { None }
}

/// YAML, with or without the brackets: `a: b, c: d`, `[1, 2]`, `on`.
fn structured(variable: &str, brackets: Brackets, text: &str) -> Result<Value, Error> {
    let bracketed = match brackets {
        Some((open, close)) if !text.trim_start().starts_with(open) => format!("{open}{text}{close}"),
        _ => text.to_owned(),
    };
    let bad = |why: &dyn std::fmt::Display| Error::value(variable, format!("{text:?} is not as it should be: {why}"));
    let value = super::value::yaml(&bracketed).map_err(|error| bad(&error))?;
    // `a, b` would be a mapping of nothing.
    match &value {
        Value::Object(map) if map.values().any(Value::is_null) => Err(bad(&"write name: value, …")),
        _ => Ok(value),
    }
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
            ("PATRONI_LOGFORMAT", "%(message)s"),
            ("PATRONI_LOG_LOGGERS", "patroni.ha: DEBUG, urllib3: WARNING"),
            ("PATRONI_RESTAPI_ALLOWLIST", "10.0.0.0/8, localhost"),
            ("PATRONI_REWIND_SSLNEGOTIATION", "direct"),
            ("PATRONI_POSTGRESQL_BIN_PG_CTL", "my_ctl"),
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
                               "bin_name": {"pg_ctl": "my_ctl"},
                               "authentication": {"superuser": {"password": "secret"}, "replication": {"username": "standby"},
                                                  "rewind": {"sslnegotiation": "direct"}}},
                "log": {"format": "%(message)s", "loggers": {"patroni.ha": "DEBUG", "urllib3": "WARNING"}},
                "restapi": {"listen": "0.0.0.0:8008", "authentication": {"password": "rest"}, "allowlist": ["10.0.0.0/8", "localhost"]},
            })
        );
    }

    #[test]
    fn a_log_format_is_a_text_or_a_list() {
        let format = |text| of(&[("PATRONI_LOG_FORMAT", text)]).unwrap()["log"]["format"].clone();
        assert_eq!(format("%(levelname)s: %(message)s"), "%(levelname)s: %(message)s");
        for text in ["message, {asctime: time}", "[message, {asctime: time}]"] {
            assert_eq!(format(text), json!(["message", {"asctime": "time"}]), "{text}");
        }
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = of(&[("PATRONI_KUBERNETES_LABELS", "{a: [")]).unwrap_err().to_string();
        assert!(error.starts_with("PATRONI_KUBERNETES_LABELS: "), "{error}");
        assert!(of(&[("PATRONI_KUBERNETES_LABELS", "a, b")]).unwrap_err().to_string().contains("name: value"));
    }
}
