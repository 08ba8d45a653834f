//! The controller: a queue of clusters, one `observe → plan → apply → report` for each that something happened to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use matriarch_crds::names::OPERATOR;
use matriarch_crds::{PostgresCluster, PostgresClusterStatus};
use serde_json::json;
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use crate::next_step::{Step, wait as step};
use crate::observe::{self, Seen, observe};
use crate::plan::plan;
use crate::status::{Outcome, difference, status};
use crate::watch::Stores;
use crate::{apply, events, watch};

/// Everything is looked at again after this long, for what no watch shows: certificates grow old.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_mins(10);
/// The same, while something that no watch shows is waited for.
const WAITING: Duration = Duration::from_secs(5);
/// The same, while a person or the clock is waited for.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);
/// The same, while a kind that the spec asks for is not known: no watch shows its definition.
const DEFINITION_MISSING: Duration = Duration::from_mins(1);
/// The same, where the spec names Secrets of the user's own, which no watch shows.
const SECRETS_NAMED: Duration = Duration::from_mins(1);
/// After an error, and after somebody else's write came first.
const AFTER_ERROR: Duration = Duration::from_secs(10);
const AFTER_CONFLICT: Duration = Duration::from_millis(500);
/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// Writing.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Writing the status.
    #[error("cannot write the status: {0}")]
    Status(#[source] Box<kube::Error>),
}

impl Error {
    /// For metrics and conditions.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Observe(e) => e.category(),
            Self::Apply(e) => e.category(),
            Self::Status(_) => "StatusFailed",
        }
    }
}

/// What every reconcile needs.
struct Context {
    client: Client,
    stores: Stores,
    sidecar_image: String,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

/// What the operator is told at its start.
pub struct Settings {
    /// The namespaces whose clusters it looks at; empty: all.
    pub namespaces: Vec<String>,
    /// Image of agent and supervisor.
    pub sidecar_image: String,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

/// Runs until `stop` or until a watch task ends, which it should not. Each namespace has watches and a queue of its own.
pub async fn run(client: Client, settings: Settings, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let Settings { namespaces, sidecar_image, metrics } = settings;
    let namespaces: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let stop = stop.shared();
    let filling = Arc::new(AtomicUsize::new(namespaces.len()));
    let mut all: FuturesUnordered<_> = namespaces
        .into_iter()
        .map(|namespace| {
            let filled = {
                let (filling, metrics) = (filling.clone(), metrics.clone());
                move || {
                    if filling.fetch_sub(1, Ordering::Relaxed) == 1 {
                        metrics.set_ready();
                    }
                }
            };
            one(client.clone(), namespace, sidecar_image.clone(), metrics.clone(), filled, stop.clone())
        })
        .collect();
    // One that ends without being told to takes the process with it.
    all.next().await;
    if stop.peek().is_some() {
        while all.next().await.is_some() {}
    }
}

async fn one(
    client: Client,
    namespace: Option<String>,
    sidecar_image: String,
    metrics: Arc<Metrics>,
    filled: impl FnOnce(),
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let (stores, mut woken, mut watches) = watch::start(&client, namespace.as_deref());
    tokio::select! {
        () = ready(&stores, &mut woken) => {}
        () = stop.clone() => return, // the API server may not answer at all
    }
    filled();
    info!(sidecar.image = sidecar_image, namespace = namespace.as_deref().unwrap_or("(all)"), "ready");
    let api: Api<PostgresCluster> = match &namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let reporter = Reporter { controller: OPERATOR.to_owned(), instance: None };
    let recorder = Recorder::new(client.clone(), reporter);
    let context = Arc::new(Context { recorder, client, stores, sidecar_image, metrics: metrics.clone() });
    let controller = Controller::new(api, watcher::Config::default());
    metrics.show(controller.store());
    let controller = controller
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(8))
        .reconcile_on(woken)
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, context)
        .for_each(|outcome| {
            report(&metrics, outcome);
            std::future::ready(())
        });
    tokio::select! {
        () = controller => {}
        ended = watches.join_next() => warn!(?ended, "a watch ended"),
    }
}

/// Returns when the caches are filled. Who is woken until then is forgotten: the controller begins with every cluster
/// anyway. But it has to be listened to, or the first lists of some ten clusters would fill the channel and never end.
async fn ready(stores: &Stores, woken: &mut (impl futures::Stream + Unpin)) {
    let mut ready = std::pin::pin!(stores.ready());
    loop {
        tokio::select! {
            () = &mut ready => return,
            Some(_) = woken.next() => {}
        }
    }
}

fn on_error(_: Arc<PostgresCluster>, _: &Error, _: Arc<Context>) -> Action {
    Action::requeue(AFTER_ERROR)
}

/// The one place where outcomes are logged and counted.
fn report<Q: std::error::Error + 'static>(
    metrics: &Metrics,
    outcome: Result<
        (kube::runtime::reflector::ObjectRef<PostgresCluster>, Action),
        kube::runtime::controller::Error<Error, Q>,
    >,
) {
    use kube::runtime::controller::Error as Failure;
    match outcome {
        Ok((cluster, _)) => debug!(%cluster, "reconciled"),
        Err(Failure::ReconcilerFailed(error, cluster)) => {
            metrics.reconciled("error");
            metrics.error(error.category());
            warn!(%error, error.category = error.category(), %cluster, "reconcile failed, it is tried again");
        }
        // A pod or lock of a cluster that is gone.
        Err(Failure::ObjectNotFound(cluster)) => debug!(%cluster, "no such cluster"),
        Err(error) => {
            metrics.error("QueueFailed");
            warn!(%error, "the queue failed");
        }
    }
}

async fn reconcile(cluster: Arc<PostgresCluster>, context: Arc<Context>) -> Result<Action, Error> {
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let _running = context.metrics.begin();
    let seen = observe(&context.client, &context.stores, &cluster, &context.sidecar_image).await?;
    let plan = plan(&seen);
    let result = apply::apply(&context.client, &seen, &plan.writes).await;
    let conflict = matches!(&result, Err(e) if e.is_conflict());
    let outcome = match &result {
        Err(e) if !conflict => Outcome::Failed { category: e.category(), message: e.to_string() },
        Ok(refused) if !refused.is_empty() => Outcome::CannotGrow(refused.clone()),
        _ => Outcome::Done,
    };
    let taken = (result.is_ok()).then_some(&plan.step);
    tell(&context, &seen, &status(&seen, &plan.step, &outcome), taken).await?;
    if conflict {
        context.metrics.reconciled("conflict");
        return Ok(Action::requeue(AFTER_CONFLICT));
    }
    result?;
    context.metrics.reconciled("done");
    Ok(Action::requeue(look_again(&seen, &plan.step, &outcome)))
}

/// When to look again, if no watch says so before.
pub(crate) fn look_again(seen: &Seen, next: &Step, outcome: &Outcome) -> Duration {
    let waiting = step::reason(next).is_some() || seen.user_secrets.iter().any(|s| s.lacks.is_some());
    let waiting = waiting && !step::patient(next);
    let missing = seen.cluster.spec.monitoring.pod_monitor && !seen.knows_pod_monitors;
    // No watch shows that a storage class lets volumes grow now.
    let patient = step::patient(next) || matches!(outcome, Outcome::CannotGrow(_));
    match (waiting, missing, seen.named_secrets.is_empty()) {
        (true, ..) => WAITING,
        _ if patient => PATIENT,
        (_, true, _) => DEFINITION_MISSING,
        (.., false) => SECRETS_NAMED,
        _ => LOOK_AGAIN,
    }
}

/// Status and events.
async fn tell(context: &Context, seen: &Seen, new: &PostgresClusterStatus, taken: Option<&Step>) -> Result<(), Error> {
    let old = seen.cluster.status.as_ref();
    if difference(old, new) {
        let body = json!({
            "apiVersion": PostgresCluster::api_version(&()),
            "kind": PostgresCluster::kind(&()),
            "status": new,
        });
        Api::<PostgresCluster>::namespaced(context.client.clone(), &seen.namespace())
            .patch_status(&seen.cluster.name_any(), &PatchParams::apply(OPERATOR).force(), &Patch::Apply(body))
            .await
            .map_err(|e| Error::Status(Box::new(e)))?;
    }
    for event in events::events(old, new, taken) {
        info!(
            cluster = seen.name(),
            namespace = seen.namespace(),
            event.reason = event.reason,
            event.note = event.note,
            "event"
        );
        if let Err(error) = context.recorder.publish(&event, &seen.cluster.object_ref(&())).await {
            context.metrics.error("EventFailed");
            warn!(%error, event.reason, "cannot publish an event");
        }
    }
    Ok(())
}
