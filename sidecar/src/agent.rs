//! `matriarch-sidecar run patroni.yml`: all parts are made here and joined.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use matriarch_ha::core::{Core, Identity};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;

use crate::api::{Site, server};
use crate::config::Config;
use crate::declared;
use crate::driver::handle::Handle;
use crate::driver::{self, Ended, World, clock};
use crate::heartbeat;
use crate::logging::Logging;
use crate::mounted;
use crate::peers::{Peers, Sender};
use crate::postgres::Postgres;
use crate::reload::{self, Reloader};
use crate::store::{Store, connect, own_pod};
use crate::supervisor::Supervisor;
use crate::supervisor::launch::Launcher;
use crate::tls::{Files, Tls};

/// Between two looks for certificates that are not there yet.
const TLS_RETRY: Duration = Duration::from_secs(1);

/// Runs the agent to its end.
pub async fn run(path: Option<&Path>, logging: Logging) -> anyhow::Result<()> {
    let mut config = Config::load(path)?;
    logging.configure(&config.log);
    tracing::info!(
        scope = %config.scope,
        member = %config.pod.name,
        pod.uid = %config.pod.uid,
        version = env!("CARGO_PKG_VERSION"),
        "the agent starts"
    );
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut asked_to_end = Termination::new()?;
    // From here on SIGHUP ends nobody.
    let hangup = signal(SignalKind::hangup())?;
    let launcher = if config.own_supervisor { Some(Launcher::prepare(&mut config)?) } else { None };
    let client = connect::client(config.kubernetes.context.as_deref()).await?;
    tokio::select! {
        () = own_pod::identify(&client, &mut config) => {}
        () = asked_to_end.asked() => return Ok(()),
    }
    let config = Arc::new(config);
    let (events, received) = unbounded_channel();
    let socket = config.matriarch.supervisor_socket.clone();
    let supervisor = Supervisor::launch_and_connect(socket, events.clone(), launcher);
    let (handle, end) = Handle::new();
    let agent = async {
        let tls = tls(&config).await.map(Arc::new);
        let identity = identity(&config);

        let (shown, site) = watch::channel(Arc::new(Site::new(&config, clock::boot())));
        let listen = &config.restapi.listen;
        let listener = server::listen(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        tokio::spawn(server::serve(listener, tls.clone(), handle.clone(), site));

        let postgres = Arc::new(Postgres::new(config.clone(), supervisor.clone()));
        let reloader =
            Reloader::new(path.map(Path::to_owned), config.clone(), postgres.clone(), logging, events.clone());
        tokio::spawn(declared::keep(handle.clone(), reloader.clone(), events.clone()));
        tokio::spawn(mounted::keep(handle.clone(), tls.clone(), reloader.clone()));
        tokio::spawn(heartbeat::keep(handle.clone(), reloader.clone()));
        tokio::spawn(reload::on_demand(hangup, handle.clone(), tls.clone(), shown, reloader));

        let sender = Sender::new(&config, identity.conn_url.clone(), identity.api_url.clone());
        let world = World {
            store: Store::new(client, config.clone(), events.clone()),
            postgres,
            peers: Arc::new(Peers::new(tls, sender)),
            supervisor: supervisor.clone(),
            events,
        };
        anyhow::Ok(driver::run(Core::new(identity), world, received, end).await?)
    };
    let leave = async {
        asked_to_end.asked().await;
        // In the operator's pods the kubelet stops sidecars when PostgreSQL has ended, or to put a newer agent in our place: then
        // PostgreSQL goes on, and its fence with it. Nothing may be done here in either case. In pause nothing is stopped.
        if !config.own_supervisor {
            return;
        }
        if handle.view().paused {
            paused(handle.clone()).await;
            return;
        }
        if !supervisor.terminate() {
            return;
        }
        tracing::info!("SIGTERM: PostgreSQL is stopped and the lock released; a second signal ends the agent at once");
        asked_to_end.asked().await;
    };
    tokio::select! {
        ended = agent => match ended? {
            Ended::Finished => {
                tracing::info!("nothing is left to do here");
                Ok(())
            }
            Ended::Failed(reason) => Err(anyhow::anyhow!(reason)),
        },
        () = leave => {
            tracing::info!("SIGTERM: the agent ends");
            Ok(())
        }
    }
}

/// Waits until pause is in force: PostgreSQL is to go on without us, and would be fenced as long as its fence is not lifted. Without
/// a store that comes never, and after a ttl nothing is left to wait for.
async fn paused(mut handle: Handle) {
    let limit = Duration::from_millis(handle.view().ttl_ms);
    let in_force = async { while handle.view().pausing && handle.changed().await {} };
    if tokio::time::timeout(limit, in_force).await.is_err() {
        tracing::warn!("the fence could not be lifted: PostgreSQL will be stopped by it");
    }
}

/// SIGTERM, or SIGINT of a terminal.
struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The certificates, as soon as they are there; none: none are configured.
async fn tls(config: &Config) -> Option<Tls> {
    let files = Files::configured(&config.restapi, &config.ctl)?;
    if files.servers.is_none() {
        tracing::warn!("the certificates of other members are not verified: write who signs them in restapi.cafile");
    }
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
    let scheme = if config.restapi.certfile.is_some() { "https" } else { "http" };
    let slice = config.matriarch.slice.clone().filter(|_| !config.kubernetes.use_endpoints);
    let sends_clients = slice.is_some() || config.kubernetes.use_endpoints;
    Identity {
        name: config.pod.name.clone(),
        uid: config.pod.uid.clone(),
        ip: if sends_clients { config.pod.ip.clone() } else { String::new() },
        leader_object: names.leader(),
        config_object: names.config(),
        failover_object: names.failover(),
        sync_object: names.sync(),
        slice,
        conn_url: format!("postgres://{}/{}", config.postgres.connect, config.postgres.database),
        proxy_url: config
            .postgres
            .proxy
            .as_ref()
            .map(|proxy| format!("postgres://{proxy}/{}", config.postgres.database)),
        api_url: format!("{scheme}://{}/patroni", config.api),
        role_label: config.kubernetes.role_label.clone(),
        standby_leader_label: config.kubernetes.standby_leader_label_value.clone(),
        bootstrap_labels: config.kubernetes.bootstrap_labels.clone(),
        leader_label: config.kubernetes.leader_label_value.clone(),
        follower_label: config.kubernetes.follower_label_value.clone(),
        tmp_role_label: config.kubernetes.tmp_role_label.clone(),
        tags: config.tags.clone(),
        bootstrap_config: config.bootstrap_dcs.clone(),
        local: config.local.clone(),
    }
}

#[cfg(test)]
mod tests {
    use matriarch_ha::view::View;

    use super::*;

    #[tokio::test]
    async fn an_agent_that_ends_in_pause_waits_until_the_fence_is_lifted() {
        let (handle, end) = Handle::new();
        let view = |pausing, ttl_ms| Arc::new(View { paused: true, pausing, ttl_ms, ..View::default() });
        end.view.send_replace(view(true, 60_000));
        let mut waits = tokio::spawn(paused(handle.clone()));
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut waits).await.is_err(), "it has ended");
        end.view.send_replace(view(false, 60_000));
        tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap().unwrap();
        // And not for ever.
        end.view.send_replace(view(true, 10));
        tokio::time::timeout(Duration::from_secs(5), paused(handle)).await.unwrap();
    }
}
