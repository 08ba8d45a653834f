//! The agent's static configuration: Patroni's YAML with a `matriarch` section, the pod's identity from the environment,
//! and the secrets, which are read from their files at every use so that a rotated password is found.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use matriarch_crds::names;
use matriarch_ha::tags::Tags;
use serde::Deserialize;
use serde_json::Value;

/// Why there is no usable configuration; every sentence says what to write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no YAML of this shape.
    #[error("the configuration {path} is not as it should be: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A value cannot be used.
    #[error("{key}: {message}")]
    Value {
        /// Where, in dots.
        key: String,
        /// What to write instead.
        message: String,
    },
    /// The pod's identity is missing.
    #[error("the environment variable {name} is not set: {hint}")]
    Env {
        /// Its name.
        name: &'static str,
        /// What to write.
        hint: &'static str,
    },
}

/// Everything that stays as it is while the agent runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's name.
    pub scope: String,
    /// Who and where we are.
    pub pod: Pod,
    /// Section `kubernetes`.
    pub kubernetes: Kubernetes,
    /// Section `restapi`.
    pub restapi: RestApi,
    /// `bootstrap.dcs`: the dynamic configuration of a new cluster.
    pub bootstrap_dcs: Value,
    /// `bootstrap.initdb`, as arguments of initdb.
    pub initdb: Vec<String>,
    /// Where PostgreSQL listens and lives.
    pub postgres: Postgres,
    /// Section `tags`.
    pub tags: Tags,
    /// Section `matriarch`.
    pub matriarch: Matriarch,
}

/// The pod, from the downward API.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `POD_NAME`: the member's name.
    pub name: String,
    /// `POD_NAMESPACE`
    pub namespace: String,
    /// `POD_IP`
    pub ip: String,
    /// `POD_UID`
    pub uid: String,
}

/// Section `kubernetes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    /// Labels of every object of the cluster, without the scope label.
    pub labels: BTreeMap<String, String>,
    /// Label with the cluster's name.
    pub scope_label: String,
    /// Label of pods with their role.
    pub role_label: String,
    /// Value of the role label on the leader.
    pub leader_label_value: String,
    /// Value of the role label on running standbys.
    pub follower_label_value: String,
    /// The lock lies in Endpoints, not in ConfigMaps.
    pub use_endpoints: bool,
    /// Ports of the Endpoints and the EndpointSlice.
    pub ports: Vec<Port>,
    /// Context of the kubeconfig, outside of a cluster.
    pub context: Option<String>,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            labels: BTreeMap::from([(names::APPLICATION_LABEL.to_owned(), names::APPLICATION.to_owned())]),
            scope_label: names::SCOPE_LABEL.to_owned(),
            role_label: names::ROLE_LABEL.to_owned(),
            leader_label_value: names::ROLE_PRIMARY.to_owned(),
            follower_label_value: names::ROLE_REPLICA.to_owned(),
            use_endpoints: false,
            ports: Vec::new(),
            context: None,
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Its name, as in the Service.
    #[serde(default)]
    pub name: Option<String>,
    /// Its number.
    #[serde(default = "default_port")]
    pub port: u16,
    /// TCP unless said otherwise.
    #[serde(default)]
    pub protocol: Option<String>,
}

fn default_port() -> u16 {
    names::POSTGRES_PORT
}

/// Section `restapi`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct RestApi {
    /// Address and port.
    pub listen: SocketAddr,
    /// Our certificate; none: plain HTTP.
    pub certfile: Option<PathBuf>,
    /// Its key; none: in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Who signs peers and clients.
    pub cafile: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub verify_client: VerifyClient,
}

impl Default for RestApi {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], names::API_PORT)),
            certfile: None,
            keyfile: None,
            cafile: None,
            verify_client: VerifyClient::None,
        }
    }
}

/// Patroni's `restapi.verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyClient {
    /// Nobody is asked.
    None,
    /// Needed for methods that change something.
    Optional,
    /// Needed for everything.
    Required,
}

/// Section `postgresql`, taken apart.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// `listen_addresses`
    pub listen_addresses: String,
    /// port
    pub port: u16,
    /// PGDATA as the supervisor sees it.
    pub data_dir: PathBuf,
}

/// Section `matriarch`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Matriarch {
    /// Service of the primary; the scope if empty.
    pub service: String,
    /// The EndpointSlice that the leader writes; `<scope>-primary` if empty.
    pub slice: String,
    /// Headless Service of the pods; `<scope>-pods` if empty.
    pub pods_service: String,
    /// One folder a user: `superuser`, `replication`, `rewind`, `app`.
    pub secrets_dir: PathBuf,
    /// The supervisor's socket.
    pub supervisor_socket: PathBuf,
    /// Where PostgreSQL's socket is, for us.
    pub postgres_socket_dir: PathBuf,
    /// The supervisor's data volume: the only place where it works on files.
    pub volume: PathBuf,
}

impl Default for Matriarch {
    fn default() -> Self {
        Self {
            service: String::new(),
            slice: String::new(),
            pods_service: String::new(),
            secrets_dir: names::SECRETS_DIR.into(),
            supervisor_socket: names::SUPERVISOR_SOCKET.into(),
            postgres_socket_dir: names::POSTGRES_SOCKET_DIR.into(),
            volume: names::DATA_VOLUME.into(),
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
struct File {
    scope: Option<String>,
    name: Option<String>,
    #[serde(default)]
    kubernetes: Kubernetes,
    #[serde(default)]
    restapi: RestApi,
    #[serde(default)]
    bootstrap: Bootstrap,
    #[serde(default)]
    postgresql: PostgresFile,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    matriarch: Matriarch,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bootstrap {
    dcs: Value,
    initdb: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(default)]
struct PostgresFile {
    listen: String,
    data_dir: PathBuf,
}

impl Default for PostgresFile {
    fn default() -> Self {
        Self { listen: format!("*:{}", names::POSTGRES_PORT), data_dir: names::DATA_DIR.into() }
    }
}

impl Config {
    /// Reads the file and the environment.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// From the file's text and a way to look up environment variables.
    pub fn parse(path: &Path, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| Error::Parse { path: path.to_owned(), message: error.to_string() })?;
        let scope = file.scope.filter(|scope| !scope.is_empty()).ok_or_else(|| Error::Value {
            key: "scope".into(),
            message: "is missing: write the cluster's name, such as `scope: orders`".into(),
        })?;
        let need = |name: &'static str, hint: &'static str| env(name).ok_or(Error::Env { name, hint });
        let pod = Pod {
            name: env("POD_NAME").or(file.name).ok_or(Error::Env {
                name: "POD_NAME",
                hint: "set it from the downward API (fieldRef metadata.name), or write `name:` in the configuration",
            })?,
            namespace: need("POD_NAMESPACE", "set it from the downward API (fieldRef metadata.namespace)")?,
            ip: need("POD_IP", "set it from the downward API (fieldRef status.podIP)")?,
            uid: need("POD_UID", "set it from the downward API (fieldRef metadata.uid)")?,
        };
        let mut kubernetes = file.kubernetes;
        if kubernetes.ports.is_empty() {
            kubernetes.ports.push(Port { name: None, port: names::POSTGRES_PORT, protocol: None });
        }
        let mut matriarch = file.matriarch;
        let cluster = names::ClusterNames::new(scope.clone(), kubernetes.use_endpoints);
        fill(&mut matriarch.service, || cluster.service());
        fill(&mut matriarch.slice, || cluster.slice());
        fill(&mut matriarch.pods_service, || cluster.pods_service());
        let (listen_addresses, port) = listen(&file.postgresql.listen)?;
        let data_dir = file.postgresql.data_dir;
        if !data_dir.is_absolute() || data_dir.parent().is_none() || data_dir.file_name().is_none() {
            return Err(Error::Value {
                key: "postgresql.data_dir".into(),
                message: format!("{} is no folder below a volume: write {}", data_dir.display(), names::DATA_DIR),
            });
        }
        if !data_dir.starts_with(&matriarch.volume) || data_dir == matriarch.volume {
            return Err(Error::Value {
                key: "postgresql.data_dir".into(),
                message: format!(
                    "{} does not lie below the data volume {}: write a subfolder of it",
                    data_dir.display(),
                    matriarch.volume.display()
                ),
            });
        }
        Ok(Self {
            initdb: initdb_arguments(&file.bootstrap.initdb)?,
            bootstrap_dcs: file.bootstrap.dcs,
            postgres: Postgres { listen_addresses, port, data_dir },
            scope,
            pod,
            tags: Tags::parse(&file.tags),
            kubernetes,
            restapi: file.restapi,
            matriarch,
        })
    }

    /// Names of the cluster's objects.
    pub fn names(&self) -> names::ClusterNames {
        names::ClusterNames::new(self.scope.clone(), self.kubernetes.use_endpoints)
    }

    /// The labels that every object of the cluster carries.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.kubernetes.labels.clone();
        labels.insert(self.kubernetes.scope_label.clone(), self.scope.clone());
        labels
    }

    /// Our DNS name: in our certificate, in `conn_url` and in `api_url`.
    pub fn host(&self) -> String {
        format!("{}.{}.{}.svc", self.pod.name, self.matriarch.pods_service, self.pod.namespace)
    }

    /// Who logs in as `user`.
    pub fn credentials(&self, user: User) -> Result<Credentials, SecretError> {
        Credentials::read(&self.matriarch.secrets_dir, user)
    }
}

fn fill(text: &mut String, default: impl FnOnce() -> String) {
    if text.is_empty() {
        *text = default();
    }
}

/// `*:5432`, `0.0.0.0,::1:5432`, `[::]:5432` → `listen_addresses` and port.
fn listen(text: &str) -> Result<(String, u16), Error> {
    let bad = || Error::Value {
        key: "postgresql.listen".into(),
        message: format!("{text:?} has no port: write addresses and a port, such as \"*:5432\""),
    };
    let (addresses, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let addresses = addresses.trim_start_matches('[').trim_end_matches(']');
    Ok((if addresses.is_empty() { "*".to_owned() } else { addresses.to_owned() }, port))
}

/// Patroni's list (`data-checksums`, `{encoding: UTF8}`) as arguments of initdb, without those that are ours.
fn initdb_arguments(list: &[Value]) -> Result<Vec<String>, Error> {
    const OURS: [&str; 8] =
        ["pgdata", "pwfile", "pwprompt", "username", "auth", "auth-local", "auth-host", "no-instructions"];
    let bad = |item: &Value| Error::Value {
        key: "bootstrap.initdb".into(),
        message: format!("{item} is no option of initdb: write `- data-checksums` or `- encoding: UTF8`"),
    };
    let mut arguments = Vec::new();
    for item in list {
        let (name, value) = match item {
            Value::String(name) => (name.as_str(), None),
            Value::Object(map) => match map.iter().next() {
                Some((name, value)) if map.len() == 1 => {
                    let value = match value {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        Value::Bool(value) => value.to_string(),
                        _ => return Err(bad(item)),
                    };
                    (name.as_str(), Some(value))
                }
                _ => return Err(bad(item)),
            },
            _ => return Err(bad(item)),
        };
        if OURS.contains(&name) {
            return Err(Error::Value {
                key: "bootstrap.initdb".into(),
                message: format!("{name} is set by Matriarch: remove it from the list"),
            });
        }
        arguments.push(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    Ok(arguments)
}

/// A user of PostgreSQL that Matriarch knows; each has a folder in the secrets folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// `superuser`
    Superuser,
    /// `replication`
    Replication,
    /// `rewind`
    Rewind,
    /// `app`
    App,
}

impl User {
    /// Name of the folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Superuser => "superuser",
            Self::Replication => "replication",
            Self::Rewind => "rewind",
            Self::App => "app",
        }
    }
    /// Role name where the folder has no `username`.
    fn default_name(self) -> &'static str {
        match self {
            Self::Superuser => "postgres",
            Self::Replication => "replicator",
            Self::Rewind => "rewinder",
            Self::App => "app",
        }
    }
}

/// Role name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The role.
    pub username: String,
    /// Its password.
    pub password: String,
    /// `dbname`, where the folder has one.
    pub dbname: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A file is missing or unreadable.
    #[error("the secret {path} cannot be read ({source}): the Secret must have the keys `username` and `password`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A password that PostgreSQL's passfile or URIs could not hold.
    #[error("the secret {path} is empty or has a line break or a NUL in it: write one line")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

impl Credentials {
    /// From the files of one user.
    pub fn read(secrets_dir: &Path, user: User) -> Result<Self, SecretError> {
        let folder = secrets_dir.join(user.folder());
        let line = |name: &str| -> Result<String, SecretError> {
            let path = folder.join(name);
            let text =
                std::fs::read_to_string(&path).map_err(|source| SecretError::Read { path: path.clone(), source })?;
            let text = text.trim_end_matches(['\n', '\r']);
            if text.is_empty() || text.contains(['\n', '\r', '\0']) {
                return Err(SecretError::Malformed { path });
            }
            Ok(text.to_owned())
        };
        Ok(Self {
            username: line("username").unwrap_or_else(|_| user.default_name().to_owned()),
            password: line("password")?,
            dbname: line("dbname").ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
scope: orders
kubernetes: {labels: {application: matriarch}, scope_label: cluster-name, role_label: role, use_endpoints: false, ports: [{name: postgresql, port: 5432}]}
restapi: {listen: "0.0.0.0:8008", certfile: /etc/matriarch/tls/tls.crt, keyfile: /etc/matriarch/tls/tls.key, cafile: /etc/matriarch/tls/ca.crt, verify_client: optional}
bootstrap:
  dcs: {ttl: 10, loop_wait: 2, retry_timeout: 3, postgresql: {use_slots: true, parameters: {max_connections: 100}, pg_hba: ["host all all all scram-sha-256"]}}
  initdb: [data-checksums, {encoding: UTF8}, {locale: C.UTF-8}]
  method: ignored
tags: {nofailover: false, failover_priority: 2, zone: a}
postgresql: {listen: "*:5432", data_dir: /var/lib/matriarch/pgdata, authentication: {}}
matriarch: {service: orders, slice: orders-primary, pods_service: orders-pods, secrets_dir: /etc/matriarch/secrets}
unknown: {key: is fine}
"#;

    fn env(name: &str) -> Option<String> {
        Some(match name {
            "POD_NAME" => "orders-0".into(),
            "POD_NAMESPACE" => "shop".into(),
            "POD_IP" => "10.0.0.1".into(),
            "POD_UID" => "u-1".into(),
            _ => return None,
        })
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("patroni.yml"), text, env).map_err(|error| error.to_string())
    }

    #[test]
    fn the_operators_file_is_read() {
        let config = parse(FULL).unwrap();
        assert_eq!(config.scope, "orders");
        assert_eq!(config.initdb, ["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"]);
        assert_eq!(config.bootstrap_dcs["ttl"], 10);
        assert_eq!(config.bootstrap_dcs["postgresql"]["parameters"]["max_connections"], 100);
        assert_eq!((config.postgres.listen_addresses.as_str(), config.postgres.port), ("*", 5432));
        assert_eq!(config.host(), "orders-0.orders-pods.shop.svc");
        assert_eq!(config.restapi.verify_client, VerifyClient::Optional);
        assert_eq!(config.tags.failover_priority, 2);
        assert_eq!(config.tags.published["zone"], "a");
        assert_eq!(config.labels().len(), 2);
    }

    #[test]
    fn little_is_enough() {
        let config = parse("scope: a").unwrap();
        assert_eq!(config.matriarch.slice, "a-primary");
        assert_eq!(config.postgres.data_dir, Path::new("/var/lib/matriarch/pgdata"));
        assert_eq!(config.kubernetes.ports.len(), 1);
    }

    #[test]
    fn errors_say_what_to_write() {
        assert!(parse("{}").unwrap_err().contains("`scope: orders`"));
        assert!(parse("scope: a\npostgresql: {listen: here}").unwrap_err().contains("\"*:5432\""));
        assert!(parse("scope: a\npostgresql: {data_dir: pgdata}").unwrap_err().contains("/var/lib/matriarch/pgdata"));
        assert!(parse("scope: a\nbootstrap: {initdb: [{pwfile: x}]}").unwrap_err().contains("remove it"));
        assert!(parse("scope: [").unwrap_err().contains("patroni.yml"));
        let error = Config::parse(Path::new("x"), "scope: a", |_| None).unwrap_err().to_string();
        assert!(error.contains("POD_NAME") && error.contains("downward API"), "{error}");
    }
}
