//! Watch caches of everything that belongs to clusters, and which of their changes wake a reconcile.
//!
//! The leader renews its lock every few seconds: such a change is seen here and goes no further.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use kube::core::DynamicObject;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use matriarch_crds::PostgresCluster;
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, SCOPE_LABEL};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::kinds::Kind;
use crate::nodes::{self, Node, Nodes};
use crate::observe::cluster_ref;
use crate::optional;

/// Annotations that change while nothing happens.
const HEARTBEAT: [&str; 5] = ["renewTime", "optime", "slots", "retain_slots", "failsafe"];

/// One cache a kind, and the nodes'.
#[derive(Clone)]
pub struct Stores {
    by_kind: BTreeMap<Kind, Store<DynamicObject>>,
    knows_pod_monitors: watch::Receiver<bool>,
    nodes: Nodes,
}

impl Stores {
    /// All caches.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Store<DynamicObject>)> {
        self.by_kind.iter().map(|(kind, store)| (*kind, store))
    }

    /// Returns when every cache has had its first list.
    pub async fn ready(&self) {
        for (_, store) in self.by_kind.iter().filter(|(kind, _)| !kind.is_optional()) {
            // An error means that the watch task is gone: `start`'s tasks are watched elsewhere.
            drop(store.wait_until_ready().await);
        }
        self.nodes.ready().await;
    }

    /// The nodes; None where the operator may not see them.
    pub fn nodes(&self) -> Option<BTreeMap<String, Node>> {
        self.nodes.get()
    }

    /// Whether the cluster has the kind PodMonitor.
    pub fn knows_pod_monitors(&self) -> bool {
        *self.knows_pod_monitors.borrow()
    }
}

/// Starts a watch for each kind. Clusters whose objects changed come out of the receiver; the tasks never end.
pub fn start(
    client: &Client,
    namespace: Option<&str>,
) -> (Stores, mpsc::Receiver<ObjectRef<PostgresCluster>>, JoinSet<()>) {
    let (wake, woken) = mpsc::channel(256);
    let mut tasks = JoinSet::new();
    let mut by_kind = BTreeMap::new();
    let (known, knows_pod_monitors) = watch::channel(false);
    let mut pods = None;
    for kind in Kind::ALL {
        let resource = kind.resource();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let mut writer = reflector::store::Writer::new(resource.clone());
        by_kind.insert(kind, writer.as_reader());
        if kind == Kind::Pod {
            pods = Some(writer.as_reader());
        }
        if kind.is_optional() {
            let (client, known, wake) = (client.clone(), known.clone(), wake.clone());
            tasks.spawn(async move {
                loop {
                    optional::appears(&client, &resource).await;
                    known.send_replace(true);
                    run(kind, &api, &mut writer, &wake).await;
                    known.send_replace(false);
                }
            });
        } else {
            let wake = wake.clone();
            tasks.spawn(async move { run(kind, &api, &mut writer, &wake).await });
        }
    }
    let pods = pods.unwrap_or_else(|| unreachable!("pods are among all kinds"));
    let (nodes, task) = nodes::start(client, pods, wake);
    tasks.spawn(task);
    (Stores { by_kind, knows_pod_monitors, nodes }, woken, tasks)
}

/// Watches for ever; an optional kind, until the cluster knows it no longer.
async fn run(
    kind: Kind,
    api: &Api<DynamicObject>,
    writer: &mut reflector::store::Writer<DynamicObject>,
    wake: &mpsc::Sender<ObjectRef<PostgresCluster>>,
) {
    let mut wake = wake.clone();
    let config = watcher::Config::default().labels(&format!("{APPLICATION_LABEL}={APPLICATION}"));
    let stream = watcher(api.clone(), config).modify(|object| object.managed_fields_mut().clear()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut seen: HashMap<(String, String), u64> = HashMap::new();
    while let Some(event) = stream.next().await {
        if let Ok(event) = &event {
            writer.apply_watcher_event(event);
        }
        let (object, gone) = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
            Ok(watcher::Event::Delete(object)) => (object, true),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                if kind.is_optional() && status.code == 404 =>
            {
                return;
            }
            Err(error) => {
                warn!(%error, object.kind = ?kind, "watch is broken, it is tried again");
                continue;
            }
        };
        let Some(cluster) = object.labels().get(SCOPE_LABEL) else { continue };
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let matters = if gone {
            seen.remove(&key).is_some()
        } else {
            let print = fingerprint(&object);
            seen.insert(key.clone(), print) != Some(print)
        };
        if matters && wake.send(cluster_ref(cluster, &key.0)).await.is_err() {
            break;
        }
    }
}

/// Of everything that the operator looks at.
fn fingerprint(object: &DynamicObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.uid().hash(&mut hasher);
    object.labels().hash(&mut hasher);
    for (key, value) in object.annotations().iter().filter(|(key, _)| !HEARTBEAT.contains(&key.as_str())) {
        (key, value).hash(&mut hasher);
    }
    object.owner_references().len().hash(&mut hasher);
    object.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    object.data.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lock(annotations: &serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "orders-leader", "annotations": annotations},
        }))
        .unwrap()
    }

    #[test]
    fn a_renewal_wakes_nobody_and_another_leader_does() {
        let before = fingerprint(&lock(&json!({"leader": "orders-0", "renewTime": "1", "optime": "7"})));
        assert_eq!(before, fingerprint(&lock(&json!({"leader": "orders-0", "renewTime": "2", "optime": "8"}))));
        assert_ne!(before, fingerprint(&lock(&json!({"leader": "orders-1", "renewTime": "2", "optime": "8"}))));
    }
}
