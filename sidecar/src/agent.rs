//! `matriarch-sidecar run patroni.yml`: all parts are made here and joined.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use matriarch_ha::core::{Core, Identity};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

use crate::api::{Site, server};
use crate::config::Config;
use crate::driver::handle::Handle;
use crate::driver::{self, Ended, World, clock};
use crate::peers::{Peers, Sender};
use crate::postgres::Postgres;
use crate::store::{Store, connect};
use crate::supervisor::Supervisor;
use crate::tls::{Files, Tls};

/// Between two looks for certificates that are not there yet.
const TLS_RETRY: Duration = Duration::from_secs(1);

/// Runs the agent to its end.
pub async fn run(path: &Path) -> anyhow::Result<()> {
    let config = Arc::new(Config::load(path)?);
    tracing::info!(
        scope = %config.scope,
        member = %config.pod.name,
        pod.uid = %config.pod.uid,
        version = env!("CARGO_PKG_VERSION"),
        "the agent starts"
    );
    for conflict in config.tags.conflicts() {
        tracing::warn!("{conflict}");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let agent = async {
        let tls = tls(&config).await.map(Arc::new);
        let client = connect::client(config.kubernetes.context.as_deref()).await?;
        let (events, received) = unbounded_channel();
        let (handle, end) = Handle::new();
        let identity = identity(&config);

        let site = Site { scope: config.scope.clone(), tags: config.tags.published.clone(), started: clock::boot() };
        let listen = config.restapi.listen.to_string();
        let listener = server::listen(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        tokio::spawn(server::serve(listener, tls.clone(), handle, Arc::new(site)));

        let supervisor = Supervisor::connect(config.matriarch.supervisor_socket.clone(), events.clone());
        let sender = Sender { conn_url: identity.conn_url.clone(), api_url: identity.api_url.clone() };
        let world = World {
            store: Store::new(client, config.clone(), events.clone()),
            postgres: Arc::new(Postgres::new(config.clone(), supervisor.clone())),
            peers: Arc::new(Peers::new(tls, sender)),
            supervisor,
            events,
        };
        anyhow::Ok(driver::run(Core::new(identity), world, received, end).await?)
    };
    tokio::select! {
        ended = agent => match ended? {
            Ended::Finished => {
                tracing::info!("nothing is left to do in this pod");
                Ok(())
            }
            Ended::Failed(reason) => Err(anyhow::anyhow!(reason)),
        },
        // The kubelet stops sidecars when PostgreSQL has ended, or to put a newer agent in our place: then PostgreSQL goes on, and
        // its fence with it. Nothing may be done here in either case.
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: the agent ends, PostgreSQL does not");
            Ok(())
        }
    }
}

/// The certificates, as soon as they are there; none: none are configured.
async fn tls(config: &Config) -> Option<Tls> {
    let cert = config.restapi.certfile.clone()?;
    let key = config.restapi.keyfile.clone().unwrap_or_else(|| cert.clone());
    let ca = config.restapi.cafile.clone().unwrap_or_else(|| cert.clone());
    let files = Files { cert, key, ca };
    let mut said = String::new();
    loop {
        match Tls::load(files.clone()) {
            Ok(tls) => return Some(tls),
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!("waiting for certificates: {text}");
                    said = text;
                }
                tokio::time::sleep(TLS_RETRY).await;
            }
        }
    }
}

/// Who we are, for the core.
pub fn identity(config: &Config) -> Identity {
    let names = config.names();
    let host = config.host();
    let scheme = if config.restapi.certfile.is_some() { "https" } else { "http" };
    Identity {
        name: config.pod.name.clone(),
        uid: config.pod.uid.clone(),
        ip: config.pod.ip.clone(),
        leader_object: names.leader(),
        config_object: names.config(),
        failover_object: names.failover(),
        sync_object: names.sync(),
        slice: (!config.kubernetes.use_endpoints).then(|| config.matriarch.slice.clone()),
        conn_url: format!("postgres://{host}:{}/postgres", config.postgres.port),
        api_url: format!("{scheme}://{host}:{}/patroni", config.restapi.listen.port()),
        role_label: config.kubernetes.role_label.clone(),
        tags: config.tags.clone(),
        bootstrap_config: config.bootstrap_dcs.clone(),
    }
}
