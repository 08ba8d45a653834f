//! What one reconcile looks at: everything is read here, before anything is decided.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret};
use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use matriarch_crds::generated::NEVER_SEEN;
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, ClusterNames, SCOPE_LABEL};
use matriarch_crds::{PostgresCluster, PostgresClusterSpec, StoreMode};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::Value;

use crate::kinds::Kind;
use crate::member::Member;
use crate::nodes::Node;
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
    /// The Secrets that the spec names for the users of the system and of the application.
    pub user_secrets: Vec<UserSecret>,
    /// Whether the cluster has the kind PodMonitor.
    pub knows_pod_monitors: bool,
    /// All Secrets that the spec names, as they are; None: missing.
    pub named_secrets: BTreeMap<String, Option<Value>>,
    /// The nodes, if the operator may see them.
    pub nodes: Option<BTreeMap<String, Node>>,
    /// Claims whose volume is local to a node that no longer exists.
    pub lost_local: BTreeSet<String>,
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
    /// Who confirms commits besides the leader, as `-sync` says; None: there is no such object, or it says nothing.
    pub fn voters(&self) -> Option<Vec<&str>> {
        let listed = self.lock_annotation(&self.names().sync(), "sync_standby")?;
        Some(listed.split(',').map(str::trim).filter(|name| !name.is_empty()).collect())
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
    /// Whether `spec.fenced` names the member.
    pub fn fenced(&self, member: &str) -> bool {
        self.cluster.spec.fenced.iter().any(|name| name == member)
    }
    /// Whether the member's node is being drained.
    pub fn drained(&self, m: &Member) -> bool {
        let nodes = self.nodes.as_ref();
        nodes.zip(m.node.as_ref()).and_then(|(nodes, name)| nodes.get(name)).is_some_and(|node| node.drained)
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
    let named_secrets = named_secrets(client, &namespace, cluster).await?;
    let nodes = stores.nodes();
    let lost_local = match &nodes {
        Some(nodes) => lost_local(client, nodes, &members, &objects).await,
        None => BTreeSet::new(),
    };
    Ok(Seen {
        now: Timestamp::now(),
        cluster: without_default(cluster),
        sidecar_image: sidecar_image.to_owned(),
        objects,
        members,
        knows_pod_monitors: stores.knows_pod_monitors(),
        user_secrets: user_secrets(cluster, &named_secrets),
        named_secrets,
        nodes,
        lost_local,
        passwords: std::array::from_fn(|_| Alphanumeric.sample_string(&mut rand::rng(), 32)),
    })
}

/// A status that no operator wrote is none.
fn without_default(cluster: &PostgresCluster) -> PostgresCluster {
    let mut cluster = cluster.clone();
    cluster.status = cluster.status.filter(|status| status.observed_generation != Some(NEVER_SEEN));
    cluster
}

fn decode_pod(object: &DynamicObject) -> Result<Pod, Error> {
    serde_json::to_value(object)
        .and_then(serde_json::from_value)
        .map_err(|source| Error::DecodePod { name: object.name_any(), source })
}

/// Every Secret that the spec names, once each.
async fn named_secrets(
    client: &Client,
    namespace: &str,
    cluster: &PostgresCluster,
) -> Result<BTreeMap<String, Option<Value>>, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let mut found = BTreeMap::new();
    for name in names_of_secrets(&cluster.spec) {
        let read = |source| Error::ReadSecret { name: name.clone(), source };
        let secret = api.get_opt(&name).await.map_err(read)?;
        found.insert(name, secret.and_then(|s| serde_json::to_value(s).ok()));
    }
    Ok(found)
}

fn names_of_secrets(spec: &PostgresClusterSpec) -> BTreeSet<String> {
    let users = spec.secrets.by_user().into_iter().filter_map(|(_, name)| name.map(str::to_owned));
    let roles = spec.roles.iter().filter_map(|r| r.password_secret.as_ref()).map(|s| s.name.clone());
    let tls = [spec.tls.secret.clone(), spec.tls.ca_secret.clone()].into_iter().flatten();
    let clone = spec.bootstrap.as_ref().and_then(|b| b.clone.as_ref()).map(|c| c.secret.name.clone());
    users.chain(roles).chain(tls).chain(clone).collect()
}

fn user_secrets(cluster: &PostgresCluster, named: &BTreeMap<String, Option<Value>>) -> Vec<UserSecret> {
    let users = cluster.spec.secrets.by_user().into_iter();
    users
        .filter_map(|(user, name)| {
            let name = name?.to_owned();
            let lacks = lacks(user, named.get(&name).and_then(Option::as_ref));
            Some(UserSecret { user, name, lacks })
        })
        .collect()
}

fn lacks(user: &str, secret: Option<&Value>) -> Option<String> {
    let Some(secret) = secret else { return Some("does not exist".to_owned()) };
    for key in ["username", "password"] {
        if entry(secret, key).is_none() {
            return Some(format!("has no key {key}"));
        }
    }
    (user == "superuser" && entry(secret, "username").as_deref() != Some("postgres"))
        .then(|| "has another username than postgres".to_owned())
}

/// A key of a Secret, if it is there and is text.
pub fn entry(secret: &Value, key: &str) -> Option<String> {
    let bytes: ByteString = serde_json::from_value(secret["data"].get(key)?.clone()).ok()?;
    String::from_utf8(bytes.0).ok().filter(|text| !text.is_empty())
}

/// Claims of pods that find no node, whose volume is local to nodes that are all gone. A volume that cannot be read
/// (the right may be missing) is not among them.
async fn lost_local(
    client: &Client,
    nodes: &BTreeMap<String, Node>,
    members: &[Member],
    objects: &BTreeMap<(Kind, String), Value>,
) -> BTreeSet<String> {
    let mut lost = BTreeSet::new();
    let api = Api::<PersistentVolume>::all(client.clone());
    for claim in members.iter().filter(|m| m.node.is_none() && !m.deleting).flat_map(|m| &m.claims) {
        let object = objects.get(&(Kind::PersistentVolumeClaim, claim.clone()));
        let Some(volume) = object.and_then(|c| c["spec"]["volumeName"].as_str()).filter(|v| !v.is_empty()) else {
            continue;
        };
        let Ok(Some(volume)) = api.get_opt(volume).await else { continue };
        let hosts = local_hosts(&volume);
        if !hosts.is_empty() && nodes.values().all(|n| !hosts.contains(&n.hostname)) {
            lost.insert(claim.clone());
        }
    }
    lost
}

/// The hosts to which a volume is bound by name.
fn local_hosts(volume: &PersistentVolume) -> BTreeSet<String> {
    let spec = volume.spec.as_ref();
    let required = spec.and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    required
        .into_iter()
        .flat_map(|r| &r.node_selector_terms)
        .flat_map(|t| t.match_expressions.iter().flatten())
        .filter(|e| e.key == "kubernetes.io/hostname" && e.operator == "In")
        .flat_map(|e| e.values.clone().unwrap_or_default())
        .collect()
}

/// Reference to the cluster, for the controller's queue.
pub fn cluster_ref(name: &str, namespace: &str) -> ObjectRef<PostgresCluster> {
    ObjectRef::new(name).within(namespace)
}
