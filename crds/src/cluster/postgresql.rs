//! PostgreSQL's configuration.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Settings that Matriarch computes: naming one in `spec.postgresql.parameters` is refused.
pub const CONTROLLED_PARAMETERS: &[&str] = &[
    "archive_cleanup_command",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "standby_mode",
    "synchronous_standby_names",
    "transaction_read_only",
    "unix_socket_directories",
    "wal_log_hints",
];

/// PostgreSQL's own configuration.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Postgresql {
    /// Settings as in postgresql.conf. Write values in quotes (`"256MB"`, `"on"`, `"1.1"`); whole numbers may be bare.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    #[x_kube(validation = Rule::new("self.all(name, !(name in ['archive_cleanup_command', 'cluster_name', 'config_file', 'data_directory', 'external_pid_file', 'hba_file', 'hot_standby', 'ident_file', 'listen_addresses', 'port', 'primary_conninfo', 'primary_slot_name', 'promote_trigger_file', 'recovery_end_command', 'recovery_target', 'recovery_target_action', 'recovery_target_inclusive', 'recovery_target_lsn', 'recovery_target_name', 'recovery_target_time', 'recovery_target_timeline', 'recovery_target_xid', 'restore_command', 'standby_mode', 'synchronous_standby_names', 'transaction_read_only', 'unix_socket_directories', 'wal_log_hints']))")
        .message("parameters names a setting that Matriarch controls (such as listen_addresses, port, cluster_name, hot_standby, wal_log_hints, primary_conninfo, synchronous_standby_names, restore_command, recovery_target*): remove it; durability: quorum is how synchronous replication is asked for"))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[a-z_][a-z0-9_]*([.][A-Za-z_][A-Za-z0-9_$]*)?$'))")
        .message("parameters has a name that PostgreSQL cannot have: write names in lower case, e.g. shared_buffers or pg_stat_statements.max"))]
    pub parameters: BTreeMap<String, IntOrString>,

    /// Lines of `pg_hba.conf` for clients, instead of the default (`hostssl all all all scram-sha-256`, and the same
    /// without TLS). Matriarch's own lines (its users, replication) come first and stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 1024)))]
    pub pg_hba: Vec<String>,

    /// Lines of `pg_ident.conf`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 1024)))]
    pub pg_ident: Vec<String>,
}
