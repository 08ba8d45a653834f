//! The nodes, as far as members care: whether one is being drained, and its host name. Watched where the operator may.
//!
//! Of each node only its spec and labels are kept: the rest is large, and changes all the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Node as Object;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use matriarch_crds::PostgresCluster;
use matriarch_crds::names::SCOPE_LABEL;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::observe::cluster_ref;

/// Taints by which a node is emptied: kubectl's and the autoscalers'.
const DRAINS: [&str; 4] = [
    "node.kubernetes.io/unschedulable",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
];

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// It takes no more pods, and those that it has shall leave.
    pub drained: bool,
    /// Its label `kubernetes.io/hostname`, by which local volumes name it.
    pub hostname: String,
}

impl Node {
    fn of(object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let taints = spec["taints"].as_array().into_iter().flatten();
        let tainted = taints.filter_map(|t| t["key"].as_str()).any(|key| DRAINS.contains(&key));
        let hostname = object.labels().get("kubernetes.io/hostname").cloned().unwrap_or_else(|| object.name_any());
        Self { drained: spec["unschedulable"] == true || tainted, hostname }
    }
}

/// Whether the operator may see nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Unknown,
    Clear,
    Forbidden,
}

/// The cache.
#[derive(Clone)]
pub struct Nodes {
    store: Store<DynamicObject>,
    sight: watch::Receiver<Sight>,
}

impl Nodes {
    /// All nodes; None where the operator may not see them.
    pub fn get(&self) -> Option<BTreeMap<String, Node>> {
        if *self.sight.borrow() != Sight::Clear {
            return None;
        }
        Some(self.store.state().iter().map(|o| (o.name_any(), Node::of(o))).collect())
    }

    /// Returns when the first list is there, or refused.
    pub async fn ready(&self) {
        let mut sight = self.sight.clone();
        // An error means that the task is gone, which is noticed elsewhere.
        drop(sight.wait_for(|s| *s != Sight::Unknown).await);
    }
}

/// The cache, and the task that keeps it: it wakes the clusters whose pods are on a node that changed.
pub fn start(
    client: &Client,
    pods: Store<DynamicObject>,
    wake: mpsc::Sender<ObjectRef<PostgresCluster>>,
) -> (Nodes, impl Future<Output = ()> + Send + 'static) {
    let resource = ApiResource::erase::<Object>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let writer = reflector::store::Writer::new(resource);
    let store = writer.as_reader();
    let (tell, sight) = watch::channel(Sight::Unknown);
    (Nodes { store, sight }, run(api, writer, tell, pods, wake))
}

async fn run(
    api: Api<DynamicObject>,
    writer: reflector::store::Writer<DynamicObject>,
    tell: watch::Sender<Sight>,
    pods: Store<DynamicObject>,
    mut wake: mpsc::Sender<ObjectRef<PostgresCluster>>,
) {
    let trim = |object: &mut DynamicObject| {
        object.managed_fields_mut().clear();
        object.annotations_mut().clear();
        let spec = object.data["spec"].take();
        object.data = serde_json::json!({"spec": {"unschedulable": spec["unschedulable"], "taints": spec["taints"]}});
    };
    let stream = watcher(api, watcher::Config::default()).modify(trim).default_backoff().reflect(writer);
    let mut stream = std::pin::pin!(stream);
    let mut seen: HashMap<String, Node> = HashMap::new();
    while let Some(event) = stream.next().await {
        let changed = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                let node = Node::of(&object);
                let before = seen.insert(object.name_any(), node.clone());
                before.is_some_and(|b| b != node).then(|| object.name_any())
            }
            Ok(watcher::Event::Delete(object)) => {
                seen.remove(&object.name_any());
                Some(object.name_any())
            }
            Ok(watcher::Event::Init) => None,
            Ok(watcher::Event::InitDone) => {
                tell.send_replace(Sight::Clear);
                None
            }
            Err(error) => {
                if forbidden(&error) {
                    if tell.send_replace(Sight::Forbidden) != Sight::Forbidden {
                        info!("nodes may not be seen: a drained leader hands over when it is evicted, and not before");
                    }
                } else {
                    warn!(%error, "the watch of nodes is broken, it is tried again");
                }
                None
            }
        };
        for cluster in changed.iter().flat_map(|node| on_node(&pods, node)) {
            if wake.send(cluster).await.is_err() {
                return;
            }
        }
    }
}

fn forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(source) | watcher::Error::WatchStartFailed(source)) = error else {
        return false;
    };
    matches!(source, kube::Error::Api(status) if status.code == 403)
}

/// The clusters that have pods there, and those whose pods find no node.
fn on_node(pods: &Store<DynamicObject>, node: &str) -> Vec<ObjectRef<PostgresCluster>> {
    let there = |pod: &Arc<DynamicObject>| {
        let name = &pod.data["spec"]["nodeName"];
        *name == Value::Null || name.as_str() == Some(node)
    };
    let cluster = |pod: &Arc<DynamicObject>| Some(cluster_ref(pod.labels().get(SCOPE_LABEL)?, &pod.namespace()?));
    pods.state().iter().filter(|pod| there(pod)).filter_map(cluster).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_drained_when_cordoned_or_about_to_be_removed() {
        let node = |spec: Value| {
            let object = serde_json::json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "host-a"}}, "spec": spec});
            Node::of(&serde_json::from_value(object).unwrap())
        };
        assert_eq!(node(serde_json::json!({})), Node { drained: false, hostname: "host-a".into() });
        assert!(node(serde_json::json!({"unschedulable": true})).drained);
        assert!(
            node(serde_json::json!({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]})).drained
        );
        assert!(
            !node(serde_json::json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}))
                .drained
        );
    }
}
