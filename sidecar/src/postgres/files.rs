//! The files of a server, written through the supervisor, and only when their content differs.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::future::try_join_all;
use matriarch_ha::effect::ServerConfig;
use matriarch_ha::event::Pending;

use super::inherited::{self, Inherited};
use super::{Error, Postgres, conf, tool};
use crate::config::{Config, User};
use crate::supervisor::{CallError, Supervisor};
use crate::tls;

/// In PostgreSQL's folder.
const TLS_NAMES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// What was written last, by path; forgotten when something else may have changed the files.
#[derive(Default)]
pub struct Files {
    written: Mutex<BTreeMap<PathBuf, u64>>,
    /// The image's PostgreSQL was built with TLS. Asked once: another image is another pod.
    speaks_tls: OnceLock<bool>,
    /// What they were made from last, and whether as a standby's.
    last: Mutex<Option<(ServerConfig, bool)>>,
    /// What the directory has brought along.
    inherited: Mutex<Option<Inherited>>,
    /// What was written otherwise than it is configured, so that primary and standbys fit together.
    overridden: Mutex<BTreeMap<String, Pending>>,
    /// One writer at a time.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Files {
    /// Something else may have changed the files: look before the next write.
    pub fn forget(&self) {
        self.written().clear();
        *self.inherited.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Who has it writes the files, and nobody else.
    pub fn lock(&self) -> Arc<tokio::sync::Mutex<()>> {
        self.writing.clone()
    }

    /// What the files were made from last.
    pub fn last(&self) -> Option<(ServerConfig, bool)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn configured(&self, config: &ServerConfig, standby: bool) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((config.clone(), standby));
    }

    /// Parameters that wait for a restart though the files say what is in force.
    pub fn overridden(&self) -> BTreeMap<String, Pending> {
        self.overridden.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn written(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes if it differs; tells whether it did.
    async fn put(&self, supervisor: &Supervisor, path: PathBuf, content: String, mode: u32) -> Result<bool, CallError> {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.written().get(&path).copied();
        let same = match known {
            Some(known) => known == hash,
            None => supervisor.read(path.clone()).await?.as_deref() == Some(content.as_str()),
        };
        if !same {
            self.written().remove(&path);
            supervisor.write(path.clone(), content, mode).await?;
        }
        self.written().insert(path, hash);
        Ok(!same)
    }
}

/// The certificate, its key and the authority, if all can be read and belong together. A kubelet swaps them under us: what was read
/// half before and half after is found out, and read again at the next change.
fn tls_files(config: &Config) -> Option<[String; 3]> {
    let read = |path: &Path| std::fs::read_to_string(path).ok().filter(|text| !text.trim().is_empty());
    let own = config.matriarch.server_tls.as_ref();
    let (certificate, key) = if let Some(folder) = own {
        (folder.join("tls.crt"), folder.join("tls.key"))
    } else {
        let certificate = config.restapi.certfile.clone()?;
        let key = config.restapi.keyfile.clone().unwrap_or_else(|| certificate.clone());
        (certificate, key)
    };
    let authority = own.and_then(|folder| read(&folder.join("ca.crt")));
    let authority = authority.or_else(|| read(config.restapi.cafile.as_deref()?))?;
    let all = [read(&certificate)?, read(&key)?, authority];
    match tls::usable(&all[0], &all[1], &all[2]) {
        Ok(()) => Some(all),
        Err(error) => {
            tracing::warn!(tls.cert = %certificate.display(), "PostgreSQL keeps the certificate that it has: {error}");
            None
        }
    }
}

/// What PostgreSQL serves TLS with.
#[derive(PartialEq, Eq)]
enum Certificates {
    /// Nothing.
    None,
    /// What lies beside its data since before.
    Old,
    /// Certificate, key and authority.
    New([String; 3]),
}

impl Postgres {
    /// Writes all files of the server; tells whether any of them changed.
    pub(super) async fn write_files(&self, config: &ServerConfig, standby: bool) -> Result<bool, Error> {
        let _lock = self.files.lock().lock_owned().await;
        self.files.configured(config, standby);
        let bootstrap = self.bootstrap_marker().await?;
        let keeps =
            bootstrap.is_some() && self.config().bootstrap.custom.as_ref().is_some_and(|custom| custom.keep_recovery);
        let mut config = config.clone();
        config.parameters = self.parameters.check(&self.supervisor, &self.place, &config.parameters).await?;
        let wanted = config.parameters.clone();
        if standby || !config.limits.is_empty() {
            let floor = match self.known_floor() {
                Some(floor) if standby => floor,
                // A primary's own values are there only since it has started.
                _ => self.read_floor().await?,
            };
            if standby {
                conf::raise(&mut config.parameters, &floor);
            } else {
                conf::hold(&mut config.parameters, &config.limits, &floor);
            }
        }
        self.override_with(conf::overridden(&wanted, &config.parameters), standby);
        let tls = self.server_certificates().await?;
        let inherited = self.inherited().await?;
        if config.pg_hba.is_empty() {
            config.pg_hba.clone_from(&inherited.rules);
        }
        let role = |user: User| self.config().credentials(user);
        let (replication, superuser) = (role(User::Replication)?, role(User::Superuser)?);
        let rewind = role(User::Rewind).ok();
        let database = self.config().postgres.database.clone();
        let roles = conf::Roles {
            superuser: &superuser.username,
            replication: &replication.username,
            rewind: rewind.as_ref().map_or("rewinder", |rewind| rewind.username.as_str()),
            database: &database,
            trust_superuser: bootstrap.is_some(),
            md5: inherited.base,
        };
        let text = conf::postgresql_conf(
            &self.place,
            &config,
            conf::Given {
                replication: &replication,
                tls: tls != Certificates::None,
                major: self.supervisor.major_version(),
                base: inherited.base,
            },
        );
        let hba = conf::pg_hba_conf(&config, &roles);
        // What the configuration points to is there before the configuration is.
        let mut first = vec![
            self.put(self.place.hba(), hba, 0o600),
            self.put(self.place.ident(), conf::pg_ident_conf(&config), 0o600),
        ];
        if let Certificates::New(all) = tls {
            for (name, content) in TLS_NAMES.into_iter().zip(all) {
                first.push(self.put(self.place.tls(name), content, 0o600));
            }
        }
        let mut changed = try_join_all(first).await?.contains(&true);
        changed |= self.write_passfile().await?;
        changed |= self.put(self.place.conf(), text, 0o600).await?;
        self.write_dynamic().await;
        if !keeps
            && let Some(auto) = self.supervisor.read(self.place.auto_conf()).await?
            && let Some(cleaned) = conf::cleaned_auto_conf(&auto)
        {
            tracing::warn!("postgresql.auto.conf set parameters that are Matriarch's: they were removed from it");
            self.supervisor.write(self.place.auto_conf(), cleaned, 0o600).await?;
            changed = true;
        }
        Ok(changed)
    }

    async fn inherited(&self) -> Result<Inherited, CallError> {
        let known = self.files.inherited.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = inherited::look(&self.supervisor, &self.place).await?;
        *self.files.inherited.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }

    /// What is written otherwise than it is configured is said when it begins.
    fn override_with(&self, overridden: BTreeMap<String, Pending>, standby: bool) {
        let mut former = self.files.overridden.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, Pending { old_value, new_value }) in &overridden {
            if former.get(name).is_none_or(|said| said.old_value != *old_value || said.new_value != *new_value) {
                let why = if standby { "the primary still has" } else { "standbys still wait for a restart with" };
                tracing::warn!(parameter = %name, "{name} stays {old_value} instead of {new_value}: {why} {old_value}");
            }
        }
        *former = overridden;
    }

    /// What PostgreSQL serves TLS with. Certificates that cannot be used change nothing of what it has.
    async fn server_certificates(&self) -> Result<Certificates, Error> {
        let config = self.config();
        // Outside of the operator's pods the REST API's certificates are not PostgreSQL's.
        if config.own_supervisor && config.matriarch.server_tls.is_none() || !self.speaks_tls().await? {
            return Ok(Certificates::None);
        }
        if let Some(all) = tls_files(&config) {
            return Ok(Certificates::New(all));
        }
        let has = self.supervisor.read(self.place.tls(TLS_NAMES[0])).await?.is_some();
        Ok(if has { Certificates::Old } else { Certificates::None })
    }

    /// Some builds of PostgreSQL have no TLS, and refuse to start when told to use it.
    async fn speaks_tls(&self) -> Result<bool, Error> {
        if let Some(known) = self.files.speaks_tls.get() {
            return Ok(*known);
        }
        let data_dir = self.place.data_dir.to_string_lossy().into_owned();
        let arguments = ["-C", "ssl", "-D", &data_dir, "-c", "ssl=on", "-c", "config_file=/dev/null"];
        let finished = self.supervisor.run(tool("postgres", arguments.map(ToOwned::to_owned).to_vec())).await?;
        let speaks = !finished.output.stderr.contains("SSL is not supported by this build");
        if !speaks {
            tracing::warn!("PostgreSQL of this image was built without TLS: its connections are not encrypted");
        }
        Ok(*self.files.speaks_tls.get_or_init(|| speaks))
    }

    /// Writes the passfile of the WAL receiver and the tools.
    pub(super) async fn write_passfile(&self) -> Result<bool, Error> {
        let replication = self.config().credentials(User::Replication)?;
        let mut who = vec![&replication];
        let rewind = self.config().credentials(User::Rewind).ok();
        who.extend(&rewind);
        // The WAL receiver reads it at every connect: no reload is needed.
        self.put(self.place.passfile(), conf::passfile(&who), 0o600).await?;
        Ok(false)
    }

    pub(super) async fn put(&self, path: PathBuf, content: String, mode: u32) -> Result<bool, CallError> {
        self.files.put(&self.supervisor, path, content, mode).await
    }
}
