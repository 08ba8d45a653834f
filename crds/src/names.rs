//! The names that the parts of Matriarch share: objects, labels, annotations, folders, ports.
//!
//! The lock objects, their annotations and the labels are Patroni's (its Kubernetes store); what starts with
//! `matriarch.dev/` is ours and Patroni ignores it.

/// Label that every object of a cluster carries, with [`APPLICATION`] as value.
pub const APPLICATION_LABEL: &str = "application";
/// Value of [`APPLICATION_LABEL`].
pub const APPLICATION: &str = "matriarch";
/// Patroni's `scope_label`: the cluster's name.
pub const SCOPE_LABEL: &str = "cluster-name";
/// Patroni's `role_label` on pods.
pub const ROLE_LABEL: &str = "role";
/// Role label of the leader.
pub const ROLE_PRIMARY: &str = "primary";
/// Role label of a running standby.
pub const ROLE_REPLICA: &str = "replica";
/// Pod annotation in which a member describes itself (JSON).
pub const STATUS_ANNOTATION: &str = "status";
/// Which pod holds the lock: `<pod uid>@<acquireTime>`.
pub const HOLDER_ANNOTATION: &str = "matriarch.dev/holder";
/// Value of `endpointslice.kubernetes.io/managed-by` on the slice that the leader writes.
pub const SLICE_MANAGER: &str = "matriarch.dev";
/// Field manager of the operator.
pub const OPERATOR: &str = "matriarch-operator";

/// Container (native sidecar) of the agent.
pub const AGENT_CONTAINER: &str = "agent";
/// Container of PostgreSQL, whose PID 1 is the supervisor.
pub const POSTGRES_CONTAINER: &str = "postgres";
/// Init container that copies the static binaries.
pub const INSTALL_CONTAINER: &str = "install";
/// Uid of the agent.
pub const AGENT_UID: i64 = 65_532;
/// Uid of PostgreSQL unless the spec says another.
pub const POSTGRES_UID: i64 = 999;

/// Port of PostgreSQL and its name in Services.
pub const POSTGRES_PORT: u16 = 5432;
/// Name of PostgreSQL's port.
pub const POSTGRES_PORT_NAME: &str = "postgresql";
/// Port of the agent's REST API.
pub const API_PORT: u16 = 8008;

/// Where the data volume is mounted in the postgres container.
pub const DATA_VOLUME: &str = "/var/lib/matriarch";
/// Where the volume of the WAL is mounted in the postgres container, if it has one of its own.
pub const WAL_VOLUME: &str = "/var/lib/matriarch-wal";
/// `pg_wal` on that volume.
pub const WAL_DIR: &str = "/var/lib/matriarch-wal/pg_wal";
/// PGDATA, a subfolder of the volume.
pub const DATA_DIR: &str = "/var/lib/matriarch/pgdata";
/// Shared by agent and postgres container: the supervisor's socket.
pub const RUN_DIR: &str = "/run/matriarch";
/// The supervisor's socket.
pub const SUPERVISOR_SOCKET: &str = "/run/matriarch/supervisor.sock";
/// Shared by agent and postgres container: the installed binaries.
pub const BIN_DIR: &str = "/opt/matriarch/bin";
/// PostgreSQL's unix socket, shared by agent and postgres container.
pub const POSTGRES_SOCKET_DIR: &str = "/var/run/postgresql";
/// The agent's configuration (Patroni's YAML), from the ConfigMap [`ClusterNames::agent_config`].
pub const AGENT_CONFIG: &str = "/etc/matriarch/agent/patroni.yml";
/// Folder with one folder a Secret: `superuser`, `replication`, `rewind`, `app` (and `clone`, if the cluster begins as a copy), each with files `username`, `password`.
pub const SECRETS_DIR: &str = "/etc/matriarch/secrets";
/// Folder with `tls.crt`, `tls.key`, `ca.crt`.
pub const TLS_DIR: &str = "/etc/matriarch/tls";
/// Folder with `declared.json`: roles and databases as the spec declares them.
pub const DECLARED_DIR: &str = "/etc/matriarch/declared";
/// Folder with the user's own `tls.crt`, `tls.key` and `ca.crt` for clients, if the spec names them.
pub const SERVER_TLS_DIR: &str = "/etc/matriarch/server-tls";

/// Names of the objects of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNames {
    name: String,
    endpoints_mode: bool,
}

impl ClusterNames {
    /// For the cluster `name`; in Endpoints mode the lock is the Endpoints object of the like-named Service.
    pub fn new(name: impl Into<String>, endpoints_mode: bool) -> Self {
        Self { name: name.into(), endpoints_mode }
    }
    /// The cluster's name, Patroni's scope.
    pub fn scope(&self) -> &str {
        &self.name
    }
    /// The leader lock.
    pub fn leader(&self) -> String {
        if self.endpoints_mode { self.name.clone() } else { format!("{}-leader", self.name) }
    }
    /// Dynamic configuration, `initialize` and `history`.
    pub fn config(&self) -> String {
        format!("{}-config", self.name)
    }
    /// A wanted switchover or failover.
    pub fn failover(&self) -> String {
        format!("{}-failover", self.name)
    }
    /// Synchronous replication state.
    pub fn sync(&self) -> String {
        format!("{}-sync", self.name)
    }
    /// Service of the primary, and the EndpointSlice that the leader writes.
    pub fn service(&self) -> String {
        self.name.clone()
    }
    /// The slice behind [`Self::service`].
    pub fn slice(&self) -> String {
        format!("{}-primary", self.name)
    }
    /// Service of the standbys.
    pub fn read_only_service(&self) -> String {
        format!("{}-ro", self.name)
    }
    /// Headless Service of all pods.
    pub fn pods_service(&self) -> String {
        format!("{}-pods", self.name)
    }
    /// ServiceAccount, Role and RoleBinding of the agents.
    pub fn agent(&self) -> String {
        format!("{}-agent", self.name)
    }
    /// ConfigMap with the agent's `patroni.yml`.
    pub fn agent_config(&self) -> String {
        format!("{}-agent", self.name)
    }
    /// Secret with the password of a user: `superuser`, `replication`, `rewind` or `app`.
    pub fn secret(&self, user: &str) -> String {
        format!("{}-{user}", self.name)
    }
    /// Secret with the cluster's certificate authority (never mounted).
    pub fn ca_secret(&self) -> String {
        format!("{}-ca", self.name)
    }
    /// Secret with the certificate of the members.
    pub fn tls_secret(&self) -> String {
        format!("{}-tls", self.name)
    }
    /// Secret with the declared roles and databases.
    pub fn declared_secret(&self) -> String {
        format!("{}-declared", self.name)
    }
    /// `PodDisruptionBudget` of the primary.
    pub fn primary_budget(&self) -> String {
        format!("{}-primary", self.name)
    }
    /// DNS name of a member: its certificate's and `api_url`'s host.
    pub fn member_host(&self, pod: &str, namespace: &str) -> String {
        format!("{pod}.{}.{namespace}.svc", self.pods_service())
    }
}
