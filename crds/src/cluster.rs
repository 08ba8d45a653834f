//! `PostgresCluster`, matriarch.dev/v1alpha1: what a user writes and what the operator reports.
//!
//! Validation is CEL in the schema: every rule's message says what to write instead. Rules are tried against a real
//! API server by `operator/tests/apiserver.rs`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
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

/// A highly available PostgreSQL: one primary, its standbys, and the Services that follow them.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "matriarch.dev",
    version = "v1alpha1",
    kind = "PostgresCluster",
    plural = "postgresclusters",
    singular = "postgrescluster",
    namespaced,
    derive = "PartialEq",
    status = "PostgresClusterStatus",
    shortname = "pgc",
    category = "all",
    category = "matriarch",
    doc = "A highly available PostgreSQL: one primary, its standbys, and the Services that follow them.",
    scale(
        spec_replicas_path = ".spec.instances",
        status_replicas_path = ".status.instances",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Members that are ready, of those wanted"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary", description = "The member that holds the leader lock"),
    printcolumn(name = "Timeline", type_ = "integer", json_path = ".status.timeline", description = "The primary's timeline"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag", description = "How far the slowest standby is behind"),
    printcolumn(name = "Sync", type_ = "string", json_path = ".status.durability", description = "When a commit is acknowledged"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "PostgreSQL's version"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why the cluster is or is not ready", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("metadata.name may have 40 characters at most, for Matriarch adds suffixes to it: write a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name becomes the name of a Service: write lower-case letters, digits and '-', starting with a letter, e.g. orders-eu"),
    validation = Rule::new("!self.metadata.name.matches('-(agent|app|ca|config|failover|leader|pods|primary|replication|rewind|ro|superuser|sync|tls)$')")
        .message("metadata.name ends like the name of an object that Matriarch makes for another cluster (such as -ro, -pods, -config, -app): write another name, e.g. orders-readonly")
)]
#[x_kube(
    validation = Rule::new("!(has(self.durability) && self.durability == 'quorum' && self.instances < 2)")
        .message("durability quorum needs a standby to confirm commits: write instances: 2 or more (3 is usual), or durability: async")
        .field_path(".durability")
)]
pub struct PostgresClusterSpec {
    /// How many members: one primary and the rest standbys. Three survive the loss of any one without losing an
    /// acknowledged commit.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9")
        .message("instances must be 1 to 9: write instances: 3 for a cluster that survives the loss of a member; to stop using a cluster, delete the PostgresCluster (its volumes are kept)"))]
    pub instances: i32,

    /// Any stock PostgreSQL image, e.g. `docker.io/library/postgres:17`.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[^ \\t\\n]+$')")
        .message("image must name a PostgreSQL image without spaces: write e.g. image: docker.io/library/postgres:17"))]
    pub image: String,

    /// When the kubelet pulls `image`. Kubernetes' own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets with which `image` is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub image_pull_secrets: Vec<SecretReference>,

    /// The data volume of each member.
    pub storage: Storage,

    /// Uid (and gid) of PostgreSQL in `image`: 999 in Debian's images, 70 in Alpine's.
    #[serde(default = "postgres_uid")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("postgresUid owns the files of the data volumes and cannot change: make a new cluster with the other uid and copy the data"))]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 2147483647 && self != 65532")
        .message("postgresUid must be a non-root uid that is not the agent's (65532): write 999 for Debian's images, 70 for Alpine's"))]
    pub postgres_uid: i64,

    /// PostgreSQL's own configuration.
    #[serde(default)]
    pub postgresql: Postgresql,

    /// When a commit is acknowledged: `quorum` (a standby has it as well) or `async` (the primary has it). When absent,
    /// it is computed once, at creation: quorum from three instances on. Scaling never lowers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,

    /// Timing and limits of the high-availability loop. A field that is absent is left as it is in the dynamic
    /// configuration (where `patronictl edit-config` may have changed it).
    #[serde(default)]
    pub ha: HighAvailability,

    /// CPU and memory of the postgres container.
    #[serde(default)]
    pub resources: Resources,

    /// Which kind of object carries the leader lock and the shared state, as in Patroni.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("storeMode cannot change while members run, for they would not see each other's lock: make a new cluster with the other mode"))]
    pub store_mode: StoreMode,

    /// The database and the user that are made for the application. Its credentials are in the Secret `<name>-app`.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("application is used once, when the cluster is initialized: keep it as it was, and rename the database or the role by SQL"))]
    pub application: Application,

    /// Secrets of your own instead of generated ones: each with keys `username` and `password`.
    #[serde(default)]
    pub secrets: UserSecrets,

    /// Where pods may run. When absent, members prefer to run on different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tolerations: Vec<Toleration>,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Patroni's maintenance mode: agents neither fail over nor stop or start PostgreSQL. When absent, it is what
    /// `patronictl pause` made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

fn one() -> i32 {
    1
}
fn postgres_uid() -> i64 {
    crate::names::POSTGRES_UID
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of a container.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// The node must have it.
    Never,
}

impl ImagePullPolicy {
    /// Kubernetes' own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// A Secret in the cluster's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The data volume of each member.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClass) == has(oldSelf.storageClass) && (!has(self.storageClass) || self.storageClass == oldSelf.storageClass)")
        .message("storage.storageClass cannot change, for Kubernetes cannot move a volume between classes: keep it as it was, or make a new cluster with the other class and copy the data")
)]
pub struct Storage {
    /// Size of the volume, e.g. `20Gi`. It may grow if the storage class allows it, and never shrinks.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
        .message("storage.size must be a quantity above zero: write e.g. size: 20Gi"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
        .message("storage.size cannot shrink, for Kubernetes cannot shrink a volume: write the former size or a larger one"))]
    pub size: String,

    /// Storage class of the volumes. The default class of the Kubernetes cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class: Option<String>,
}

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
}

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When the primary has written it. A failover may lose what no standby had received.
    Async,
    /// When the primary and enough standbys have it, so that whichever is elected has it.
    Quorum,
}

impl Durability {
    /// As it is written in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Quorum => "quorum",
        }
    }
}

/// Default of [`HighAvailability::ttl`].
pub const DEFAULT_TTL: i32 = 10;
/// Default of [`HighAvailability::loop_wait`].
pub const DEFAULT_LOOP_WAIT: i32 = 2;
/// Default of [`HighAvailability::retry_timeout`].
pub const DEFAULT_RETRY_TIMEOUT: i32 = 3;
/// Default of [`HighAvailability::maximum_lag_on_failover`], in bytes.
pub const DEFAULT_MAXIMUM_LAG: i64 = 1_048_576;

/// Timing and limits of the high-availability loop.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.loopWait) ? self.loopWait : 2) + 2 * (has(self.retryTimeout) ? self.retryTimeout : 3) <= (has(self.ttl) ? self.ttl : 10)")
        .message("ha.ttl must be at least loopWait + 2 * retryTimeout, so that a primary can retry before its lock expires: write e.g. ha: {ttl: 10, loopWait: 2, retryTimeout: 3}")
)]
pub struct HighAvailability {
    /// Seconds after which a lock that is not renewed is free. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 5 && self <= 300").message("ha.ttl must be 5 to 300 seconds: write e.g. ttl: 10 (the default)"))]
    pub ttl: Option<i32>,
    /// The longest time, in seconds, between two rounds of the loop. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("ha.loopWait must be 1 to 100 seconds: write e.g. loopWait: 2 (the default)"))]
    pub loop_wait: Option<i32>,
    /// For how many seconds a call to the API server or to PostgreSQL is tried again. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("ha.retryTimeout must be 1 to 100 seconds: write e.g. retryTimeout: 3 (the default)"))]
    pub retry_timeout: Option<i32>,
    /// Whether the primary goes on without the API server as long as all members answer it. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failsafe_mode: Option<bool>,
    /// How many bytes a standby may be behind and still be elected. Default 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0").message("ha.maximumLagOnFailover is a number of bytes, 0 or more: write e.g. maximumLagOnFailover: 1048576 (the default)"))]
    pub maximum_lag_on_failover: Option<i64>,
}

/// CPU and memory, as in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// What is reserved. A small request (100m CPU, 256Mi) when absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, IntOrString>,
    /// What may be used at most. No limit when absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// Which kind of object carries the leader lock and the shared state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoreMode {
    /// `ConfigMaps`; the leader writes the primary Service's `EndpointSlice` itself.
    #[default]
    ConfigMaps,
    /// Endpoints, as many Patroni clusters have it: lock and address in one object.
    Endpoints,
}

/// The database and the user that are made for the application.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// The database.
    #[serde(default = "app")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && !(self in ['postgres', 'template0', 'template1'])")
        .message("application.database must be a plain name that is not PostgreSQL's own: write lower-case letters, digits and '_', e.g. database: orders"))]
    pub database: String,
    /// The role that owns it.
    #[serde(default = "app")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_]*$') && !self.startsWith('pg_') && !(self in ['postgres', 'replicator', 'rewinder'])")
        .message("application.owner must be a plain name that is not one of Matriarch's or PostgreSQL's own roles (postgres, replicator, rewinder, pg_*): write e.g. owner: orders"))]
    pub owner: String,
}

fn app() -> String {
    "app".to_owned()
}

impl Default for Application {
    fn default() -> Self {
        Self { database: app(), owner: app() }
    }
}

/// Names of Secrets of the user's own, each with keys `username` and `password`.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserSecrets {
    /// For the superuser; its `username` must be `postgres`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub superuser: Option<String>,
    /// For replication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub replication: Option<String>,
    /// For `pg_rewind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub rewind: Option<String>,
    /// For the application's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub application: Option<String>,
}

impl UserSecrets {
    /// The users and the Secret that the spec names for them, if any.
    pub fn by_user(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("superuser", self.superuser.as_deref()),
            ("replication", self.replication.as_deref()),
            ("rewind", self.rewind.as_deref()),
            ("app", self.application.as_deref()),
        ]
    }
}

/// What the operator saw last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresClusterStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Progressing`, `ConfigurationApplied` and `Reconciled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods that exist.
    #[serde(default)]
    pub instances: i32,
    /// Members whose PostgreSQL is usable.
    #[serde(default)]
    pub ready_instances: i32,
    /// `<ready>/<wanted>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Selector of the members' pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The member that holds the leader lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The member that held it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_primary: Option<String>,
    /// The primary's timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// How far the slowest standby is behind, in whole MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// When a commit is acknowledged, computed at creation unless the spec says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// `PostgreSQL`'s version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Each member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub members: Vec<MemberStatus>,
}

/// One member as its agent describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The pod.
    pub name: String,
    /// `primary` or `replica`, as the agent says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Patroni's word: running, streaming, starting, stopped …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Whether clients can use it.
    #[serde(default)]
    pub ready: bool,
    /// Its timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// How far it is behind the primary, in whole MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A condition, as in `meta/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Progressing`, `ConfigurationApplied` or `Reconciled`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for programs.
    pub reason: String,
    /// For people: what is the matter and what to do.
    pub message: String,
    /// When `status` changed last (RFC 3339).
    pub last_transition_time: String,
    /// The generation of the spec that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controlled_parameters_are_those_of_the_rule() {
        let crd = serde_json::to_string(&crate::generated::crd()).unwrap();
        let list = CONTROLLED_PARAMETERS.iter().map(|p| format!("'{p}'")).collect::<Vec<_>>().join(", ");
        assert!(crd.contains(&format!("name in [{list}]")), "the CEL rule and CONTROLLED_PARAMETERS differ");
    }

    #[test]
    fn the_smallest_cluster_has_a_default_for_everything_else() {
        let spec: PostgresClusterSpec = serde_json::from_value(
            serde_json::json!({"instances": 3, "image": "postgres:17", "storage": {"size": "20Gi"}}),
        )
        .unwrap();
        assert_eq!((spec.postgres_uid, spec.store_mode), (999, StoreMode::ConfigMaps));
        assert_eq!(spec.application, Application { database: "app".into(), owner: "app".into() });
    }
}
