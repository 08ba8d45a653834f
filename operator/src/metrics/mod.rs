//! What the operator counts, in Prometheus' text format. `golden.txt` names all of it.

mod api;
mod server;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use matriarch_crds::PostgresCluster;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use api::Counted;
pub use server::{Error, serve};

type Labels<const N: usize> = [(&'static str, String); N];

/// Of a reconcile: most write nothing and take milliseconds.
const BUCKETS: [f64; 8] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// All metrics, and whether this process is ready.
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    reconciles: Family<Labels<1>, Counter>,
    running: Gauge,
    duration: Histogram,
    errors: Family<Labels<1>, Counter>,
    requests: Family<Labels<3>, Counter>,
    instances: Family<Labels<2>, Gauge>,
    ready_instances: Family<Labels<2>, Gauge>,
    conditions: Family<Labels<3>, Gauge>,
    clusters: Mutex<Vec<Store<PostgresCluster>>>,
    ready: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("matriarch"),
            leader: Gauge::default(),
            reconciles: Family::default(),
            running: Gauge::default(),
            duration: Histogram::new(BUCKETS),
            errors: Family::default(),
            requests: Family::default(),
            instances: Family::default(),
            ready_instances: Family::default(),
            conditions: Family::default(),
            clusters: Mutex::default(),
            ready: AtomicBool::default(),
        };
        all.register();
        all
    }
}

impl Metrics {
    fn register(&mut self) {
        let to = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        to.register("operator", "Version of the operator", version);
        to.register("operator_leader", "1 for the operator that holds the Lease and works", self.leader.clone());
        to.register(
            "operator_reconciles",
            "Reconciles that ended, by result: done, conflict (somebody else wrote first) or error",
            self.reconciles.clone(),
        );
        to.register("operator_reconciles_running", "Reconciles that are under way", self.running.clone());
        to.register("operator_reconcile_duration_seconds", "How long a reconcile took", self.duration.clone());
        to.register("operator_errors", "Errors by category", self.errors.clone());
        to.register(
            "operator_api_requests",
            "Requests to the API server by verb, resource and HTTP status",
            self.requests.clone(),
        );
        to.register("cluster_instances", "Members that the spec wants", self.instances.clone());
        to.register("cluster_instances_ready", "Members that are ready", self.ready_instances.clone());
        to.register(
            "cluster_condition",
            "Conditions of a PostgresCluster: 1 while the status is True",
            self.conditions.clone(),
        );
    }

    /// Whether this operator holds the Lease.
    pub fn lead(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// It waits for the Lease, or works with full caches.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// For the readiness probe.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Clusters that are looked at whenever metrics are asked for.
    pub fn show(&self, clusters: Store<PostgresCluster>) {
        if let Ok(mut all) = self.clusters.lock() {
            all.push(clusters);
        }
    }

    /// A reconcile begins; it ends when the result is dropped.
    pub fn begin(&self) -> Running<'_> {
        self.running.inc();
        Running { metrics: self, since: Instant::now() }
    }

    /// A reconcile ended: `done`, `conflict` or `error`.
    pub fn reconciled(&self, result: &str) {
        self.reconciles.get_or_create(&[("result", result.to_owned())]).inc();
    }

    /// Something failed.
    pub fn error(&self, category: &str) {
        self.errors.get_or_create(&[("category", category.to_owned())]).inc();
    }

    /// Counts what a client asks the API server for.
    pub fn count_requests<S>(&self, inner: S) -> Counted<S> {
        Counted::new(inner, self.requests.clone())
    }

    /// All of them as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        // Held until the text is made: a second scrape must not clear what this one writes.
        let clusters = self.clusters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.instances.clear();
        self.ready_instances.clear();
        self.conditions.clear();
        for cluster in clusters.iter().flat_map(Store::state) {
            self.cluster(&cluster);
        }
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn cluster(&self, cluster: &PostgresCluster) {
        let name = || [("namespace", cluster.namespace().unwrap_or_default()), ("cluster", cluster.name_any())];
        let status = cluster.status.as_ref();
        self.instances.get_or_create(&name()).set(cluster.spec.instances.into());
        self.ready_instances.get_or_create(&name()).set(status.map_or(0, |s| s.ready_instances.into()));
        for condition in status.iter().flat_map(|s| &s.conditions) {
            let [namespace, cluster] = name();
            let labels = [namespace, cluster, ("condition", condition.type_.clone())];
            self.conditions.get_or_create(&labels).set(i64::from(condition.status == "True"));
        }
    }
}

/// A reconcile that is under way.
pub struct Running<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.metrics.duration.observe(self.since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
