//! A cluster as its objects show it: leader lock, synchronous standbys, and what each member says about itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, ClusterNames, SCOPE_LABEL, STATUS_ANNOTATION};
use matriarch_crds::{PostgresCluster, StoreMode};
use serde_json::{Value, json};

use crate::error::Error;

/// Annotations of one shared object.
pub type Annotations = BTreeMap<String, String>;

/// The shared objects of one cluster.
pub struct Store {
    client: Client,
    namespace: String,
    endpoints: bool,
    /// Names of its objects.
    pub names: ClusterNames,
}

impl Store {
    /// For the cluster, in the mode that its resource says (`ConfigMaps` if there is no resource).
    pub async fn open(client: &Client, namespace: &str, cluster: &str) -> Result<Self, Error> {
        let resource = Api::<PostgresCluster>::namespaced(client.clone(), namespace)
            .get_opt(cluster)
            .await
            .map_err(Error::call("read", format!("the PostgresCluster {cluster}")))?;
        let Some(resource) = resource else {
            return Err(Error::Refused(format!(
                "there is no PostgresCluster {cluster} in the namespace {namespace}: give -n, or see `kubectl matriarch list -A`"
            )));
        };
        let endpoints = resource.spec.store_mode == StoreMode::Endpoints;
        Ok(Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            endpoints,
            names: ClusterNames::new(cluster, endpoints),
        })
    }

    /// Annotations of a shared object; None if it does not exist.
    pub async fn annotations(&self, name: &str) -> Result<Option<Annotations>, Error> {
        let failed = || Error::call("read", name);
        let (client, namespace) = (self.client.clone(), self.namespace.as_str());
        let found = if self.endpoints {
            let object = Api::<Endpoints>::namespaced(client, namespace).get_opt(name).await.map_err(failed())?;
            object.map(|o| o.annotations().clone())
        } else {
            let object =
                Api::<ConfigMap>::namespaced(client, namespace).get_metadata_opt(name).await.map_err(failed())?;
            object.map(|o| o.annotations().clone())
        };
        Ok(found)
    }

    /// Sets annotations of a shared object, which is made if it does not exist.
    pub async fn annotate(&self, name: &str, exists: bool, annotations: &Value) -> Result<(), Error> {
        let labels = json!({(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): self.names.scope()});
        let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
        if self.endpoints {
            self.write::<Endpoints>(name, exists, metadata).await
        } else {
            self.write::<ConfigMap>(name, exists, metadata).await
        }
    }

    async fn write<K>(&self, name: &str, exists: bool, metadata: Value) -> Result<(), Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        let failed = Error::call("write", name);
        if exists {
            let patch = Patch::Merge(json!({"metadata": metadata}));
            return api.patch(name, &PatchParams::default(), &patch).await.map(drop).map_err(failed);
        }
        let object = serde_json::from_value(json!({"metadata": metadata})).map_err(|e| Error::Output(e.to_string()))?;
        api.create(&PostParams::default(), &object).await.map(drop).map_err(failed)
    }

    /// The cluster as it is now.
    pub async fn view(&self) -> Result<Cluster, Error> {
        let selector = format!("{APPLICATION_LABEL}={APPLICATION},{SCOPE_LABEL}={}", self.names.scope());
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace)
            .list(&ListParams::default().labels(&selector))
            .await
            .map_err(Error::call("list", "the members' pods"))?;
        let leader = self.annotations(&self.names.leader()).await?.unwrap_or_default();
        let config = self.annotations(&self.names.config()).await?.unwrap_or_default();
        let sync = self.annotations(&self.names.sync()).await?.unwrap_or_default();
        let failover = self.annotations(&self.names.failover()).await?.unwrap_or_default();
        Ok(Cluster::of(self.names.scope(), &pods.items, &leader, &config, &sync, &failover))
    }
}

/// One member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The pod.
    pub name: String,
    /// Its address, as it says it.
    pub host: String,
    /// In patronictl's words: Leader, Replica, Sync Standby, Quorum Standby, Standby Leader.
    pub role: String,
    /// running, streaming, stopped …
    pub state: String,
    /// Timeline.
    pub timeline: Option<i64>,
    /// Bytes behind the leader; None for the leader and where it is not known.
    pub lag: Option<i64>,
    /// It has to be restarted for a setting.
    pub pending_restart: bool,
    /// Why it is where it is.
    pub reason: String,
    /// Its pod is ready.
    pub ready: bool,
}

/// One cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// System identifier, `initializing` or `uninitialized`.
    pub identifier: String,
    /// The holder of the leader lock.
    pub leader: Option<String>,
    /// By name.
    pub members: Vec<Member>,
    /// Maintenance mode.
    pub paused: bool,
    /// Synchronous mode: `quorum`, `true` or empty.
    pub synchronous_mode: String,
    /// Standbys that may become primary without a loss; empty if not synchronous.
    pub sync_standbys: Vec<String>,
    /// A switchover that is asked for: from, to, when.
    pub switchover: Option<[String; 3]>,
}

fn value(annotations: &Annotations, key: &str) -> Option<String> {
    annotations.get(key).filter(|v| !v.is_empty()).cloned()
}

impl Cluster {
    /// From its objects.
    pub fn of(
        name: &str,
        pods: &[Pod],
        leader_lock: &Annotations,
        config: &Annotations,
        sync: &Annotations,
        failover: &Annotations,
    ) -> Self {
        let leader = value(leader_lock, "leader");
        let dynamic: Value = value(config, "config").and_then(|c| serde_json::from_str(&c).ok()).unwrap_or_default();
        let synchronous_mode = match &dynamic["synchronous_mode"] {
            Value::String(mode) if mode == "quorum" => "quorum",
            Value::Bool(true) => "true",
            Value::String(mode) if mode == "on" || mode == "true" => "true",
            _ => "",
        };
        let sync_standbys: Vec<String> = if synchronous_mode.is_empty() || value(sync, "leader") != leader {
            Vec::new()
        } else {
            value(sync, "sync_standby")
                .unwrap_or_default()
                .split(',')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let head = |pod: &Pod| report(pod)["xlog_location"].as_i64();
        let position = pods
            .iter()
            .filter(|p| Some(p.name_any()) == leader)
            .find_map(head)
            .max(value(leader_lock, "optime").and_then(|o| o.parse().ok()));
        let standby = if synchronous_mode == "quorum" { "Quorum Standby" } else { "Sync Standby" };
        let mut members: Vec<Member> = pods
            .iter()
            .map(|pod| {
                let name = pod.name_any();
                let report = report(pod);
                let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
                let leads = leader.as_deref() == Some(&name);
                let replication = text("replication_state");
                let location = report["xlog_location"].as_i64();
                Member {
                    host: host(&text("conn_url"))
                        .unwrap_or_else(|| pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default()),
                    role: match () {
                        () if leads && text("role") == "standby_leader" => "Standby Leader",
                        () if leads => "Leader",
                        () if sync_standbys.iter().any(|s| s.eq_ignore_ascii_case(&name)) => standby,
                        () => "Replica",
                    }
                    .to_owned(),
                    state: if leads || replication.is_empty() { text("state") } else { replication },
                    timeline: report["timeline"].as_i64(),
                    lag: if leads { None } else { position.zip(location).map(|(p, l)| (p - l).max(0)) },
                    pending_restart: report["pending_restart"].as_bool() == Some(true),
                    reason: report["matriarch"]["reason"].as_str().unwrap_or_default().to_owned(),
                    ready: pod
                        .status
                        .iter()
                        .flat_map(|s| s.conditions.iter().flatten())
                        .any(|c| c.type_ == "Ready" && c.status == "True"),
                    name,
                }
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let wanted = ["leader", "member", "scheduled_at"].map(|k| value(failover, k).unwrap_or_default());
        Self {
            name: name.to_owned(),
            identifier: match config.get("initialize").map(String::as_str) {
                None => "uninitialized".to_owned(),
                Some("") => "initializing".to_owned(),
                Some(identifier) => identifier.to_owned(),
            },
            leader,
            members,
            paused: dynamic["pause"].as_bool() == Some(true),
            synchronous_mode: synchronous_mode.to_owned(),
            sync_standbys,
            switchover: wanted.iter().any(|v| !v.is_empty()).then_some(wanted),
        }
    }

    /// What its members say, for a person who wonders why something did not happen.
    pub fn reasons(&self) -> String {
        let said: Vec<String> =
            self.members.iter().filter(|m| !m.reason.is_empty()).map(|m| format!("{}: {}", m.name, m.reason)).collect();
        if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
    }
}

fn report(pod: &Pod) -> Value {
    pod.annotations().get(STATUS_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Of `postgres://host:port/database`; the port only if it is not PostgreSQL's own.
fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let address = rest.split('/').next()?;
    Some(address.strip_suffix(":5432").unwrap_or(address).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": {"status": status.to_string()}}}))
            .unwrap()
    }

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_cluster_is_shown_in_patronictls_words() {
        let pods = [
            pod(
                "o-0",
                &json!({"state": "running", "role": "primary", "xlog_location": 3_145_728, "timeline": 2, "conn_url": "postgres://10.0.0.1:5432/postgres"}),
            ),
            pod(
                "o-1",
                &json!({"state": "running", "role": "replica", "replication_state": "streaming", "xlog_location": 1_048_576, "timeline": 2}),
            ),
            pod("o-2", &json!({"state": "stopped", "role": "replica", "matriarch": {"reason": "no disk"}})),
        ];
        let cluster = Cluster::of(
            "o",
            &pods,
            &annotations(&[("leader", "o-0"), ("optime", "2000000")]),
            &annotations(&[("initialize", "7123456789012345678"), ("config", r#"{"synchronous_mode":"quorum"}"#)]),
            &annotations(&[("leader", "o-0"), ("sync_standby", "o-1")]),
            &annotations(&[]),
        );
        let seen: Vec<_> = cluster.members.iter().map(|m| (m.role.as_str(), m.state.as_str(), m.lag)).collect();
        assert_eq!(
            seen,
            [
                ("Leader", "running", None),
                ("Quorum Standby", "streaming", Some(2_097_152)),
                ("Replica", "stopped", None)
            ]
        );
        assert_eq!((cluster.members[0].host.as_str(), cluster.reasons().as_str()), ("10.0.0.1", " (o-2: no disk)"));
    }
}
