//! A custom bootstrap: a command makes the data directory, PostgreSQL recovers it to its target, and it becomes ours.
//!
//! `<pgdata>.bootstrap` is there from the command's success until the roles are ours. It holds the method's name, and a second
//! line once recovery was ordered: from then on PostgreSQL itself removes `recovery.signal` when recovery has ended, and it
//! must not be made again.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use matriarch_ha::effect::ServerConfig;
use matriarch_supervisor::protocol::{FileOp, Request, StartRole, UserCommand};

use super::super::{Error, Postgres, conf};
use crate::config::User;
use crate::config::custom::Custom;
use crate::supervisor::CallError;
use crate::supervisor::runs::Finished;

/// Second line of the mark.
const RECOVERING: &str = "recovery was ordered";

impl Postgres {
    /// What is lost if everything dies after a step:
    /// 1. What an earlier try left is moved aside: nothing.
    /// 2. `.partial` is written: PGDATA counts as empty from here on.
    /// 3. The command works in PGDATA: its work, and the bootstrap begins again.
    /// 4. `.bootstrap` is written, `.partial` is removed: nothing.
    pub(super) async fn custom_bootstrap(&self, custom: &Custom) -> Result<(), Error> {
        let data_dir = self.place.data_dir.clone();
        if self.supervisor.list(data_dir.clone()).await?.is_some_and(|names| !names.is_empty()) {
            if self.supervisor.read(self.place.partial()).await?.is_none() {
                return Err(Error::State(format!("{} is not empty: no bootstrap touches data", data_dir.display())));
            }
            self.move_aside().await?;
        }
        self.supervisor.write(self.place.partial(), format!("the bootstrap `{}`\n", custom.name), 0o600).await?;
        self.supervisor.file(FileOp::Remove { path: self.place.post_init() }).await?;
        let filled = if let Some(from) = &custom.clone {
            self.clone_from(from).await?
        } else {
            let argv = custom.argv(&self.config().scope, &data_dir.to_string_lossy());
            self.fill(argv, BTreeMap::new()).await
        };
        let failed = match filled {
            Err(error @ CallError::Detached) => return Err(error.into()),
            Err(error) => Some(error.to_string()),
            Ok(finished) if finished.success() => {
                let control = self.controldata(&data_dir).await?;
                (!control.success()).then(|| format!("it left no data directory: {}", control.reason()))
            }
            Ok(finished) => Some(finished.reason()),
        };
        if let Some(why) = failed {
            self.move_aside().await?;
            let key = if custom.clone.is_some() {
                "matriarch.clone".to_owned()
            } else {
                format!("bootstrap.method {}", custom.name)
            };
            return Err(Error::Hopeless(format!("{key}: {why}")));
        }
        self.mark_bootstrap(Some(format!("{}\n", custom.name))).await?;
        for path in [self.place.rewinding(), self.place.partial()] {
            self.supervisor.file(FileOp::Remove { path }).await?;
        }
        self.files.forget();
        Ok(())
    }

    /// A command of the user's that fills PGDATA.
    pub(super) async fn fill(&self, argv: Vec<String>, env: BTreeMap<String, String>) -> Result<Finished, CallError> {
        let data_dir = Some(self.place.data_dir.clone());
        self.supervisor.command(UserCommand { argv, env, data_dir }).await
    }

    /// What is in PGDATA is kept as `<pgdata>.failed`, in the place of an earlier such folder.
    pub(super) async fn move_aside(&self) -> Result<(), Error> {
        let failed = self.place.beside(".failed");
        if self.supervisor.list(self.place.data_dir.clone()).await?.is_some() {
            self.supervisor.file(FileOp::RemoveTree { path: failed.clone() }).await?;
            self.supervisor.file(FileOp::Rename { from: self.place.data_dir.clone(), to: failed }).await?;
            self.move_wal_aside().await?;
        }
        self.supervisor.file(FileOp::Remove { path: self.place.partial() }).await?;
        self.mark_bootstrap(None).await?;
        self.files.forget();
        Ok(())
    }

    /// The mark of a custom bootstrap.
    pub(in super::super) async fn bootstrap_marker(&self) -> Result<Option<String>, CallError> {
        let known = self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.supervisor.read(self.place.bootstrap()).await?;
        *self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }

    async fn mark_bootstrap(&self, mark: Option<String>) -> Result<(), CallError> {
        *self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match mark {
            Some(mark) => self.supervisor.write(self.place.bootstrap(), mark, 0o600).await,
            None => self.supervisor.file(FileOp::Remove { path: self.place.bootstrap() }).await,
        }
    }

    /// Starts what a custom bootstrap made: it recovers as it is told, and becomes writable only under our permit.
    pub(super) async fn start_bootstrapped(&self, config: &ServerConfig, mark: &str) -> Result<(), Error> {
        let custom = self.config().bootstrap.custom.clone().unwrap_or_default();
        let ordered = mark.lines().nth(1) == Some(RECOVERING);
        let signal = |name: &str| self.place.data_dir.join(name);
        self.files.forget();
        let config = ServerConfig { upstream: None, ..config.clone() };
        // As for a standby: no setting below what the backup's server had.
        self.read_floor().await?;
        self.write_files(&config, true).await?;
        let mut more: Vec<(String, String)> = Vec::new();
        if let Some(recovery) = custom.recovery.as_ref().filter(|_| !custom.keep_recovery) {
            if !ordered {
                self.remove_signals().await?;
                self.supervisor.write(signal("recovery.signal"), String::new(), 0o600).await?;
            }
            // As arguments they are gone with this postmaster, and no later start recovers to the same target.
            more.extend(recovery.iter().map(|(name, value)| (name.clone(), value.clone())));
            if custom.promotes() {
                more.push(("hot_standby".to_owned(), "off".to_owned()));
            }
        } else if custom.keep_recovery {
            if self.supervisor.read(signal("standby.signal")).await?.is_some() {
                // Recovery has to end: this is to be a primary.
                self.supervisor.write(signal("recovery.signal"), String::new(), 0o600).await?;
                self.supervisor.file(FileOp::Remove { path: signal("standby.signal") }).await?;
            }
        } else if !ordered {
            self.remove_signals().await?;
        }
        if !ordered {
            self.mark_bootstrap(Some(format!("{}\n{RECOVERING}\n", custom.name))).await?;
        }
        match self.start(StartRole::Primary, &more).await {
            // It ended by itself: the target cannot be reached, a file is missing. The fence and a lost supervisor are no reasons.
            Err(Error::State(why)) if !why.contains("fence") => {
                Err(Error::Hopeless(format!("bootstrap.method {}: {why}", custom.name)))
            }
            other => other,
        }
    }

    /// `bootstrap.post_bootstrap`, with the URL of the new database as its last argument.
    pub(super) async fn post_script(&self) -> Result<(), Error> {
        let Some(mut argv) = self.config().bootstrap.post.clone() else { return Ok(()) };
        let superuser = self.config().credentials(User::Superuser)?;
        let passfile = self.place.superuser_passfile();
        self.supervisor.write(passfile.clone(), conf::passfile(&[&superuser]), 0o600).await?;
        let program = argv.first().cloned().unwrap_or_default();
        argv.push(self.place.url(&superuser.username));
        let env = BTreeMap::from([
            ("PGPASSFILE".to_owned(), passfile.to_string_lossy().into_owned()),
            // Nothing waits for standbys that cannot be there yet.
            ("PGOPTIONS".to_owned(), "-c synchronous_commit=local -c statement_timeout=0".to_owned()),
        ]);
        let finished = self.supervisor.command(UserCommand { argv, env, data_dir: None }).await;
        self.supervisor.file(FileOp::Remove { path: passfile }).await?;
        match finished {
            Ok(finished) if finished.success() => Ok(()),
            Ok(finished) => Err(Error::Hopeless(format!("bootstrap.post_bootstrap: {}", finished.reason()))),
            Err(CallError::Refused { message, .. }) => {
                Err(Error::Hopeless(format!("bootstrap.post_bootstrap {program}: {message}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The roles are ours: from now on it is a server like any other.
    pub(super) async fn bootstrapped(&self) -> Result<(), Error> {
        if self.bootstrap_marker().await?.is_none() {
            return Ok(());
        }
        self.mark_bootstrap(None).await?;
        if let Some((config, _)) = self.files.last() {
            self.write_files(&config, false).await?;
            self.supervisor.done(Request::Reload).await?;
        }
        Ok(())
    }
}
