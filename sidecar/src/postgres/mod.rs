//! Our PostgreSQL: what is in its directory, how it is, and every change of it, through the supervisor and its unix socket.

mod callbacks;
pub mod change;
pub mod conf;
pub mod controldata;
mod copied_slots;
pub mod files;
mod inherited;
pub mod local;
pub mod parameters;
pub mod query;
pub mod remote;
pub mod settings;
mod slots;
pub mod tasks;
mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_ha::config::effective;
use matriarch_ha::event::{DataDir, QueryError, ServerStatus, TaskError};
use matriarch_ha::history::Line;
use matriarch_ha::types::Timeline;
use matriarch_supervisor::protocol::{Refusal, Run};

use crate::config::{Config, SecretError};
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
    config: Arc<Config>,
    supervisor: Supervisor,
    place: conf::Place,
    kept: query::Kept,
    files: files::Files,
    parameters: parameters::Checked,
    settings: Mutex<Arc<Settings>>,
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
            config,
            supervisor,
            kept: query::Kept::default(),
            files: files::Files::default(),
            parameters: parameters::Checked::default(),
            floor: Mutex::default(),
            callbacks: callbacks::Callbacks::default(),
            bootstrap: Mutex::default(),
        }
    }

    /// The configuration in force has changed.
    pub fn configured(&self, effective: &serde_json::Value) {
        let settings = Settings::parse(effective);
        for problem in &settings.problems {
            tracing::warn!("{problem}");
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
        self.kept.status(&self.config, limit).await
    }

    /// The history of a timeline that this server made.
    pub async fn history(&self, timeline: Timeline) -> Result<Vec<Line>, Error> {
        Ok(self.kept.history(&self.config, timeline).await?)
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
            match controldata::parse(&output.output.stdout, has("standby.signal")) {
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

/// A program with messages that code can read.
fn tool(program: &str, args: Vec<String>) -> Run {
    let env = BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned())]);
    Run { program: program.to_owned(), args, env, stdin: String::new() }
}
