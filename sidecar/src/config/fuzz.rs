//! Files and variables of any shape: an error that says what to write, or a configuration; never a panic.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::locate::Lines;
use super::{Config, changes, environment};

const KEYS: [&str; 44] = [
    "scope",
    "name",
    "log",
    "level",
    "loggers",
    "type",
    "dir",
    "file_size",
    "restapi",
    "listen",
    "connect_address",
    "authentication",
    "username",
    "password",
    "allowlist",
    "http_extra_headers",
    "certfile",
    "kubernetes",
    "labels",
    "ports",
    "use_endpoints",
    "bootstrap",
    "dcs",
    "initdb",
    "method",
    "pg_hba",
    "post_init",
    "postgresql",
    "data_dir",
    "config_dir",
    "custom_conf",
    "parameters",
    "callbacks",
    "create_replica_methods",
    "basebackup",
    "superuser",
    "replication",
    "sslmode",
    "watchdog",
    "mode",
    "safety_margin",
    "tags",
    "nofailover",
    "matriarch",
];

fn anything() -> impl Strategy<Value = Value> {
    let texts = vec![
        "orders",
        "*:5432",
        "[::1]:1",
        "/nonexistent/a",
        "on",
        "%(message)s",
        "-1",
        "a'b\\c\n",
        "",
        "10.0.0.0/8",
        "json",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(texts).prop_map(Value::from),
        "\\PC{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![5 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1 => "\\PC{1,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..7)
                .prop_map(|all| Value::Object(all.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A file that could be one.
fn file() -> impl Strategy<Value = Value> {
    (anything(), prop::collection::vec(anything(), KEYS.len()), any::<bool>()).prop_map(|(top, values, complete)| {
        let mut file = if top.is_object() { top } else { Value::Object(Map::new()) };
        for (section, value) in
            ["log", "restapi", "kubernetes", "bootstrap", "postgresql", "watchdog", "tags"].iter().zip(values)
        {
            file[*section] = value;
        }
        if complete {
            file["scope"] = "orders".into();
        }
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_of_any_shape_are_read_or_refused(old in file(), new in file(), in_pod: bool) {
        let env = |name: &str| (in_pod || !name.starts_with("POD_")).then(|| "x".to_owned());
        let text = old.to_string();
        let _ = Lines::of(&text);
        if let Ok(config) = Config::parse(Path::new("p.yml"), &text, env) {
            let _ = (config.warnings(), config.labels());
            // A reload from here to anywhere.
            let _ = config.with(&new);
        }
        let none = changes::report(&old, &old);
        prop_assert!(none.applied.is_empty() && none.later.is_empty() && none.unused.is_empty());
        let kept = changes::keep_fixed(&old, &new);
        prop_assert!(changes::report(&old, &kept).later.is_empty(), "{:?}", changes::report(&old, &kept));
    }

    #[test]
    fn text_that_is_no_yaml_is_refused(text in "\\PC{0,60}") {
        let _ = Lines::of(&text);
        let _ = Config::parse(Path::new("p.yml"), &text, |_| None);
    }

    #[test]
    fn variables_of_any_shape_are_read_or_refused(
        all in prop::collection::vec(
            (prop::sample::select(vec![
                "PATRONI_KUBERNETES_LABELS", "PATRONI_KUBERNETES_PORTS", "PATRONI_KUBERNETES_USE_ENDPOINTS", "PATRONI_LOG_LOGGERS",
                "PATRONI_RESTAPI_LISTEN", "PATRONI_RESTAPI_ALLOWLIST", "PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "PATRONI_SCOPE",
                "PATRONI_POSTGRESQL_BIN_PG_CTL", "PATRONI_POSTGRESQL_LISTEN", "PATRONI_SUPERUSER_PASSWORD", "PATRONI_TAGS_X", "PATRONI_",
            ]), "\\PC{0,20}"),
            0..6,
        ),
    ) {
        let _ = environment::document(all.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
}
