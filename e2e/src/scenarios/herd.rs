//! One `PostgresCluster` under test: made, looked at, waited for, removed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use matriarch_crds::names::{
    APPLICATION, APPLICATION_LABEL, ClusterNames, POSTGRES_CONTAINER, POSTGRES_PORT, SCOPE_LABEL, STATUS_ANNOTATION,
};
use matriarch_crds::{PostgresCluster, PostgresClusterStatus};
use serde_json::{Value, json};

use super::lock::Lock;
use crate::cluster::Namespace;
use crate::host::process::Process;
use crate::images::postgres::reference;
use crate::workload::Database;

/// What to make.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: &'static str,
    /// How many members.
    pub instances: i32,
    /// Whether the lock is an Endpoints object.
    pub endpoints: bool,
    /// PostgreSQL's major version.
    pub major: String,
}

/// A `PostgresCluster` in a namespace.
#[derive(Debug, Clone)]
pub struct Herd {
    /// Where.
    pub namespace: Namespace,
    /// Its objects' names.
    pub names: ClusterNames,
    endpoints: bool,
}

/// A member as its pod shows it.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// The pod.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its address; empty at first.
    pub address: String,
    /// Its node; empty at first.
    pub node: String,
    /// Whether clients can use it.
    pub ready: bool,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// How often a container of it was restarted.
    pub restarts: i32,
    /// What the agent says.
    pub status: Value,
}

impl Herd {
    /// One that may exist already.
    pub fn new(namespace: Namespace, wanted: &Wanted) -> Self {
        Self { namespace, names: ClusterNames::new(wanted.name, wanted.endpoints), endpoints: wanted.endpoints }
    }

    /// Makes it.
    pub async fn create(namespace: Namespace, wanted: &Wanted) -> Result<Self> {
        Self::create_with(namespace, wanted, &json!({})).await
    }

    /// Makes it with other fields of the spec.
    pub async fn create_with(namespace: Namespace, wanted: &Wanted, change: &Value) -> Result<Self> {
        let herd = Self::new(namespace, wanted);
        let mut manifest: Value = serde_saphyr::from_str(&herd.manifest(wanted))?;
        if let (Some(spec), Some(change)) = (manifest["spec"].as_object_mut(), change.as_object()) {
            spec.extend(change.clone());
        }
        herd.apply(&manifest.to_string()).await?;
        Ok(herd)
    }

    /// What a user would write; the demo shows it.
    pub fn manifest(&self, wanted: &Wanted) -> String {
        let mode = if wanted.endpoints { "\n  storeMode: Endpoints" } else { "" };
        format!(
            "apiVersion: matriarch.dev/v1alpha1\nkind: PostgresCluster\nmetadata: {{name: {}}}\nspec:\n  instances: {}\n  \
             image: {}\n  storage: {{size: 1Gi}}{mode}\n",
            wanted.name,
            wanted.instances,
            reference(&wanted.major)
        )
    }

    /// Applies a manifest in its namespace.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        self.namespace.apply(yaml).await.map(drop)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.names.scope()
    }

    /// The API of its kind.
    pub fn api(&self) -> Api<PostgresCluster> {
        self.namespace.api()
    }

    /// The resource as it is stored.
    pub async fn resource(&self) -> Result<PostgresCluster> {
        self.api().get(self.name()).await.with_context(|| format!("unable to read PostgresCluster {}", self.name()))
    }

    /// Its status.
    pub async fn status(&self) -> Result<PostgresClusterStatus> {
        Ok(self.resource().await?.status.unwrap_or_default())
    }

    /// Changes its spec.
    pub async fn patch(&self, spec: &Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api().patch(self.name(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits for a condition of the resource: `Ok` with its message.
    pub async fn condition(&self, kind: &str, status: &str, reason: &str, deadline: Duration) -> Result<String> {
        let what = format!("{} has the condition {kind}={status} with the reason {reason}", self.name());
        self.namespace
            .cluster
            .wait_for(&what, deadline, async || {
                let conditions = self.status().await?.conditions;
                Ok(match conditions.into_iter().find(|one| one.type_ == kind) {
                    Some(one) if one.status == status && one.reason == reason => Ok(one.message),
                    Some(one) => Err(format!("{}={} {}: {}", one.type_, one.status, one.reason, one.message)),
                    None => Err("no such condition".to_owned()),
                })
            })
            .await
    }

    /// Annotations of a shared object; empty when it does not exist.
    pub async fn annotations(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let metadata = if self.endpoints {
            self.namespace.api::<Endpoints>().get_opt(name).await?.map(|object| object.metadata)
        } else {
            self.namespace.api::<ConfigMap>().get_opt(name).await?.map(|object| object.metadata)
        };
        Ok(metadata.and_then(|metadata| metadata.annotations).unwrap_or_default())
    }

    /// The leader lock.
    pub async fn lock(&self) -> Result<Lock> {
        Ok(Lock::of(&self.annotations(&self.names.leader()).await?))
    }

    /// Waits until another pod than `old` holds the lock.
    pub async fn other_leader(&self, old: &Lock, deadline: Duration) -> Result<Lock> {
        let what = format!("another pod than {} leads", old.leader);
        self.namespace
            .cluster
            .wait_for(&what, deadline, async || {
                let lock = self.lock().await?;
                let other = !lock.leader.is_empty() && lock.pod_uid() != old.pod_uid();
                Ok(if other { Ok(lock) } else { Err(format!("{lock:?}")) })
            })
            .await
    }

    fn selector(&self) -> String {
        format!("{APPLICATION_LABEL}={APPLICATION},{SCOPE_LABEL}={}", self.name())
    }

    /// All members that have a pod.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let pods = self.namespace.api::<Pod>().list(&ListParams::default().labels(&self.selector())).await?;
        let mut members: Vec<Member> = pods.items.into_iter().map(Member::of).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(members)
    }

    /// One member.
    pub async fn member(&self, name: &str) -> Result<Member> {
        let all = self.members().await?;
        all.into_iter().find(|one| one.name == name).with_context(|| format!("there is no pod {name}"))
    }

    /// The member that holds the lock.
    pub async fn primary(&self) -> Result<Member> {
        let lock = self.lock().await?;
        if lock.leader.is_empty() {
            bail!("nobody holds the lock");
        }
        self.member(&lock.leader).await
    }

    /// All others.
    pub async fn standbys(&self) -> Result<Vec<Member>> {
        let leader = self.lock().await?.leader;
        Ok(self.members().await?.into_iter().filter(|one| one.name != leader).collect())
    }

    /// Waits until all is as it should be: every member ready and streaming on one timeline, all standbys synchronous
    /// where the durability wants that, and the resource says so.
    pub async fn steady(&self, deadline: Duration) -> Result<()> {
        let what = format!("{} is steady", self.name());
        self.namespace.cluster.wait(&what, deadline, || self.unsteady()).await
    }

    /// As [`steady`](Self::steady), whatever the operator says: it may be on a node that is lost.
    pub async fn streaming(&self, deadline: Duration) -> Result<()> {
        let what = format!("all standbys of {} stream", self.name());
        self.namespace.cluster.wait(&what, deadline, async || self.not_streaming(&self.resource().await?).await).await
    }

    /// What is missing to be steady.
    async fn unsteady(&self) -> Result<Option<String>> {
        let resource = self.resource().await?;
        if let Some(missing) = self.not_streaming(&resource).await? {
            return Ok(Some(missing));
        }
        let leader = self.lock().await?.leader;
        let status = resource.status.unwrap_or_default();
        let ready = status.conditions.iter().find(|one| one.type_ == "Ready");
        let fresh = status.observed_generation == resource.metadata.generation;
        match ready {
            Some(one) if one.status == "True" && fresh && status.primary.as_ref() == Some(&leader) => Ok(None),
            Some(one) => Ok(Some(format!(
                "Ready={} {}: {}; primary {:?}, generation {:?} of {:?}",
                one.status,
                one.reason,
                one.message,
                status.primary,
                status.observed_generation,
                resource.metadata.generation
            ))),
            None => Ok(Some("no condition Ready".to_owned())),
        }
    }

    async fn not_streaming(&self, resource: &PostgresCluster) -> Result<Option<String>> {
        let (members, lock) = (self.members().await?, self.lock().await?);
        let wanted = usize::try_from(resource.spec.instances)?;
        if members.len() != wanted {
            return Ok(Some(format!("{} of {wanted} pods exist", members.len())));
        }
        let Some(primary) = members.iter().find(|one| one.name == lock.leader) else {
            return Ok(Some(format!("the lock is held by {:?}", lock.leader)));
        };
        for one in &members {
            let leads = one.name == primary.name;
            let well = if leads { one.says("role") == "primary" } else { one.says("replication_state") == "streaming" };
            let alike = one.status["timeline"] == primary.status["timeline"];
            if !one.ready || one.deleting || !well || !alike || one.says("state") != "running" {
                return Ok(Some(one.describe()));
            }
        }
        let durability = resource.status.as_ref().and_then(|status| status.durability);
        if durability.is_some_and(|one| one.as_str() == "quorum") {
            let sync = self.annotations(&self.names.sync()).await?;
            let text = sync.get("sync_standby").map(String::as_str).unwrap_or_default();
            let standbys = text.split(',').filter(|one| members.iter().any(|member| member.name == *one)).count();
            if sync.get("leader") != Some(&primary.name) || standbys + 1 != wanted {
                return Ok(Some(format!("the synchronous standbys are {sync:?}")));
            }
        }
        Ok(None)
    }

    /// How the application logs in, at the Service's virtual address.
    pub async fn database(&self) -> Result<Database> {
        let secret = self.namespace.api::<Secret>().get(&self.names.secret("app")).await?;
        let text = |key: &str| -> Result<String> {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let bytes = bytes.with_context(|| format!("the application's Secret has no {key}"))?;
            Ok(String::from_utf8(bytes.0.clone())?)
        };
        let service = self.namespace.api::<Service>().get(&self.names.service()).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        Ok(Database {
            address,
            port: POSTGRES_PORT,
            server_port: POSTGRES_PORT,
            user: text("username")?,
            password: text("password")?,
            dbname: text("dbname")?,
        })
    }

    /// The postmaster's process on this machine.
    pub async fn postmaster(&self, pod: &str) -> Result<Process> {
        let processes = self.namespace.cluster.pod_processes(&self.namespace.name, pod).await?;
        let all = processes.get(POSTGRES_CONTAINER).context("no container postgres")?;
        // Its children have titles such as `postgres: checkpointer`.
        let found = all.iter().find(|one| {
            let program = one.command.split(' ').next().unwrap_or_default();
            program.rsplit('/').next() == Some("postgres") && one.command.contains(" -D")
        });
        Ok(found.with_context(|| format!("no postmaster among {all:?}"))?.process)
    }

    /// Deletes it with its volumes, and waits until its pods are gone.
    pub async fn delete(&self) -> Result<()> {
        if self.api().get_opt(self.name()).await?.is_some() {
            self.api().delete(self.name(), &DeleteParams::foreground()).await?;
        }
        let what = format!("{} is gone", self.name());
        let cluster = &self.namespace.cluster;
        cluster
            .wait(&what, Duration::from_mins(2), async || {
                let left = self.members().await?.len();
                let exists = self.api().get_opt(self.name()).await?.is_some();
                Ok((left > 0 || exists).then(|| format!("{left} pods are left")))
            })
            .await?;
        let claims = self.namespace.api::<PersistentVolumeClaim>();
        claims.delete_collection(&DeleteParams::default(), &ListParams::default().labels(&self.selector())).await?;
        cluster
            .wait(&what, Duration::from_secs(30), async || {
                let left = claims.list(&ListParams::default().labels(&self.selector())).await?.items.len();
                Ok((left > 0).then(|| format!("{left} volume claims are left")))
            })
            .await?;
        cluster.recycle_volumes().await.map(drop)
    }
}

impl Member {
    fn of(pod: Pod) -> Self {
        let metadata = pod.metadata;
        let status = pod.status.unwrap_or_default();
        let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let annotations = metadata.annotations.unwrap_or_default();
        let own = annotations.get(STATUS_ANNOTATION).and_then(|text| serde_json::from_str(text).ok());
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            address: status.pod_ip.clone().unwrap_or_default(),
            node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
            ready: status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True"),
            deleting: metadata.deletion_timestamp.is_some(),
            restarts: containers.map(|one| one.restart_count).sum(),
            status: own.unwrap_or_default(),
        }
    }

    /// A word of its status.
    pub fn says(&self, key: &str) -> &str {
        self.status[key].as_str().unwrap_or_default()
    }

    /// For messages.
    fn describe(&self) -> String {
        let Self { name, ready, deleting, status, .. } = self;
        let reason = status["matriarch"]["reason"].as_str().unwrap_or_default();
        let going = if *deleting { ", being deleted" } else { "" };
        format!(
            "{name}: ready {ready}{going}, role {:?}, state {:?}, replication {:?}, timeline {}, {reason}",
            self.says("role"),
            self.says("state"),
            self.says("replication_state"),
            status["timeline"],
        )
    }
}
