//! A Patroni cluster of members outside of pods: its objects, its configuration, and when it is steady.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::control_plane::{CONTEXT, namespace};
use super::member::{API_PORT, Member, PASSWORD, POSTGRES_PORT};
use super::sandbox;
use super::stage::Stage;
use super::wait::until;

/// How long a bootstrap, and how long the way back to normal may take.
pub const STEADY: Duration = Duration::from_mins(1);

/// How a team is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scope, and the namespace.
    pub name: String,
    /// How many members.
    pub members: u8,
    /// Address of the first one.
    pub first: u8,
    /// Merged into the dynamic configuration that the cluster begins with.
    pub dcs: Value,
    /// Merged into every member's file.
    pub file: Value,
}

impl Plan {
    /// Three members in quorum durability, ttl 6.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), members: 3, first: 1, dcs: json!({}), file: json!({}) }
    }

    /// With more dynamic configuration.
    #[must_use]
    pub fn dcs(mut self, more: Value) -> Self {
        merge(&mut self.dcs, more);
        self
    }

    /// Without synchronous replication.
    #[must_use]
    pub fn asynchronous(self) -> Self {
        self.dcs(json!({"synchronous_mode": false}))
    }

    /// With more in every member's file.
    #[must_use]
    pub fn file(mut self, more: Value) -> Self {
        merge(&mut self.file, more);
        self
    }

    /// The members keep lock and configuration in Endpoints.
    pub fn endpoints(&self) -> bool {
        self.file["kubernetes"]["use_endpoints"] == true
    }

    fn dynamic(&self) -> Value {
        let mut dcs = json!({
            "ttl": 6, "loop_wait": 1, "retry_timeout": 2, "synchronous_mode": "quorum", "failsafe_mode": true,
            "postgresql": {
                "use_pg_rewind": true, "use_slots": true,
                "pg_hba": ["host all all all scram-sha-256", "host replication all all scram-sha-256"],
                "parameters": {
                    "shared_buffers": "16MB", "max_connections": 40, "log_checkpoints": "off", "min_wal_size": "16MB",
                    "max_wal_size": "128MB", "wal_keep_size": "32MB",
                },
            },
        });
        merge(&mut dcs, self.dcs.clone());
        dcs
    }

    /// Patroni's file for a member.
    pub fn patroni(&self, member: &Member) -> Value {
        let folder = member.folder.display();
        let mut file = json!({
            "scope": self.name,
            "name": member.name,
            "kubernetes": {"namespace": self.name, "labels": {"application": "patroni"}, "context": CONTEXT},
            "restapi": {
                "listen": format!("{}:{API_PORT}", member.address),
                "connect_address": format!("{}:{API_PORT}", member.address),
            },
            "bootstrap": {
                "dcs": self.dynamic(),
                // Small segments: a directory is copied in no time.
                "initdb": ["data-checksums", {"encoding": "UTF8"}, {"locale": "C"}, {"wal-segsize": "1"}],
            },
            "postgresql": {
                "listen": format!("{}:{POSTGRES_PORT}", member.address),
                "connect_address": format!("{}:{POSTGRES_PORT}", member.address),
                "data_dir": format!("{folder}/pgdata"),
                "bin_dir": member.postgres.bin_dir,
                "pgpass": format!("{folder}/pgpass"),
                "use_unix_socket": true,
                "authentication": {
                    "superuser": {"username": "postgres", "password": PASSWORD},
                    "replication": {"username": "replicator", "password": "rep-pass_%"},
                    "rewind": {"username": "rewind_user", "password": "rewind_password"},
                },
                "parameters": {"unix_socket_directories": folder.to_string()},
            },
            "tags": {"noloadbalance": false, "clonefrom": false},
        });
        merge(&mut file, self.file.clone());
        if self.endpoints() {
            file["kubernetes"]["pod_ip"] = json!(member.address);
        }
        file
    }
}

/// Mappings are merged, null deletes, everything else replaces.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                if value.is_null() {
                    into.remove(&name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

/// The cluster.
pub struct Team<'a> {
    /// How it was made.
    pub plan: Plan,
    /// All members, by number.
    pub members: Vec<Member>,
    stage: &'a Stage,
}

impl<'a> Team<'a> {
    /// Makes namespace, rights, Pod objects and files; starts nothing.
    pub async fn new(stage: &'a Stage, plan: Plan) -> Result<Self> {
        let folder = stage.root.join(&plan.name);
        std::fs::create_dir_all(&folder)?;
        for object in namespace(&plan.name) {
            stage.create(&plan.name, object).await?;
        }
        let mut team = Self { plan, members: Vec::new(), stage };
        for number in 0..team.plan.members {
            team.add(number).await?;
        }
        Ok(team)
    }

    /// Makes a member with its Pod object and its file, and does not start it.
    pub async fn add(&mut self, number: u8) -> Result<()> {
        let folder = self.folder();
        let name = format!("{}-{number}", self.plan.name);
        let address = sandbox::member(self.plan.first + number);
        let member = Member::new(&name, address, &folder, self.stage)?;
        member.configure(&self.plan.patroni(&member))?;
        self.create_pod(&name).await?;
        self.members.push(member);
        Ok(())
    }

    /// Makes it, starts all and waits until it is steady.
    pub async fn running(stage: &'a Stage, plan: Plan) -> Result<Self> {
        let team = Self::new(stage, plan).await?;
        team.start_all()?;
        team.steady(STEADY).await?;
        Ok(team)
    }

    /// Where it lives.
    pub fn folder(&self) -> PathBuf {
        self.stage.root.join(&self.plan.name)
    }

    /// Starts every agent.
    pub fn start_all(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| self.start(member))
    }

    /// Starts one agent.
    pub fn start(&self, member: &Member) -> Result<()> {
        member.start(&self.stage.kubeconfig())
    }

    /// One member by name.
    pub fn member(&self, name: &str) -> Result<&Member> {
        self.members.iter().find(|member| member.name == name).with_context(|| format!("there is no member {name}"))
    }

    /// The Pod object of a member, which no kubelet will ever see.
    pub async fn create_pod(&self, name: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"application": "patroni", "cluster-name": self.plan.name}},
            "spec": {"containers": [{"name": "patroni", "image": "none"}]},
        });
        self.stage.create(&self.plan.name, pod).await
    }

    /// Pod objects.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.stage.plane.client.clone(), &self.plan.name)
    }

    /// Lock, config, failover, sync: ConfigMaps, or Endpoints where the members' file says so.
    pub fn objects(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("", "v1", if self.plan.endpoints() { "Endpoints" } else { "ConfigMap" });
        // Endpoints are their own plural.
        let plural = if self.plan.endpoints() { "endpoints" } else { "configmaps" };
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::namespaced_with(self.stage.plane.client.clone(), &self.plan.name, &resource)
    }

    /// The name of an object: the lock is the Service's Endpoints where there are such.
    fn object(&self, suffix: &str) -> String {
        match suffix {
            "leader" if self.plan.endpoints() => self.plan.name.clone(),
            _ => format!("{}-{suffix}", self.plan.name),
        }
    }

    /// An annotation of `<scope>-<suffix>`, or of the Endpoints that stand for it.
    pub async fn annotation(&self, suffix: &str, name: &str) -> Result<Option<String>> {
        let object = self.objects().get_opt(&self.object(suffix)).await?;
        Ok(object.and_then(|object| object.metadata.annotations).and_then(|all| all.get(name).cloned()))
    }

    /// Deletes an object of the cluster.
    pub async fn wipe(&self, suffix: &str) -> Result<()> {
        self.objects().delete(&self.object(suffix), &DeleteParams::default()).await?;
        Ok(())
    }

    /// Who has the lock.
    pub async fn leader(&self) -> Result<&Member> {
        let leader = self.annotation("leader", "leader").await?.context("nobody has the lock")?;
        self.member(&leader)
    }

    /// All but the leader.
    pub async fn standbys(&self) -> Result<Vec<&Member>> {
        let leader = self.leader().await?;
        Ok(self.members.iter().filter(|member| member.name != leader.name).collect())
    }

    /// Changes the dynamic configuration as `patronictl edit-config` does.
    pub async fn edit_config(&self, change: Value) -> Result<()> {
        let text = self.annotation("config", "config").await?.context("there is no config")?;
        let mut config: Value = serde_json::from_str(&text)?;
        merge(&mut config, change);
        let patch = json!({"metadata": {"annotations": {"config": config.to_string()}}});
        self.objects().patch(&self.object("config"), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until another member than `old` has the lock and is a primary.
    pub async fn other_leader(&self, old: &str, deadline: Duration) -> Result<&Member> {
        until(&format!("another member than {old} leads"), deadline, async || {
            let leader = self.leader().await?;
            if leader.name == old {
                return Ok(Err(format!("{old} has the lock")));
            }
            let role = leader.status().await?["role"].clone();
            Ok(if role == "primary" { Ok(leader) } else { Err(format!("{} has the lock and is {role}", leader.name)) })
        })
        .await
    }

    /// Waits until the members that run are one primary and standbys that stream from it.
    pub async fn steady(&self, deadline: Duration) -> Result<()> {
        let what = format!("{} is steady", self.plan.name);
        until(&what, deadline, async || {
            let running: Vec<&Member> = self.members.iter().filter(|member| member.agent().is_ok()).collect();
            Ok(self.missing(&running).await?.map_or(Ok(()), Err))
        })
        .await
    }

    async fn missing(&self, members: &[&Member]) -> Result<Option<String>> {
        let leader = self.leader().await?;
        if self.annotation("config", "initialize").await?.is_none_or(|id| id.is_empty()) {
            return Ok(Some("the cluster is not initialized".to_owned()));
        }
        let timeline = leader.status().await?["timeline"].clone();
        for member in members {
            let status = member.status().await.with_context(|| format!("asking {}", member.name))?;
            let role = status["role"].as_str().unwrap_or_default();
            let fine = if member.name == leader.name {
                matches!(role, "primary" | "standby_leader")
            } else if status["tags"]["nostream"] == true {
                role == "replica" && status["timeline"] == timeline
            } else {
                role == "replica" && status["replication_state"] == "streaming" && status["timeline"] == timeline
            };
            if !fine || status["state"] != "running" {
                let rule = &status["matriarch"];
                return Ok(Some(format!(
                    "{} is {} as {role} on timeline {} ({}: {})",
                    member.name, status["state"], status["timeline"], rule["rule"], rule["reason"]
                )));
            }
        }
        if self.plan.endpoints() {
            let addresses = self.service_addresses().await?;
            if addresses != [leader.address.to_string()] {
                return Ok(Some(format!("the Service leads to {addresses:?}, {} has the lock", leader.name)));
            }
        }
        let wants_sync = self.annotation("config", "config").await?.is_some_and(|text| {
            serde_json::from_str::<Value>(&text).is_ok_and(|config| config["synchronous_mode"] == "quorum")
        });
        if wants_sync && leader.status().await?["role"] == "primary" {
            let voters = self.annotation("sync", "sync_standby").await?.unwrap_or_default();
            // A member that joins is counted at once and voted with when it has all: until then nobody else can be lost.
            let quorum = self.annotation("sync", "quorum").await?.unwrap_or_default();
            let others = voters.split(',').filter(|voter| !voter.is_empty()).count();
            if others > 0 && quorum != (others - 1).to_string() {
                return Ok(Some(format!("{quorum} of {voters} are needed to lead: one of them joins")));
            }
            for member in members.iter().filter(|member| member.name != leader.name) {
                let tags = member.status().await?["tags"].clone();
                if tags["nostream"] == true || tags["nosync"] == true {
                    continue;
                }
                if !voters.split(',').any(|voter| voter == member.name) && members.len() > 1 {
                    return Ok(Some(format!("{} is not among the synchronous standbys ({voters})", member.name)));
                }
            }
        }
        Ok(None)
    }
}
