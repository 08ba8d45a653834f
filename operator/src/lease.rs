//! One operator works at a time: a Lease that the others wait for.
//!
//! Clocks are never compared: a waiting operator counts from the moment at which it saw the Lease change. One that is
//! told to stop ends its work first, while it still renews, and then gives the Lease up, so that the next works at once.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

/// After this long without a renewal the Lease is free: an operator that dies is replaced after 15 s, which no
/// failover waits for.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed: three tries fit in.
const RENEW: Duration = Duration::from_secs(5);
/// For how long the work may go on after it was told to end: less than the 30 s that the kubelet gives.
const LAST_WORK: Duration = Duration::from_secs(20);
/// For how long giving the Lease up may take.
const RELEASE: Duration = Duration::from_secs(3);
/// What is left of a Lease that nobody holds, in seconds: as short as Kubernetes lets it be.
const RELEASED: i32 = 1;

/// The Lease, as one operator sees it.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    me: String,
    /// How often it is renewed.
    renew: Duration,
    /// Until when it is held for sure: before that nobody else takes it.
    until: Instant,
    /// resourceVersion seen last, and since when it is the same.
    unchanged: Option<(String, Instant)>,
}

/// Why an operator works no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and the Lease is free.
    Released,
    /// It was told to and did not come to an end: what was under way is dropped, and the Lease runs out by itself.
    Dropped,
    /// The Lease is lost: somebody else may work now.
    Lost,
    /// The work ended by itself.
    ByItself,
}

/// Works for as long as the Lease is held (without one: for ever). When `stop` comes, `tell` says so to the work; it
/// ends while the Lease is renewed on, and only then is the Lease given up: two operators never write at once.
pub async fn work(
    mut leadership: Option<Leadership>,
    work: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
    tell: impl FnOnce(),
) -> Ended {
    {
        let mut work = pin!(work);
        let mut hold = pin!(async {
            match &mut leadership {
                Some(leadership) => leadership.hold().await,
                None => std::future::pending().await,
            }
        });
        tokio::select! {
            biased;
            () = &mut hold => return Ended::Lost,
            () = &mut work => return Ended::ByItself,
            () = stop => tell(),
        }
        tokio::select! {
            biased;
            () = &mut hold => return Ended::Lost,
            () = &mut work => {}
            () = sleep(LAST_WORK) => return Ended::Dropped,
        }
    }
    if let Some(leadership) = leadership {
        leadership.release().await;
    }
    Ended::Released
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
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            renew: RENEW,
            until: Instant::now(),
            unchanged: None,
        }
    }

    /// Returns when the Lease is held. `waiting` is called whenever somebody else has it.
    pub async fn acquire(&mut self, waiting: impl Fn()) {
        loop {
            let sent = Instant::now();
            match self.attempt().await {
                Ok(true) => {
                    info!(lease.holder = self.me, "leading");
                    self.until = sent + 2 * self.renew;
                    return;
                }
                Ok(false) => waiting(),
                Err(error) => warn!(%error, "cannot take the lease, trying again"),
            }
            sleep(self.renew / 2).await;
        }
    }

    /// Renews until that fails for too long; then this process must not go on. It ends before anybody else may take the
    /// Lease, for it counts from when a renewal was sent, and two thirds of the duration only.
    async fn hold(&mut self) {
        let mut pause = self.renew;
        while timeout_at(self.until, sleep(pause)).await.is_ok() {
            let sent = Instant::now();
            match timeout_at(self.until, self.attempt()).await {
                Ok(Ok(true)) => {
                    self.until = sent + 2 * self.renew;
                    pause = self.renew;
                }
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    warn!(%error, "cannot renew the lease, trying again");
                    pause = self.renew / 5;
                }
                Err(_) => warn!("renewing the lease took too long"),
            }
        }
    }

    /// Leaves the Lease to whoever wants it. It must not be needed any more.
    async fn release(&self) {
        // A renewal that was given up may arrive all the same: then it is read again.
        for _ in 0..2 {
            match timeout(RELEASE, self.vacate()).await {
                Ok(Ok(true)) => return info!(lease.holder = self.me, "the lease is released"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => return warn!(%error, "the lease is not released: it runs out by itself"),
                Err(_) => return warn!("releasing the lease took too long: it runs out by itself"),
            }
        }
    }

    /// Takes one's own name out, by compare-and-swap; false: somebody else wrote in between.
    async fn vacate(&self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await.map_err(call("read"))? else { return Ok(true) };
        let spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.me) {
            return Ok(true);
        }
        let now = Some(MicroTime(Timestamp::now()));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(RELEASED),
            acquire_time: now.clone(),
            renew_time: now,
            ..spec
        });
        lease.metadata.managed_fields = None;
        settled(self.api.replace(&self.name, &PostParams::default(), &lease).await.map_err(call("release")))
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

#[cfg(test)]
mod tests;
