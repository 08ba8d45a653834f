//! Reading the configuration again while we run: SIGHUP and `POST /reload`. What can be changed is, what cannot is told.

use std::path::PathBuf;
use std::sync::Arc;

use matriarch_ha::event::{Event, Local};
use serde_json::Value;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::agent;
use crate::api::site::Site;
use crate::config::{Config, Error, changes};
use crate::driver::handle::Handle;
use crate::logging::Logging;
use crate::postgres::Postgres;
use crate::tls::{Files, Tls};

/// Reloads whenever somebody asks for it, for ever.
pub async fn on_demand(
    mut hangup: Signal,
    handle: Handle,
    tls: Option<Arc<Tls>>,
    site: watch::Sender<Arc<Site>>,
    reloader: Reloader,
) {
    loop {
        let how = tokio::select! {
            _ = hangup.recv() => "SIGHUP",
            () = handle.reload_asked() => "POST /reload",
        };
        tracing::info!("{how}: the configuration is read again");
        // An error was said, and has changed nothing.
        let _ = reloader.reload();
        let config = reloader.config();
        if let Some((tls, files)) = tls.as_ref().zip(Files::configured(&config.restapi, &config.ctl))
            && let Err(error) = tls.reload(files)
        {
            tracing::warn!(%error, "the certificates cannot be used; the old ones stay");
        }
        let started = site.borrow().started;
        site.send_replace(Arc::new(Site::new(&config, started)));
    }
}

/// What came of a reload: keys in dots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In force, or on its way to PostgreSQL.
    pub applied: Vec<String>,
    /// Changed in the file, and in force only when the agent is started anew.
    pub later: Vec<String>,
    /// Changed in the file, and of use only while a new cluster is made.
    pub unused: Vec<String>,
}

/// Reads the configuration again and hands it to those who use it. Cheap to clone.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    config: watch::Sender<Arc<Config>>,
    /// As it was last read: what is later or unused is told once.
    document: std::sync::Mutex<Value>,
    postgres: Arc<Postgres>,
    logging: Logging,
    events: UnboundedSender<Event>,
}

impl Reloader {
    /// `path` is where `config` came from; none: the environment alone.
    pub fn new(
        path: Option<PathBuf>,
        config: Arc<Config>,
        postgres: Arc<Postgres>,
        logging: Logging,
        events: UnboundedSender<Event>,
    ) -> Self {
        let document = std::sync::Mutex::new(config.document.clone());
        Self(Arc::new(Inner { path, config: watch::Sender::new(config), document, postgres, logging, events }))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.0.config.borrow().clone()
    }

    /// Something that the configuration only points to has changed: passwords, certificates. PostgreSQL's files are written anew.
    pub fn refresh(&self) {
        let config = self.config();
        self.0.postgres.reconfigure(config.clone());
        // Fails only when the agent ends.
        let _ = self.0.events.send(Event::Local(Box::new(local(&config))));
    }

    /// Our PostgreSQL.
    pub fn postgres(&self) -> &Postgres {
        &self.0.postgres
    }

    /// Reads and applies. On an error nothing has changed.
    pub fn reload(&self) -> Result<Report, Error> {
        let read = Config::load(self.0.path.as_deref()).inspect_err(|error| {
            tracing::error!("the configuration is not reloaded, the former one stays in force: {error}");
        })?;
        self.apply(read)
    }

    fn apply(&self, read: Config) -> Result<Report, Error> {
        let inner = &*self.0;
        let old = self.config();
        let (new, report) = {
            let mut last = inner.document.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let report = changes::report(&last, &read.document);
            let new = Arc::new(old.with(&read.document)?);
            *last = read.document;
            (new, report)
        };
        for key in &report.later {
            tracing::warn!("{key} has changed: it comes into force when the agent is started anew");
        }
        for key in &report.unused {
            tracing::info!("{key} has changed: it is of use only while a new cluster is made");
        }
        let applied = if report.applied.is_empty() { "nothing".to_owned() } else { report.applied.join(", ") };
        tracing::info!("the configuration was read again; changed: {applied}");
        for warning in new.warnings() {
            tracing::warn!("{warning}");
        }
        inner.logging.configure(&new.log);
        inner.postgres.reconfigure(new.clone());
        // Fails only when the agent ends.
        let _ = inner.events.send(Event::Local(Box::new(local(&new))));
        inner.config.send_replace(new);
        Ok(report)
    }
}

/// What the core needs of it.
fn local(config: &Config) -> Local {
    let identity = agent::identity(config);
    Local {
        section: identity.local,
        tags: identity.tags,
        conn_url: identity.conn_url,
        proxy_url: identity.proxy_url,
        api_url: identity.api_url,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::supervisor::Supervisor;

    const FILE: &str = "
scope: orders
name: orders-1
restapi: {listen: '127.0.0.1:8009'}
postgresql:
  listen: 127.0.0.1:5433
  data_dir: /nonexistent/orders1
  authentication: {superuser: {password: one}, replication: {password: two}}
  parameters: {work_mem: 4MB}
";

    #[tokio::test]
    async fn what_can_be_changed_is_and_the_rest_is_told() {
        let path = std::env::temp_dir().join(format!("matriarch-reload-{}.yml", std::process::id()));
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(FILE);
        let config = Arc::new(Config::load(Some(&path)).unwrap());
        let (events, mut received) = unbounded_channel();
        let supervisor = Supervisor::connect("/nonexistent/supervisor.sock".into(), unbounded_channel().0);
        let postgres = Arc::new(Postgres::new(config.clone(), supervisor));
        let reloader = Reloader::new(Some(path.clone()), config, postgres, Logging::default(), events);

        write(
            &FILE
                .replace("4MB", "8MB")
                .replace("5433", "5444")
                .replace("password: one", "password: three")
                .replace("scope: o", "scope: b"),
        );
        let report = reloader.reload().unwrap();
        assert_eq!(report.applied, ["postgresql.authentication", "postgresql.parameters.work_mem"]);
        assert_eq!(report.later, ["postgresql.listen", "scope"]);
        let config = reloader.config();
        assert_eq!((config.scope.as_str(), config.postgres.port), ("orders", 5433));
        assert_eq!(config.credentials(crate::config::User::Superuser).unwrap().password, "three");
        let Some(Event::Local(local)) = received.recv().await else { panic!("the core is not told") };
        assert_eq!(local.section["parameters"]["work_mem"], "8MB");
        // What waits for the next start is told once.
        assert_eq!(reloader.reload().unwrap(), Report::default());

        // A broken file changes nothing.
        for broken in ["scope: [", &FILE.replace("listen: 127.0.0.1:5433", "listen: here"), "log: {level: LOUD}"] {
            write(broken);
            reloader.reload().unwrap_err();
            assert!(Arc::ptr_eq(&config, &config) && reloader.config().postgres.port == 5433);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
