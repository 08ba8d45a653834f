//! Section `postgresql`: where the server is, who logs in to it, and what the file sets beside the dynamic configuration.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use matriarch_crds::names;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::secrets::{Credentials, SecretError, User};
use super::{Error, HostPort, value};

/// What else `authentication` may say of a login: libpq's keywords.
pub(super) const LOGIN: [&str; 10] = [
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslnegotiation",
    "gssencmode",
    "channel_binding",
];

/// Section `postgresql`, taken apart.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// `listen_addresses`
    pub listen_addresses: String,
    /// port
    pub port: u16,
    /// Where others reach it.
    pub connect: HostPort,
    /// The same through a pooler or balancer.
    pub proxy: Option<HostPort>,
    /// PGDATA as the supervisor sees it.
    pub data_dir: PathBuf,
    /// Where its configuration files are: PGDATA, or another folder.
    pub config_dir: PathBuf,
    /// `postgresql`, of postgresql.conf.
    pub config_base_name: String,
    /// Included in postgresql.conf instead of what a cluster brought along.
    pub custom_conf: Option<PathBuf>,
    /// The database to which the agent connects.
    pub database: String,
    /// Of standbys that log in by Kerberos.
    pub krbsrvname: Option<String>,
    /// What cannot be used, in sentences.
    pub(super) warnings: Vec<String>,
    /// Where PostgreSQL's programs are; none: in PATH, or where Debian has them.
    pub bin_dir: Option<PathBuf>,
    /// What programs are called there, where that is not `PostgreSQL`'s own name.
    pub bin_names: BTreeMap<String, String>,
    /// The first of `unix_socket_directories` in the file that is a folder.
    pub(super) socket_dir: Option<PathBuf>,
    /// Who logs in; none: the Secrets say it.
    pub authentication: Option<Authentication>,
}

/// Patroni's names for the programs that may be called otherwise.
pub(super) const PROGRAMS: &[&str] =
    &["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];

/// Names of files in `bin_dir`: nothing else may be run in their place.
fn bin_names(names: BTreeMap<String, String>, pod: bool) -> Result<BTreeMap<String, String>, Error> {
    for (program, name) in &names {
        let key = format!("postgresql.bin_name.{program}");
        if !PROGRAMS.contains(&program.as_str()) {
            return Err(Error::value(&key, format!("is unknown: write one of {}", PROGRAMS.join(", "))));
        }
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(Error::value(&key, "is the name of a program in bin_dir, without a folder"));
        }
    }
    if pod && !names.is_empty() {
        return Err(Error::value("postgresql.bin_name", "is for servers outside of pods: remove it"));
    }
    Ok(names)
}

/// `postgresql.authentication`.
#[derive(Debug, Clone)]
pub struct Authentication {
    superuser: Credentials,
    replication: Credentials,
    rewind: Option<Credentials>,
}

impl Authentication {
    /// Who logs in as `user`. Without a user for `pg_rewind` that is the superuser, as in Patroni.
    pub fn credentials(&self, user: User) -> Result<Credentials, SecretError> {
        match user {
            User::Superuser => Ok(self.superuser.clone()),
            User::Replication => Ok(self.replication.clone()),
            User::Rewind => Ok(self.rewind.as_ref().unwrap_or(&self.superuser).clone()),
            User::App | User::Clone => Err(SecretError::NotConfigured { user: user.folder() }),
        }
    }
}

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct File {
    listen: Option<String>,
    connect_address: Option<String>,
    proxy_address: Option<String>,
    data_dir: Option<PathBuf>,
    bin_dir: Option<PathBuf>,
    bin_name: BTreeMap<String, String>,
    config_dir: Option<PathBuf>,
    config_base_name: Option<String>,
    custom_conf: Option<PathBuf>,
    database: Option<String>,
    krbsrvname: Option<String>,
    parameters: Map<String, Value>,
    authentication: Map<String, Value>,
}

impl File {
    /// Takes it apart. `pod` is our pod's DNS name where the operator made the pod; else the file must say where things are.
    pub fn resolve(self, pod: Option<&str>) -> Result<Postgres, Error> {
        let listen = self.listen.unwrap_or_else(|| format!("*:{}", names::POSTGRES_PORT));
        let listen = HostPort::parse("postgresql.listen", &listen)?;
        let connect = match (&self.connect_address, pod) {
            (Some(address), _) => HostPort::parse("postgresql.connect_address", address)?,
            (None, Some(pod)) => HostPort { host: pod.to_owned(), port: listen.port },
            (None, None) if listen.is_everywhere() => {
                let message =
                    format!("is missing: write where standbys reach this server, such as \"10.0.0.1:{}\"", listen.port);
                return Err(Error::value("postgresql.connect_address", message));
            }
            (None, None) => listen.clone(),
        };
        let data_dir = match (self.data_dir, pod) {
            (Some(data_dir), Some(_)) => data_dir,
            (Some(data_dir), None) => absolute("postgresql.data_dir", &data_dir)?,
            (None, Some(_)) => names::DATA_DIR.into(),
            (None, None) => {
                return Err(Error::value("postgresql.data_dir", "is missing: write the folder of the data directory"));
            }
        };
        let bin_names = bin_names(self.bin_name, pod.is_some())?;
        let bin_dir = self.bin_dir.filter(|dir| !dir.as_os_str().is_empty());
        if let Some(dir) = &bin_dir
            && !dir.join(bin_names.get("postgres").map_or("postgres", String::as_str)).is_file()
            && pod.is_none()
        {
            return Err(Error::value("postgresql.bin_dir", format!("there is no `postgres` in {}", dir.display())));
        }
        let mut warnings = Vec::new();
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let config_dir = match self.config_dir.filter(|dir| !dir.as_os_str().is_empty() && *dir != data_dir) {
            None => data_dir.clone(),
            Some(dir) if pod.is_none() => config_dir(&dir)?,
            // In pods the supervisor writes nowhere but on the volume.
            Some(dir) if !data_dir.parent().is_some_and(|volume| dir.starts_with(volume)) => {
                warnings.push(format!(
                    "postgresql.config_dir: {} is not below the folder of the data directory: the configuration is written into the \
                     data directory",
                    dir.display()
                ));
                data_dir.clone()
            }
            Some(dir) => dir,
        };
        let config_base_name = filled(self.config_base_name).unwrap_or_else(|| "postgresql".to_owned());
        if config_base_name.contains('/') {
            return Err(Error::value(
                "postgresql.config_base_name",
                "has a slash in it: write a name such as postgresql",
            ));
        }
        let socket_dirs = self.parameters.get("unix_socket_directories").and_then(value::text).unwrap_or_default();
        Ok(Postgres {
            listen_addresses: listen.host,
            port: listen.port,
            connect,
            proxy: match self.proxy_address.filter(|address| !address.is_empty()) {
                Some(address) => Some(HostPort::parse("postgresql.proxy_address", &address)?),
                None => None,
            },
            data_dir,
            config_dir,
            config_base_name,
            custom_conf: self.custom_conf.filter(|path| !path.as_os_str().is_empty()),
            database: filled(self.database).unwrap_or_else(|| "postgres".to_owned()),
            krbsrvname: filled(self.krbsrvname),
            warnings,
            bin_dir,
            bin_names,
            socket_dir: socket_dirs.split(',').map(|dir| PathBuf::from(dir.trim())).find(|dir| dir.is_absolute()),
            authentication: authentication(&self.authentication)?,
        })
    }
}

/// Where the configuration files are, outside of pods: wherever the user who runs PostgreSQL may write.
fn config_dir(dir: &Path) -> Result<PathBuf, Error> {
    const KEY: &str = "postgresql.config_dir";
    let path = absolute(KEY, dir)?;
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if plain && path.parent().is_some() {
        return Ok(path.components().collect());
    }
    Err(Error::value(
        KEY,
        format!("{} is no folder for one server's configuration: write such as /etc/postgresql/17/main", dir.display()),
    ))
}

fn absolute(key: &str, path: &Path) -> Result<PathBuf, Error> {
    let failed = |error: std::io::Error| Error::value(key, format!("{}: {error}", path.display()));
    let path = std::path::absolute(path).map_err(failed)?;
    // Without the links of the folder above it, so that the supervisor's paths and PostgreSQL's are the same.
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return Ok(path) };
    Ok(folder.canonicalize().map_or_else(|_| path.clone(), |folder| folder.join(name)))
}

fn authentication(section: &Map<String, Value>) -> Result<Option<Authentication>, Error> {
    if section.is_empty() {
        return Ok(None);
    }
    let one = |user: User| -> Result<Option<Credentials>, Error> {
        let key = |name: &str| format!("postgresql.authentication.{}.{name}", user.folder());
        let Some(login) = section.get(user.folder()) else { return Ok(None) };
        let field = |name: &str| login.get(name).and_then(value::text).filter(|text| !text.is_empty());
        let Some(password) = field("password") else {
            return Err(Error::value(key("password"), "is missing: write a password"));
        };
        if password.contains(['\n', '\r', '\0']) {
            return Err(Error::value(key("password"), "has a line break or a NUL in it: write one line"));
        }
        let username = field("username").unwrap_or_else(|| user.default_name().to_owned());
        let options = LOGIN.iter().filter_map(|name| Some(((*name).to_owned(), field(name)?))).collect();
        Ok(Some(Credentials { username, password, dbname: None, options }))
    };
    let need = |user: User| {
        let missing = || {
            let key = format!("postgresql.authentication.{}", user.folder());
            Error::value(key, "is missing: write `{username: …, password: …}`")
        };
        one(user)?.ok_or_else(missing)
    };
    Ok(Some(Authentication {
        superuser: need(User::Superuser)?,
        replication: need(User::Replication)?,
        rewind: one(User::Rewind)?,
    }))
}
