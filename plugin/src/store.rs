//! What the API server has of a cluster: its resource, its shared objects, its pods; and how they are written.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, ClusterNames, SCOPE_LABEL};
use matriarch_crds::{PostgresCluster, StoreMode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::access::Session;
use crate::error::{Error, instead};
use crate::live;
use crate::view::{Annotations, Cluster, Member, Objects};

/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(500);

/// One shared object.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// Its annotations.
    pub annotations: Annotations,
    /// For compare-and-swap.
    pub version: String,
}

/// The objects of one cluster.
pub struct Store {
    /// The way there.
    pub session: Session,
    /// As it was when this was opened.
    pub resource: PostgresCluster,
    /// Names of its objects.
    pub names: ClusterNames,
    endpoints: bool,
}

/// Which members are late, and at what.
pub fn late_members(cluster: &Cluster, late: impl Fn(&&Member) -> bool, at: &str) -> Option<String> {
    let names: Vec<&str> = cluster.members.iter().filter(late).map(|m| m.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("{} {at}", names.join(", ")))
}

/// The clusters of a namespace, or of all.
pub async fn clusters(
    session: &Session,
    everywhere: bool,
    labels: Option<&str>,
) -> Result<Vec<PostgresCluster>, Error> {
    let client = session.client.clone();
    let api: Api<PostgresCluster> =
        if everywhere { Api::all(client) } else { Api::namespaced(client, &session.namespace) };
    let params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
    let list = api.list(&params).await.map_err(Error::call("list", "postgresclusters", "the clusters"))?;
    Ok(list.items)
}

impl Store {
    /// For the cluster of that name; without one, for the only cluster of the namespace.
    pub async fn open(session: &Session, cluster: Option<&str>) -> Result<Self, Error> {
        let Some(name) = cluster else {
            let mut all = clusters(session, false, None).await?;
            let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
            return match all.pop() {
                Some(only) if names.len() == 1 => Ok(Self::of(session, only)),
                Some(_) => Err(Error::NotFound(format!("which cluster? there are {}", names.join(", ")))),
                None => Err(Error::NotFound(format!(
                    "there is no PostgresCluster in the namespace {}: give -n, or see `kubectl matriarch list -A`",
                    session.namespace
                ))),
            };
        };
        let api = Api::<PostgresCluster>::namespaced(session.client.clone(), &session.namespace);
        let found = api.get_opt(name).await;
        if let Some(resource) = found.map_err(Error::call("get", "postgresclusters", format!("the cluster {name}")))? {
            return Ok(Self::of(session, resource));
        }
        // Only for the advice: who may not list gets it without.
        let all = clusters(session, false, None).await.unwrap_or_default();
        let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Err(Error::NotFound(format!(
            "there is no PostgresCluster {name} in the namespace {}: {} (another namespace: -n; all clusters: `kubectl matriarch list -A`)",
            session.namespace,
            instead(name, &names)
        )))
    }

    /// For a cluster that was listed.
    pub fn of(session: &Session, resource: PostgresCluster) -> Self {
        let endpoints = resource.spec.store_mode == StoreMode::Endpoints;
        let mut session = session.clone();
        session.namespace = resource.namespace().unwrap_or(session.namespace);
        Self { session, names: ClusterNames::new(resource.name_any(), endpoints), resource, endpoints }
    }

    /// The resource that carries the shared objects, for messages about rights.
    pub fn kind(&self) -> &'static str {
        if self.endpoints { "endpoints" } else { "configmaps" }
    }

    /// What selects the cluster's own pods.
    pub fn selector(&self) -> String {
        format!("{APPLICATION_LABEL}={APPLICATION},{SCOPE_LABEL}={}", self.names.scope())
    }

    /// The API of a kind, in the cluster's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.session.client.clone(), &self.session.namespace)
    }

    /// A shared object; None if it does not exist.
    pub async fn shared(&self, name: &str) -> Result<Option<Shared>, Error> {
        let failed = Error::call("get", self.kind(), name);
        let metadata = if self.endpoints {
            self.api::<Endpoints>().get_opt(name).await.map_err(failed)?.map(|object| object.metadata)
        } else {
            self.api::<ConfigMap>().get_opt(name).await.map_err(failed)?.map(|object| object.metadata)
        };
        Ok(metadata.map(|m| Shared {
            annotations: m.annotations.unwrap_or_default(),
            version: m.resource_version.unwrap_or_default(),
        }))
    }

    /// Its annotations, none where it does not exist.
    pub async fn annotations(&self, name: &str) -> Result<Annotations, Error> {
        Ok(self.shared(name).await?.unwrap_or_default().annotations)
    }

    /// Sets annotations (null removes one) of a shared object that was read before: one that has changed since is left alone
    /// (the API server says 409), one that did not exist is made.
    pub async fn annotate(&self, name: &str, read: Option<&Shared>, annotations: &Value) -> Result<(), Error> {
        if self.endpoints {
            self.write::<Endpoints>(name, read, annotations).await
        } else {
            self.write::<ConfigMap>(name, read, annotations).await
        }
    }

    async fn write<K>(&self, name: &str, read: Option<&Shared>, annotations: &Value) -> Result<(), Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        let written = if let Some(read) = read {
            let metadata = json!({"resourceVersion": read.version, "annotations": annotations});
            let patch = Patch::Merge(json!({"metadata": metadata}));
            let failed = Error::call("patch", self.kind(), name);
            api.patch(name, &PatchParams::default(), &patch).await.map(drop).map_err(failed)
        } else {
            let labels = json!({(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): self.names.scope()});
            let kept: serde_json::Map<String, Value> = annotations
                .as_object()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .filter(|(_, v)| !v.is_null())
                .collect();
            let object = json!({"metadata": {"name": name, "labels": labels, "annotations": kept}});
            let object = serde_json::from_value(object).map_err(Error::output)?;
            let failed = Error::call("create", self.kind(), name);
            api.create(&PostParams::default(), &object).await.map(drop).map_err(failed)
        };
        match written {
            Err(Error::Call { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 409) => {
                Err(Error::Refused(format!("{name} was changed by somebody else meanwhile: look at it, and try again")))
            }
            written => written,
        }
    }

    /// The members' pods.
    pub async fn pods(&self) -> Result<Vec<Pod>, Error> {
        let params = ListParams::default().labels(&self.selector());
        let list = self.api::<Pod>().list(&params).await.map_err(Error::call("list", "pods", "the members"))?;
        Ok(list.items)
    }

    /// All that is stored, as it is now.
    pub async fn objects(&self) -> Result<Objects, Error> {
        let api = self.api::<PostgresCluster>();
        let name = self.names.scope();
        let failed = Error::call("get", "postgresclusters", format!("the cluster {name}"));
        Ok(Objects {
            resource: api.get(name).await.map_err(failed)?,
            pods: self.pods().await?,
            leader: self.annotations(&self.names.leader()).await?,
            config: self.annotations(&self.names.config()).await?,
            sync: self.annotations(&self.names.sync()).await?,
            failover: self.annotations(&self.names.failover()).await?,
        })
    }

    /// The cluster as it is stored.
    pub async fn stored(&self) -> Result<Cluster, Error> {
        Ok(Cluster::of(&self.objects().await?))
    }

    /// Changes fields of the resource: what the spec says, and the version that it was read with where that counts.
    pub async fn patch(&self, change: Value) -> Result<(), Error> {
        let name = self.names.scope();
        let failed = Error::call("patch", "postgresclusters", format!("the cluster {name}"));
        let api = self.api::<PostgresCluster>();
        api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop).map_err(failed)
    }

    /// Waits until nothing is late any more; `late` says what.
    pub async fn until(&self, seconds: u64, late: impl Fn(&Cluster) -> Option<String>) -> Result<(), Error> {
        let begun = Instant::now();
        while let Some(what) = late(&self.stored().await?) {
            if begun.elapsed() > Duration::from_secs(seconds) {
                let name = self.names.scope();
                return Err(Error::Unknown(format!("{what} after {seconds} s: see `kubectl matriarch status {name}`")));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// The cluster as it is now: positions as the leader sees them, where it can be asked.
    pub async fn view(&self) -> Result<Cluster, Error> {
        let mut cluster = self.stored().await?;
        live::overlay(self, &mut cluster).await;
        Ok(cluster)
    }
}
