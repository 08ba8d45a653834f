//! The agent's static configuration: Patroni's YAML (one file or a folder of them), its `PATRONI_*` environment variables, a section
//! `matriarch` of our own, and who we are: the pod as the operator made it, or a Pod object that has the member's name.

mod bootstrap;
pub mod changes;
pub mod clone;
pub mod command;
pub mod ctl;
pub mod custom;
mod elsewhere;
mod environment;
mod error;
pub mod kubernetes;
mod locate;
pub mod log;
pub mod log_format;
pub mod matriarch;
pub mod postgresql;
pub mod restapi;
mod schema;
pub mod secrets;
mod source;
pub mod validate;
pub mod value;
pub mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;

use matriarch_crds::names;
use matriarch_ha::tags::Tags;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use error::Error;
pub use kubernetes::{Kubernetes, Port};
pub use matriarch::Matriarch;
pub use postgresql::Postgres;
pub use restapi::{Password, RestApi, VerifyClient};
pub use secrets::{Credentials, SecretError, User};
pub use value::HostPort;

/// Our own configuration, as it was read last.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's name.
    pub scope: String,
    /// Who and where we are.
    pub pod: Pod,
    /// The agent starts the supervisor itself: the pod was not made by the operator, or there is none.
    pub own_supervisor: bool,
    /// Section `kubernetes`.
    pub kubernetes: Kubernetes,
    /// Section `restapi`.
    pub restapi: RestApi,
    /// Section `ctl`.
    pub ctl: ctl::Ctl,
    /// Where others reach our REST API.
    pub api: HostPort,
    /// `bootstrap.dcs`: the dynamic configuration of a new cluster.
    pub bootstrap_dcs: Value,
    /// `bootstrap.initdb`, as arguments of initdb.
    pub initdb: Vec<String>,
    /// The rest of section `bootstrap`.
    pub bootstrap: custom::Bootstrap,
    /// What of section `postgresql` may also be set dynamically, and wins over that.
    pub local: Value,
    /// Where PostgreSQL listens and lives.
    pub postgres: Postgres,
    /// Section `watchdog`.
    pub watchdog: watchdog::Watchdog,
    /// Section `log`.
    pub log: log::Log,
    /// Section `tags`.
    pub tags: Tags,
    /// Section `matriarch`.
    pub matriarch: Matriarch,
    /// All of it, with the environment merged in.
    pub document: Value,
}

/// Our Pod object.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The member's name.
    pub name: String,
    /// Where it is.
    pub namespace: String,
    /// Its address, for Services; empty: not known.
    pub ip: String,
    /// Empty: to be read from the API before anything else.
    pub uid: String,
}

impl Config {
    /// Reads the file or folder and the environment; without a path, the environment alone.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::from_document(source::read(path)?, env)
    }

    /// From a file's text and a way to look up the variables of the pod.
    pub fn parse(path: &Path, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        Self::from_document(source::parse(path, text)?, env)
    }

    fn from_document(document: Value, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let text = |key: &str| document.get(key).and_then(value::text).filter(|text| !text.is_empty());
        let missing = || Error::value("scope", "is missing: write the cluster's name, such as `scope: orders`");
        let scope = text("scope").ok_or_else(missing)?;
        elsewhere::refuse(&document)?;
        let mut kubernetes: Kubernetes = section(&document, "kubernetes")?;
        let restapi: RestApi = section(&document, "restapi")?;
        restapi.check()?;
        let bootstrap: bootstrap::Bootstrap = section(&document, "bootstrap")?;
        if document.pointer("/bootstrap/dcs").is_some_and(|dcs| !dcs.is_object() && !dcs.is_null()) {
            return Err(Error::value("bootstrap.dcs", "is no mapping: write its keys below it, such as `ttl: 30`"));
        }
        let postgresql: postgresql::File = section(&document, "postgresql")?;
        let file: matriarch::File = section(&document, "matriarch")?;

        let in_pod = env("POD_UID").is_some();
        let pod = if in_pod { pod(&kubernetes, text("name"), &env)? } else { member(&kubernetes, text("name"), &env)? };
        let cluster = names::ClusterNames::new(scope.clone(), kubernetes.use_endpoints);
        let has_secrets = file.secrets_dir.is_some();
        let cloned = file.clone.clone();
        let (postgres, matriarch, api) = if in_pod {
            let matriarch = file.in_pod(&cluster);
            // Our DNS name: in our certificate, in `conn_url` and in `api_url`.
            let host = format!("{}.{}.{}.svc", pod.name, matriarch.pods_service, pod.namespace);
            (postgresql.resolve(Some(&host))?, matriarch, restapi.place(Some(&host))?)
        } else {
            let postgres = postgresql.resolve(None)?;
            let matriarch = file.beside(&cluster, &postgres.data_dir, postgres.socket_dir.clone())?;
            (postgres, matriarch, restapi.place(None)?)
        };
        check_data_dir(&postgres.data_dir, &matriarch.volume)?;
        check_wal_dir(matriarch.wal_dir.as_deref(), &postgres.data_dir, &matriarch.volume)?;
        if let Some(from) = &cloned {
            from.check(document.pointer("/bootstrap/method"))?;
        }
        if !in_pod && postgres.authentication.is_none() && !has_secrets {
            let message = "is missing: write `{superuser: {username: postgres, password: …}, replication: {username: replicator, password: …}}`";
            return Err(Error::value("postgresql.authentication", message));
        }
        if kubernetes.ports.is_empty() {
            kubernetes.ports.push(Port { name: None, port: postgres.connect.port, protocol: None });
        }
        Ok(Self {
            initdb: bootstrap.initdb_arguments()?,
            bootstrap_dcs: bootstrap.dynamic(),
            bootstrap: {
                let bootstrap = match document.get("bootstrap") {
                    Some(Value::Object(section)) => custom::Bootstrap::parse(section)?,
                    _ => custom::Bootstrap::default(),
                };
                custom::Bootstrap { custom: cloned.map(clone::CloneFrom::bootstrap).or(bootstrap.custom), ..bootstrap }
            },
            ctl: section(&document, "ctl")?,
            local: local(&document),
            own_supervisor: !in_pod,
            scope,
            pod,
            kubernetes,
            restapi,
            api,
            postgres,
            watchdog: watchdog::Watchdog::parse(document.get("watchdog"))?,
            log: log::Log::parse(document.get("log").unwrap_or(&Value::Null))?,
            tags: Tags::parse(document.get("tags").unwrap_or(&Value::Null)),
            matriarch,
            document,
        })
    }

    /// The same member with another document: what cannot change while we run stays as it is.
    pub fn with(&self, document: &Value) -> Result<Self, Error> {
        let env = |name: &str| match name {
            "POD_NAME" => Some(self.pod.name.clone()),
            "POD_NAMESPACE" => Some(self.pod.namespace.clone()),
            "POD_IP" => Some(self.pod.ip.clone()),
            "POD_UID" => (!self.own_supervisor).then(|| self.pod.uid.clone()),
            _ => None,
        };
        let new = Self::from_document(changes::keep_fixed(&self.document, document), env)?;
        Ok(Self { pod: self.pod.clone(), ..new })
    }

    /// What is odd about it, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        let parts = [&self.postgres.warnings, &self.log.ignored];
        self.tags.conflicts().into_iter().chain(parts.into_iter().flatten().cloned()).collect()
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

    /// Who logs in as `user`.
    pub fn credentials(&self, user: User) -> Result<Credentials, SecretError> {
        match &self.postgres.authentication {
            Some(authentication) => authentication.credentials(user),
            None => Credentials::read(&self.matriarch.secrets_dir, user),
        }
    }
}

/// One section; an absent one has its defaults.
fn section<T: DeserializeOwned>(document: &Value, key: &str) -> Result<T, Error> {
    let value = document.get(key).filter(|value| !value.is_null()).cloned();
    let value = value.unwrap_or_else(|| Value::Object(Map::new()));
    serde_json::from_value(value).map_err(|error| Error::value(key, format!("is not as it should be: {error}")))
}

/// The pod that the operator made, from the downward API.
fn pod(kubernetes: &Kubernetes, name: Option<String>, env: &impl Fn(&str) -> Option<String>) -> Result<Pod, Error> {
    let need = |name: &'static str, hint: &'static str| env(name).ok_or(Error::Env { name, hint });
    Ok(Pod {
        name: env("POD_NAME").or(name).ok_or(Error::Env {
            name: "POD_NAME",
            hint: "set it from the downward API (fieldRef metadata.name), or write `name:` in the configuration",
        })?,
        namespace: match (env("POD_NAMESPACE"), &kubernetes.namespace) {
            (Some(namespace), _) => namespace,
            (None, Some(namespace)) => namespace.clone(),
            (None, None) => need("POD_NAMESPACE", "set it from the downward API (fieldRef metadata.namespace)")?,
        },
        ip: need("POD_IP", "set it from the downward API (fieldRef status.podIP)")?,
        uid: need("POD_UID", "set it from the downward API (fieldRef metadata.uid)")?,
    })
}

/// Somebody else's pod, or no pod at all: the Pod object with our name is ours.
fn member(kubernetes: &Kubernetes, name: Option<String>, env: &impl Fn(&str) -> Option<String>) -> Result<Pod, Error> {
    let missing = || {
        Error::value(
            "name",
            "is missing: write `name: orders-0`, the name of this member and of its Pod object, or set PATRONI_NAME \
             (in a pod from the downward API, fieldRef metadata.name)",
        )
    };
    Ok(Pod {
        name: name.or_else(|| env("POD_NAME")).ok_or_else(missing)?,
        namespace: kubernetes
            .namespace
            .clone()
            .or_else(|| env("POD_NAMESPACE"))
            .unwrap_or_else(|| "default".to_owned()),
        ip: kubernetes.pod_ip.clone().or_else(|| env("POD_IP")).unwrap_or_default(),
        uid: String::new(),
    })
}

/// Section `postgresql` without what is this member's own, passwords above all.
fn local(document: &Value) -> Value {
    const OWN: [&str; 9] = [
        "authentication",
        "bin_dir",
        "bin_name",
        "config_dir",
        "connect_address",
        "data_dir",
        "listen",
        "pgpass",
        "proxy_address",
    ];
    match document.get("postgresql") {
        Some(Value::Object(section)) => {
            let shared = section.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
            Value::Object(shared.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        _ => Value::Null,
    }
}

fn check_data_dir(data_dir: &Path, volume: &Path) -> Result<(), Error> {
    let bad = |message: String| Err(Error::value("postgresql.data_dir", message));
    if !data_dir.is_absolute() || data_dir.parent().is_none() || data_dir.file_name().is_none() {
        return bad(format!("{} is no folder below a volume: write {}", data_dir.display(), names::DATA_DIR));
    }
    if !data_dir.starts_with(volume) || data_dir == volume {
        return bad(format!(
            "{} does not lie below the data volume {}: write a subfolder of it",
            data_dir.display(),
            volume.display()
        ));
    }
    Ok(())
}

/// Nobody but PostgreSQL works there, and it is emptied with the data directory.
fn check_wal_dir(wal_dir: Option<&Path>, data_dir: &Path, volume: &Path) -> Result<(), Error> {
    let Some(wal_dir) = wal_dir else { return Ok(()) };
    let beside = matriarch_supervisor::wal_volume(volume);
    let below = |volume: &Path| wal_dir.starts_with(volume) && wal_dir != volume;
    let plain = wal_dir.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    let apart = !wal_dir.starts_with(data_dir) && !data_dir.starts_with(wal_dir);
    if wal_dir.is_absolute() && plain && apart && (below(volume) || below(&beside)) {
        return Ok(());
    }
    let message = format!(
        "{} is no folder of its own on the data volume or the one beside it: write {}",
        wal_dir.display(),
        beside.join("pg_wal").display()
    );
    Err(Error::value("matriarch.wal_dir", message))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
