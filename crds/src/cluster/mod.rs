//! `PostgresCluster`, matriarch.dev/v1alpha1: what a user writes and what the operator reports.
//!
//! Validation is CEL in the schema: every rule's message says what to write instead. Rules are tried against a real
//! API server by `operator/tests/apiserver.rs`.

mod application;
mod bootstrap;
mod ha;
mod lifecycle;
mod managed;
mod network;
mod pod;
mod postgresql;
mod status;
mod storage;

pub use application::{Application, UserSecrets};
pub use bootstrap::{Bootstrap, CloneFrom, Initdb, LocaleProvider, SslMode, StandbyOf};
pub use ha::{DEFAULT_LOOP_WAIT, DEFAULT_MAXIMUM_LAG, DEFAULT_RETRY_TIMEOUT, DEFAULT_TTL, HighAvailability};
pub use lifecycle::{Day, Keep, MaintenanceWindow, Switchover, VolumePolicy};
pub use managed::{Database, Ensure, Extension, Role, Schema, SecretKey};
pub use network::{Monitoring, NetworkPolicy, ServiceTemplate, ServiceType, Services, Tls, TrafficPolicy};
pub use pod::{Named, Pod};
pub use postgresql::{CONTROLLED_PARAMETERS, Postgresql};
pub use status::{
    Condition, DeclaredStatus, MemberStatus, PostgresClusterStatus, StepStatus, SwitchoverState, SwitchoverStatus,
};
pub use storage::Storage;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    validation = Rule::new("!has(self.spec.fenced) || self.spec.fenced.all(member, member.matches('^.+-[0-8]$') && member.startsWith(self.metadata.name) && member.size() == self.metadata.name.size() + 2)")
        .message("fenced must name members of this cluster: write the pods' names, e.g. fenced: [orders-1] in the cluster orders"),
    validation = Rule::new("!has(self.spec.switchover) || !has(self.spec.switchover.to) || (self.spec.switchover.to.matches('^.+-[0-8]$') && self.spec.switchover.to.startsWith(self.metadata.name) && self.spec.switchover.to.size() == self.metadata.name.size() + 2)")
        .message("switchover.to must name a member of this cluster: write the pod's name, e.g. to: orders-1 in the cluster orders"),
    validation = Rule::new("!has(self.spec.switchover) || !has(self.spec.switchover.to) || !has(self.spec.fenced) || !(self.spec.switchover.to in self.spec.fenced)")
        .message("switchover.to names a fenced member, which cannot lead: write another member, or remove it from fenced"),
    validation = Rule::new("!self.metadata.name.matches('-(agent|app|ca|config|declared|failover|leader|pods|primary|replication|rewind|ro|superuser|sync|tls)$')")
        .message("metadata.name ends like the name of an object that Matriarch makes for another cluster (such as -ro, -pods, -config, -app): write another name, e.g. orders-readonly")
)]
#[x_kube(
    validation = Rule::new("!(has(self.durability) && self.durability == 'quorum' && self.instances < 2)")
        .message("durability quorum needs a standby to confirm commits: write instances: 2 or more (3 is usual), or durability: async")
        .field_path(".durability"),
    validation = Rule::new("has(self.walStorage) == has(oldSelf.walStorage)")
        .message("walStorage is chosen when the cluster is made and can be neither added nor removed: keep it as it was, or make a new cluster with bootstrap.clone from this one")
        .field_path(".walStorage"),
    validation = Rule::new("has(self.bootstrap) == has(oldSelf.bootstrap) && (!has(self.bootstrap) || self.bootstrap == oldSelf.bootstrap)")
        .message("bootstrap is used once, when the cluster is made: keep it as it was")
        .field_path(".bootstrap"),
    validation = Rule::new("!(has(self.standbyOf) && has(self.bootstrap))")
        .message("a standby cluster begins with a copy of the server that it follows: remove bootstrap, or standbyOf")
        .field_path(".standbyOf")
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

    /// A volume of its own for the write-ahead log of each member. With the data when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_storage: Option<Storage>,

    /// What becomes of the volumes when the cluster or a member goes. They stay when absent.
    #[serde(default)]
    pub volume_policy: VolumePolicy,

    /// How the first member comes by its data. A new database when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,

    /// Follows another server as a standby cluster; its first member streams from there, the others from that one.
    /// The Secrets of `secrets.superuser` and `secrets.replication` must hold that server's passwords. Removing it
    /// promotes the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_of: Option<StandbyOf>,

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

    /// Roles as declared state; what is not listed is left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub roles: Vec<Role>,

    /// Databases as declared state; what is not listed is left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub databases: Vec<Database>,

    /// TLS of `PostgreSQL`.
    #[serde(default)]
    pub tls: Tls,

    /// The Services for clients.
    #[serde(default)]
    pub services: Services,

    /// A `NetworkPolicy` for the members' pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,

    /// What is made for Prometheus.
    #[serde(default)]
    pub monitoring: Monitoring,

    /// What is added to the members' pods.
    #[serde(default)]
    pub pod: Pod,

    /// Where pods may run. When absent, members prefer to run on different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tolerations: Vec<Toleration>,

    /// How pods are spread over zones and nodes. A constraint without a selector counts this cluster's members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Scheduler of the pods. Kubernetes' own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Patroni's maintenance mode: agents neither fail over nor stop or start PostgreSQL. When absent, it is what
    /// `patronictl pause` made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,

    /// Members whose PostgreSQL is stopped and stays stopped, while their pods stay: for a look at their files. A leader
    /// that is fenced hands over first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub fenced: Vec<String>,

    /// Whether the cluster sleeps: no pods, the volumes are kept. False wakes it.
    #[serde(default)]
    pub hibernate: bool,

    /// A switchover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,

    /// When the operator may do by itself what interrupts clients: at any time when absent. Failover, and what a person
    /// asks for by a field, never waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub maintenance_windows: Vec<MaintenanceWindow>,

    /// Whether `kubectl delete` of this cluster is refused, where the policy of Matriarch's chart is installed.
    #[serde(default)]
    pub deletion_protection: bool,
}

fn one() -> i32 {
    1
}
fn postgres_port() -> i32 {
    i32::from(crate::names::POSTGRES_PORT)
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

/// When a commit is acknowledged: `quorum` (a standby has it as well) or `async` (the primary has it). When absent, it
/// is computed once, at creation: quorum from three instances on. Scaling never lowers it.
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
