//! The keys that a configuration file may have, and what becomes of each.

use super::postgresql::LOGIN;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is used.
    Yes,
    /// Anything may be below it.
    Open,
    /// Patroni's, without an effect here, and why.
    Ignored(&'static str),
    /// Of the cluster: here it has no effect.
    Cluster,
    /// Nobody's.
    No,
}

/// Sections and their keys; `*` stands for any name.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "scope",
            "name",
            "namespace",
            "log",
            "restapi",
            "ctl",
            "kubernetes",
            "bootstrap",
            "postgresql",
            "watchdog",
            "tags",
            "matriarch",
        ],
    ),
    (
        "log",
        &[
            "level",
            "loggers",
            "type",
            "format",
            "dateformat",
            "static_fields",
            "traceback_level",
            "max_queue_size",
            "deduplicate_heartbeat_logs",
            "dir",
            "mode",
            "file_num",
            "file_size",
        ],
    ),
    (
        "restapi",
        &[
            "listen",
            "connect_address",
            "authentication",
            "certfile",
            "keyfile",
            "keyfile_password",
            "ciphers",
            "cafile",
            "verify_client",
            "allowlist",
            "allowlist_include_members",
            "http_extra_headers",
            "https_extra_headers",
            "server_tokens",
        ],
    ),
    ("ctl", &["authentication", "insecure", "cacert", "certfile", "keyfile", "keyfile_password"]),
    ("ctl.authentication", &["username", "password"]),
    ("restapi.authentication", &["username", "password"]),
    (
        "kubernetes",
        &[
            "namespace",
            "labels",
            "scope_label",
            "role_label",
            "leader_label_value",
            "follower_label_value",
            "standby_leader_label_value",
            "use_endpoints",
            "pod_ip",
            "bootstrap_labels",
            "ports",
            "context",
        ],
    ),
    ("kubernetes.ports", &["name", "port", "protocol"]),
    ("bootstrap", &["dcs", "method", "initdb", "pg_hba", "post_bootstrap", "post_init"]),
    (
        "postgresql",
        &[
            "authentication",
            "listen",
            "connect_address",
            "proxy_address",
            "data_dir",
            "config_dir",
            "config_base_name",
            "custom_conf",
            "bin_dir",
            "bin_name",
            "database",
            "krbsrvname",
            "parameters",
            "parameters_primary",
            "parameters_replica",
            "parameters_standby_leader",
            "pg_hba",
            "pg_hba_primary",
            "pg_hba_replica",
            "pg_hba_standby_leader",
            "pg_ident",
            "pg_ident_primary",
            "pg_ident_replica",
            "pg_ident_standby_leader",
            "recovery_conf",
            "callbacks",
            "create_replica_methods",
            "basebackup",
            "use_pg_rewind",
            "remove_data_directory_on_rewind_failure",
            "remove_data_directory_on_diverged_timelines",
            "pre_promote",
            "pg_ctl_timeout",
            "before_stop",
        ],
    ),
    ("postgresql.callbacks", &["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"]),
    ("postgresql.bin_name", super::postgresql::PROGRAMS),
    ("postgresql.authentication", &["superuser", "replication", "rewind"]),
    ("postgresql.authentication.*", &["username", "password"]),
    ("postgresql.authentication.*", &LOGIN),
    ("watchdog", &["mode", "device", "safety_margin", "driver"]),
    (
        "tags",
        &[
            "nofailover",
            "failover_priority",
            "clonefrom",
            "noloadbalance",
            "nosync",
            "sync_priority",
            "nostream",
            "replicatefrom",
        ],
    ),
    (
        "matriarch",
        &[
            "service",
            "slice",
            "pods_service",
            "secrets_dir",
            "server_tls",
            "wal_dir",
            "post_init_sql",
            "clone",
            "declared",
            "supervisor_socket",
            "postgres_socket_dir",
            "volume",
        ],
    ),
    ("matriarch.clone", &["host", "port", "ssl_mode"]),
];

/// Of the dynamic configuration: below `bootstrap.dcs`.
const DYNAMIC: &[&str] = &[
    "ttl",
    "loop_wait",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "max_timelines_history",
    "primary_start_timeout",
    "primary_stop_timeout",
    "master_start_timeout",
    "master_stop_timeout",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "failsafe_mode",
    "check_timeline",
    "pause",
    "standby_cluster",
    "slots",
    "permanent_slots",
    "permanent_replication_slots",
    "ignore_slots",
    "member_slots_ttl",
    "primary_race_backoff",
    "matriarch",
    "postgresql",
];

/// Below these anything may be written.
const OPEN: &[&str] = &[
    "log.loggers",
    "log.format",
    "log.static_fields",
    "restapi.http_extra_headers",
    "restapi.https_extra_headers",
    "restapi.allowlist",
    "kubernetes.labels",
    "tags.*",
    "bootstrap.initdb",
    "bootstrap.dcs.matriarch",
    "bootstrap.dcs.slots",
    "bootstrap.dcs.permanent_slots",
    "bootstrap.dcs.permanent_replication_slots",
    "bootstrap.dcs.ignore_slots",
    "bootstrap.dcs.standby_cluster",
    "postgresql.parameters",
    "postgresql.parameters_primary",
    "postgresql.parameters_replica",
    "postgresql.parameters_standby_leader",
    "postgresql.recovery_conf",
    "postgresql.basebackup",
];

/// Keys of Patroni that have no effect here.
const IGNORED: &[(&str, &str)] = &[
    ("namespace", "objects have no path in Kubernetes"),
    ("citus", "Citus is not supported"),
    ("raft", "the store is Kubernetes"),
    ("etcd", "the store is Kubernetes"),
    ("etcd3", "the store is Kubernetes"),
    ("consul", "the store is Kubernetes"),
    ("zookeeper", "the store is Kubernetes"),
    ("exhibitor", "the store is Kubernetes"),
    ("thread_pool_size", "there are no threads"),
    ("thread_stack_size", "there are no threads"),
    ("restapi.request_queue_size", "connections are bounded"),
    ("restapi.thread_pool_size", "there are no threads"),
    ("kubernetes.tmp_role_label", "one role label is kept"),
    ("kubernetes.bypass_api_service", "the Service of the API server is used"),
    ("kubernetes.retriable_http_codes", "every error but a clear refusal is tried again"),
    ("kubernetes.cacert", "the kubeconfig or the service account says it"),
    ("bootstrap.users", "use post_bootstrap"),
    ("postgresql.pgpass", "the passfile is kept beside the data directory"),
    ("postgresql.use_unix_socket", "the unix socket is always used"),
    ("postgresql.use_unix_socket_repl", "the unix socket is always used"),
    ("postgresql.rewind", "pg_rewind is run as this member needs it"),
    ("postgresql.use_slots", "it is the cluster's: write it below bootstrap.dcs.postgresql"),
];

/// What becomes of a key in dots; `custom` are names of sections that the file itself gives meaning to: methods.
pub fn known(key: &str, custom: &[String]) -> Known {
    if matches_one(OPEN, key) || custom.iter().any(|name| name == key) {
        return Known::Open;
    }
    if let Some((_, why)) = IGNORED.iter().find(|(ignored, _)| *ignored == key) {
        return Known::Ignored(why);
    }
    if let Some(rest) = key.strip_prefix("bootstrap.dcs.") {
        return match rest.strip_prefix("postgresql") {
            Some("") => Known::Yes,
            Some(".use_slots") => Known::Yes,
            // Methods may be anywhere.
            Some(inner) if inner.starts_with('.') => match known(&format!("postgresql{inner}"), &[]) {
                Known::No if custom.iter().any(|name| name == key) => Known::Open,
                other => other,
            },
            _ if DYNAMIC.contains(&rest) => Known::Yes,
            _ => Known::No,
        };
    }
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    if keys(section).contains(&name) {
        return Known::Yes;
    }
    if section.is_empty() && DYNAMIC.contains(&name) {
        return Known::Cluster;
    }
    Known::No
}

/// The nearest right name for a wrong one.
pub fn nearest(key: &str) -> Option<&'static str> {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let candidates: Vec<&'static str> = match section {
        "bootstrap.dcs" => DYNAMIC.to_vec(),
        section => keys(section.strip_prefix("bootstrap.dcs.").unwrap_or(section)),
    };
    let near =
        candidates.into_iter().map(|right| (strsim::damerau_levenshtein(&name.to_ascii_lowercase(), right), right));
    near.min().filter(|(distance, right)| *distance <= (right.len() / 3).clamp(1, 3)).map(|(_, right)| right)
}

/// The keys of a section, which has its own name or fits a pattern.
fn keys(section: &str) -> Vec<&'static str> {
    let of = |fits: &dyn Fn(&str) -> bool| -> Vec<&'static str> {
        SECTIONS.iter().filter(|(name, _)| fits(name)).flat_map(|(_, keys)| keys.iter().copied()).collect()
    };
    let exact = of(&|name| name == section);
    if exact.is_empty() { of(&|name| name.ends_with(".*") && matches_pattern(name, section)) } else { exact }
}

fn matches_one(patterns: &[&str], key: &str) -> bool {
    patterns.iter().any(|pattern| matches_pattern(pattern, key))
}

/// `a.*` is any key right below `a`.
fn matches_pattern(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(section) => key.rsplit_once('.').is_some_and(|(above, _)| above == section),
        None => pattern == key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_place() {
        let custom = ["postgresql.wal_g".to_owned()];
        for (key, expected) in [
            ("postgresql.listen", Known::Yes),
            ("postgresql.authentication.superuser.sslmode", Known::Yes),
            ("postgresql.bin_name.pg_ctl", Known::Yes),
            ("postgresql.parameters", Known::Open),
            ("postgresql.wal_g", Known::Open),
            ("tags.anything", Known::Open),
            ("bootstrap.dcs.ttl", Known::Yes),
            ("bootstrap.dcs.postgresql.pg_hba", Known::Yes),
            ("bootstrap.dcs.postgresql.parameters", Known::Open),
            ("ttl", Known::Cluster),
            ("postgresql.listn", Known::No),
            ("bootstrap.dcs.tll", Known::No),
        ] {
            assert_eq!(known(key, &custom), expected, "{key}");
        }
        assert!(matches!(known("etcd", &[]), Known::Ignored(_)));
        // A section with keys is a key.
        for (section, _) in SECTIONS.iter().filter(|(section, _)| !section.is_empty() && !section.ends_with(".*")) {
            assert_eq!(known(section, &[]), Known::Yes, "{section}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        for (wrong, right) in [
            ("postgresql.listn", "listen"),
            ("postgresql.parametrs", "parameters"),
            ("postgres", "postgresql"),
            ("bootstrap.dcs.loop_wiat", "loop_wait"),
            ("bootstrap.dcs.postgresql.pg_hab", "pg_hba"),
            ("postgresql.authentication.superuser.pasword", "password"),
            ("restapi.Listen", "listen"),
        ] {
            assert_eq!(nearest(wrong), Some(right), "{wrong}");
        }
        assert_eq!(nearest("postgresql.something_else_entirely"), None);
    }
}
