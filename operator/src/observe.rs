//! What one reconcile looks at: everything is read here, before anything is decided.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, ClusterNames, SCOPE_LABEL};
use matriarch_crds::{PostgresCluster, StoreMode};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::Value;

use crate::kinds::Kind;
use crate::member::Member;
use crate::watch::Stores;

/// Why the cluster cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Secret that the spec names.
    #[error("cannot read the Secret {name}, which the spec names: {source}")]
    ReadSecret {
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// Decoding of a pod.
    #[error("cannot decode the pod {name}: {source}")]
    DecodePod {
        /// Its name.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Error {
    /// For metrics and conditions.
    pub fn category(&self) -> &'static str {
        match self {
            Self::ReadSecret { .. } => "ReadSecret",
            Self::DecodePod { .. } => "DecodePod",
        }
    }
}

/// A Secret that the spec names, instead of a generated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSecret {
    /// `superuser`, `replication`, `rewind` or `app`.
    pub user: &'static str,
    /// Its name.
    pub name: String,
    /// What it lacks: nothing if it is usable.
    pub lacks: Option<String>,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Now.
    pub now: Timestamp,
    /// What the user wants, and the status as it was.
    pub cluster: PostgresCluster,
    /// The sidecar image that pods should have.
    pub sidecar_image: String,
    /// The cluster's objects that exist, by kind and name (pods are in `members`).
    pub objects: BTreeMap<(Kind, String), Value>,
    /// The members' pods, by ordinal.
    pub members: Vec<Member>,
    /// The Secrets that the spec names.
    pub user_secrets: Vec<UserSecret>,
    /// Whether the cluster has the kind PodMonitor.
    pub knows_pod_monitors: bool,
    /// Fresh random passwords, used if a Secret is missing.
    pub passwords: [String; 4],
}

impl Seen {
    /// Name of the cluster.
    pub fn name(&self) -> String {
        self.cluster.name_any()
    }
    /// Its namespace.
    pub fn namespace(&self) -> String {
        self.cluster.namespace().unwrap_or_default()
    }
    /// Names of its objects.
    pub fn names(&self) -> ClusterNames {
        ClusterNames::new(self.name(), self.endpoints_mode())
    }
    /// Whether the lock is an Endpoints object.
    pub fn endpoints_mode(&self) -> bool {
        self.cluster.spec.store_mode == StoreMode::Endpoints
    }
    /// Kind of the lock objects.
    pub fn lock_kind(&self) -> Kind {
        if self.endpoints_mode() { Kind::Endpoints } else { Kind::ConfigMap }
    }
    /// An object that exists.
    pub fn object(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned()))
    }
    /// An annotation of a lock object.
    pub fn lock_annotation(&self, object: &str, key: &str) -> Option<&str> {
        self.object(self.lock_kind(), object)?["metadata"]["annotations"][key].as_str().filter(|v| !v.is_empty())
    }
    /// The holder of the leader lock.
    pub fn leader(&self) -> Option<&str> {
        self.lock_annotation(&self.names().leader(), "leader")
    }
    /// Whether the cluster has been initialized.
    pub fn initialized(&self) -> bool {
        self.lock_annotation(&self.names().config(), "initialize").is_some()
    }
    /// Maintenance mode, asked for in the spec or by `patronictl pause`.
    pub fn paused(&self) -> bool {
        self.cluster
            .spec
            .paused
            .unwrap_or_else(|| crate::config::current(self).and_then(|(c, _)| c["pause"].as_bool()).unwrap_or_default())
    }
}

/// Labels of every object of a cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    [(APPLICATION_LABEL, APPLICATION), (SCOPE_LABEL, cluster)]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Reads everything. Only Secrets that the spec names cost a call; the rest comes from watch caches.
pub async fn observe(
    client: &Client,
    stores: &Stores,
    cluster: &PostgresCluster,
    sidecar_image: &str,
) -> Result<Seen, Error> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let mut objects = BTreeMap::new();
    let mut members = Vec::new();
    for (kind, store) in stores.iter() {
        let resource = kind.resource();
        for object in store.state() {
            let ours = object.namespace().as_deref() == Some(namespace.as_str())
                && object.labels().get(SCOPE_LABEL).map(String::as_str) == Some(name.as_str());
            if !ours {
                continue;
            }
            if kind == Kind::Pod {
                members.push(Member::of(decode_pod(&object)?));
            } else if let Ok(mut value) = serde_json::to_value(&*object) {
                // The items of a list say neither; objects that come by a watch do.
                value["apiVersion"] = resource.api_version.clone().into();
                value["kind"] = resource.kind.clone().into();
                objects.insert((kind, object.name_any()), value);
            }
        }
    }
    members.sort_by_key(|m| (m.ordinal, m.name.clone()));
    Ok(Seen {
        now: Timestamp::now(),
        cluster: cluster.clone(),
        sidecar_image: sidecar_image.to_owned(),
        objects,
        members,
        user_secrets: user_secrets(client, &namespace, cluster).await?,
        knows_pod_monitors: stores.knows_pod_monitors(),
        passwords: std::array::from_fn(|_| Alphanumeric.sample_string(&mut rand::rng(), 32)),
    })
}

fn decode_pod(object: &DynamicObject) -> Result<Pod, Error> {
    serde_json::to_value(object)
        .and_then(serde_json::from_value)
        .map_err(|source| Error::DecodePod { name: object.name_any(), source })
}

async fn user_secrets(client: &Client, namespace: &str, cluster: &PostgresCluster) -> Result<Vec<UserSecret>, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for (user, name) in cluster.spec.secrets.by_user() {
        let Some(name) = name else { continue };
        let secret = api.get_opt(name).await.map_err(|source| Error::ReadSecret { name: name.to_owned(), source })?;
        found.push(UserSecret { user, name: name.to_owned(), lacks: lacks(user, secret.as_ref()) });
    }
    Ok(found)
}

fn lacks(user: &str, secret: Option<&Secret>) -> Option<String> {
    let Some(secret) = secret else { return Some("does not exist".to_owned()) };
    let value = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice()).unwrap_or_default();
    for key in ["username", "password"] {
        if value(key).is_empty() {
            return Some(format!("has no key {key}"));
        }
    }
    (user == "superuser" && value("username") != b"postgres").then(|| "has another username than postgres".to_owned())
}

/// Reference to the cluster, for the controller's queue.
pub fn cluster_ref(name: &str, namespace: &str) -> ObjectRef<PostgresCluster> {
    ObjectRef::new(name).within(namespace)
}
