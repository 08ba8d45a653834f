//! One operator works at a time: a Lease that the others wait for.
//!
//! Clocks are never compared: a waiting operator counts from the moment at which it saw the Lease change.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::sleep;
use tracing::{info, warn};

/// After this long without a renewal the Lease is free: an operator that dies is replaced after 15 s, which no
/// failover waits for.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed: three tries fit in.
const RENEW: Duration = Duration::from_secs(5);

/// The Lease, as one operator sees it.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    me: String,
    /// resourceVersion seen last, and since when it is the same.
    unchanged: Option<(String, Instant)>,
}

/// Why the Lease could not be taken or renewed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("cannot {verb} the Lease: {source}")]
    Call {
        /// What was tried.
        verb: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

fn call(verb: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Call { verb, source: Box::new(source) }
}

impl Leadership {
    /// For the Lease `name` in `namespace`; `me` is unique to this process (the pod's name).
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), me: me.to_owned(), unchanged: None }
    }

    /// Returns when the Lease is held. `waiting` is called whenever somebody else has it.
    pub async fn acquire(&mut self, waiting: impl Fn()) {
        loop {
            match self.attempt().await {
                Ok(true) => {
                    info!(lease.holder = self.me, "leading");
                    return;
                }
                Ok(false) => waiting(),
                Err(error) => warn!(%error, "cannot take the lease, trying again"),
            }
            sleep(RENEW / 2).await;
        }
    }

    /// Renews until that fails for too long; then this process must not go on.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < DURATION.saturating_sub(RENEW) {
            sleep(RENEW).await;
            let sent = Instant::now();
            match tokio::time::timeout(RENEW, self.attempt()).await {
                Ok(Ok(true)) => renewed = sent,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => warn!(%error, "cannot renew the lease, trying again"),
                Err(_) => warn!("renewing the lease took too long, trying again"),
            }
        }
    }

    /// Takes or renews it; whether it is held now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await.map_err(call("read"))? else {
            let lease = Lease {
                metadata: kube::core::ObjectMeta { name: Some(self.name.clone()), ..Default::default() },
                spec: Some(self.spec(0, Timestamp::now())),
            };
            return settled(self.api.create(&PostParams::default(), &lease).await.map_err(call("create")));
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.resource_version().unwrap_or_default();
        let mine = holder == self.me;
        if !mine && !holder.is_empty() && !self.silent(&version) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(!mine);
        let acquired = spec.acquire_time.filter(|_| mine).map_or_else(Timestamp::now, |t| t.0);
        lease.spec = Some(self.spec(transitions, acquired));
        lease.metadata.managed_fields = None;
        settled(self.api.replace(&self.name, &PostParams::default(), &lease).await.map_err(call("renew")))
    }

    /// Whether the record has been the same for the whole duration.
    fn silent(&mut self, version: &str) -> bool {
        match &self.unchanged {
            Some((seen, since)) if seen == version => since.elapsed() > DURATION,
            _ => {
                self.unchanged = Some((version.to_owned(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, transitions: i32, acquired: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// A conflict is somebody else who was faster.
fn settled(result: Result<Lease, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Call { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 409) => Ok(false),
        Err(other) => Err(other),
    }
}
