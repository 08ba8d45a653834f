//! Our PostgreSQL: what is in its directory, how it is, and every change of it, through the supervisor and its unix socket.

mod cache;
mod callbacks;
pub mod change;
pub mod conf;
pub mod controldata;
mod copied_slots;
pub mod files;
mod inherited;
pub mod local;
mod login;
pub mod parameters;
mod passwords;
pub mod query;
pub mod remote;
pub mod settings;
mod slots;
pub mod sql;
pub mod tasks;
pub mod units;
pub mod verifier;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use matriarch_ha::config::effective;
use matriarch_ha::event::{DataDir, Pending, QueryError, ServerStatus, TaskError};
use matriarch_ha::history::Line;
use matriarch_ha::types::Timeline;
use matriarch_supervisor::protocol::{Refusal, Run};

use crate::config::{Config, SecretError};
use crate::supervisor::config_dir::same;
use crate::supervisor::runs::Finished;
use crate::supervisor::{CallError, Supervisor};
use settings::Settings;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The supervisor.
    #[error(transparent)]
    Supervisor(#[from] CallError),
    /// The server.
    #[error(transparent)]
    Server(#[from] local::Error),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A program failed.
    #[error("{0}")]
    Program(String),
    /// Things are not as they have to be.
    #[error("{0}")]
    State(String),
    /// A bootstrap failed, and another try would as well.
    #[error("{0}")]
    Hopeless(String),
    /// This member may not lead now.
    #[error("{0}")]
    Forbidden(String),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error.into())
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        match error {
            Error::Supervisor(CallError::Refused { kind: Refusal::NoPermit, .. }) => Self::NoPermit,
            Error::Hopeless(why) => Self::Hopeless(why),
            Error::Forbidden(why) | Error::Supervisor(CallError::Refused { kind: Refusal::Watchdog, message: why }) => {
                Self::Forbidden(why)
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Our PostgreSQL. Shared by the tasks that work on it.
pub struct Postgres {
    /// As it was read last.
    config: RwLock<Arc<Config>>,
    supervisor: Supervisor,
    place: conf::Place,
    kept: query::Kept,
    logins: login::Logins,
    files: files::Files,
    parameters: parameters::Checked,
    settings: Mutex<Arc<Settings>>,
    /// The dynamic configuration, to be kept in the data directory.
    dynamic: cache::Dynamic,
    /// Port and folder of the socket of a server that another agent started.
    running: Mutex<Option<(u16, PathBuf)>>,
    /// What was said of the configuration in force.
    said: Mutex<BTreeSet<String>>,
    callbacks: callbacks::Callbacks,
    /// The mark of a custom bootstrap, where it was looked for.
    bootstrap: Mutex<Option<Option<String>>>,
    /// Settings of the primary that a standby must not go below, from `pg_controldata`.
    floor: Mutex<Option<BTreeMap<String, u64>>>,
}

impl Postgres {
    /// Of this pod.
    pub fn new(config: Arc<Config>, supervisor: Supervisor) -> Self {
        Self {
            place: conf::Place::new(&config),
            settings: Mutex::new(Arc::new(Settings::parse(&effective(&config.bootstrap_dcs, &config.local)))),
            config: RwLock::new(config),
            supervisor,
            kept: query::Kept::default(),
            logins: login::Logins::default(),
            files: files::Files::default(),
            parameters: parameters::Checked::default(),
            floor: Mutex::default(),
            running: Mutex::default(),
            said: Mutex::default(),
            dynamic: cache::Dynamic::default(),
            callbacks: callbacks::Callbacks::default(),
            bootstrap: Mutex::default(),
        }
    }

    /// Our own configuration as it was read last.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, with the port and the socket of the server that runs: another agent may have started it with others.
    fn reach(&self) -> Arc<Config> {
        let config = self.config();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match running {
            Some((port, sockets))
                if port != config.postgres.port || sockets != config.matriarch.postgres_socket_dir =>
            {
                let mut config = Config::clone(&config);
                (config.postgres.port, config.matriarch.postgres_socket_dir) = (port, sockets);
                Arc::new(config)
            }
            _ => config,
        }
    }

    /// A supervisor is connected: on which port and in which folder does the server that it runs listen?
    pub async fn look_at_running(&self) {
        let text = self.supervisor.read(self.place.pid_file()).await.ok().flatten();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = text.as_deref().and_then(listens);
    }

    /// Our own configuration was read again. What PostgreSQL needs of it comes into force with the next change of its files.
    pub fn reconfigure(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.files.forget();
        self.parameters.forget();
    }

    /// The configuration in force has changed.
    pub fn configured(&self, effective: &serde_json::Value, problems: &[String]) {
        let settings = Settings::parse(effective);
        let said = std::mem::replace(
            &mut *self.said.lock().unwrap_or_else(PoisonError::into_inner),
            settings.problems.iter().chain(problems).chain(&settings.notes).cloned().collect(),
        );
        for problem in settings.problems.iter().chain(problems).filter(|problem| !said.contains(*problem)) {
            tracing::warn!("{problem}");
        }
        for note in settings.notes.iter().filter(|note| !said.contains(*note)) {
            tracing::info!("{note}");
        }
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.guard_soon();
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why parameters of the configuration are not used: name to sentence.
    pub fn invalid_parameters(&self) -> BTreeMap<String, String> {
        self.parameters.invalid()
    }

    /// The postmaster is gone: nothing is asked over a connection to it.
    pub fn forget_connection(&self) {
        self.kept.close();
    }

    /// The server's state. Asks the socket only, so a stopped server answers at once that it does not.
    pub async fn query(&self, limit: Duration) -> Result<ServerStatus, QueryError> {
        let (mut status, listens) = self.kept.status(self, limit).await?;
        for (name, pending) in self.files.overridden().into_iter().chain(listens.pending(&self.config())) {
            status.pending_restart.entry(name).or_insert(pending);
        }
        // In pods it may be known to us by another path.
        if self.config().own_supervisor
            && let Some(old) = listens.config_file()
            && !same(Path::new(old), &self.place.conf())
        {
            let new_value = self.place.conf().to_string_lossy().into_owned();
            let pending = Pending { old_value: old.to_owned(), new_value };
            status.pending_restart.insert("config_file".to_owned(), pending);
        }
        Ok(status)
    }

    /// The history of a timeline that this server made.
    pub async fn history(&self, timeline: Timeline) -> Result<Vec<Line>, Error> {
        Ok(self.kept.history(self, timeline).await?)
    }

    /// What is in the data directory.
    pub async fn inspect(&self) -> DataDir {
        match self.look().await {
            Ok(found) => found,
            Err(error) => DataDir::Unknown(error.to_string()),
        }
    }

    async fn look(&self) -> Result<DataDir, Error> {
        let names = self.supervisor.list(self.place.data_dir.clone()).await?.unwrap_or_default();
        if names.is_empty() {
            return Ok(DataDir::Empty);
        }
        if let Some(what) = self.supervisor.read(self.place.partial()).await? {
            tracing::warn!("the data directory holds {} that did not end well: it counts as empty", what.trim());
            return Ok(DataDir::Empty);
        }
        if let Some(from) = self.supervisor.read(self.place.rewinding()).await? {
            return Ok(DataDir::Broken(format!("a pg_rewind from {} did not end well", from.trim())));
        }
        let has = |name: &str| names.iter().any(|other| other == name);
        if let Some(why) = self.lost_wal().await? {
            return Ok(DataDir::Broken(why));
        }
        if !has("PG_VERSION") {
            return Ok(DataDir::Broken("there is no PG_VERSION".to_owned()));
        }
        let mut last = String::new();
        // While a server runs, its control file may be read halfway through a write.
        for _ in 0..2 {
            let output = self.controldata(&self.place.data_dir).await?;
            if !output.success() {
                last = output.reason();
                continue;
            }
            let said = &output.output;
            match controldata::parse(&said.stdout, &said.stderr, has("standby.signal")) {
                Ok(data) => return Ok(DataDir::Present(data)),
                Err(error) => last = error.to_string(),
            }
        }
        Ok(DataDir::Broken(last))
    }

    async fn controldata(&self, data_dir: &Path) -> Result<Finished, CallError> {
        let arguments = vec!["-D".to_owned(), data_dir.to_string_lossy().into_owned()];
        self.supervisor.run(tool("pg_controldata", arguments)).await
    }

    /// Reads the floor of a standby's settings from `pg_controldata`.
    async fn read_floor(&self) -> Result<BTreeMap<String, u64>, Error> {
        let output = self.controldata(&self.place.data_dir).await?;
        if !output.success() {
            return Err(Error::Program(output.reason()));
        }
        let floor = controldata::settings(&output.output.stdout);
        *self.floor.lock().unwrap_or_else(PoisonError::into_inner) = Some(floor.clone());
        Ok(floor)
    }

    fn known_floor(&self) -> Option<BTreeMap<String, u64>> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lines 4 and 5 of postmaster.pid are the port and the folder of the socket (PostgreSQL's miscadmin.h).
fn listens(pid_file: &str) -> Option<(u16, PathBuf)> {
    let mut lines = pid_file.lines().skip(3);
    let port = lines.next()?.trim().parse().ok()?;
    let sockets = lines.next()?.trim();
    (!sockets.is_empty()).then(|| (port, sockets.into()))
}

/// A program with messages that code can read.
fn tool(program: &str, args: Vec<String>) -> Run {
    let env = BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned())]);
    Run { program: program.to_owned(), args, env, stdin: String::new() }
}
