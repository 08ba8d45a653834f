//! A cluster as its objects show it: leader lock, synchronous standbys, history, and what each member says about itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use matriarch_crds::cluster::Condition;
use matriarch_crds::names::STATUS_ANNOTATION;
use matriarch_crds::pods::agent_image;
use matriarch_crds::{PostgresCluster, StoreMode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Annotations of one shared object.
pub type Annotations = BTreeMap<String, String>;

/// All that is stored of a cluster.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Objects {
    /// Its resource.
    pub resource: PostgresCluster,
    /// Its members' pods.
    pub pods: Vec<Pod>,
    /// Of the leader lock.
    pub leader: Annotations,
    /// Of the `-config` object.
    pub config: Annotations,
    /// Of the `-sync` object.
    pub sync: Annotations,
    /// Of the `-failover` object.
    pub failover: Annotations,
}

/// One member.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    /// Where it is, as PostgreSQL writes it.
    pub lsn: Option<String>,
    /// Bytes behind the leader; None for the leader and where it is not known.
    pub lag: Option<i64>,
    /// Bytes that are received and not replayed yet, and those not received.
    pub replay_lag: Option<i64>,
    /// It has to be restarted for a setting.
    pub pending_restart: bool,
    /// For which, where it says so: name to old and new value.
    pub pending_restart_reason: Value,
    /// A restart for later, in Patroni's keys.
    pub scheduled_restart: Option<Value>,
    /// Its tags.
    pub tags: Map<String, Value>,
    /// The rule in force.
    pub rule: String,
    /// Why it is where it is.
    pub reason: String,
    /// Settings that cannot be used, and why.
    pub invalid_parameters: BTreeMap<String, String>,
    /// Its pod is ready.
    pub ready: bool,
    /// Its pod is being deleted.
    pub deleting: bool,
    /// It knows that the cluster is paused.
    pub paused: bool,
    /// PostgreSQL's version.
    pub version: String,
    /// Where the pod runs.
    pub node: String,
    /// The agent's image.
    pub agent: String,
    /// How often a container of the pod was restarted.
    pub restarts: i32,
}

/// A timeline that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Which.
    pub timeline: i64,
    /// Where, as PostgreSQL writes it.
    pub lsn: String,
    /// PostgreSQL's words.
    pub reason: String,
    /// When the next one began.
    pub at: Option<String>,
    /// Who led it.
    pub leader: Option<String>,
}

/// One cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// System identifier, `initializing` or `uninitialized`.
    pub identifier: String,
    /// The holder of the leader lock.
    pub leader: Option<String>,
    /// When it took the lock.
    pub leader_since: Option<String>,
    /// When it renewed it last.
    pub renewed: Option<String>,
    /// For so many seconds a renewal is good.
    pub ttl: Option<i64>,
    /// The leader's timeline.
    pub timeline: Option<i64>,
    /// How many members there should be.
    pub wanted: i32,
    /// By name.
    pub members: Vec<Member>,
    /// How old lags and positions are: `now`, or a sentence.
    pub positions: String,
    /// Maintenance mode.
    pub paused: bool,
    /// Members whose PostgreSQL shall be stopped.
    pub fenced: Vec<String>,
    /// It shall have no pods.
    pub hibernated: bool,
    /// Synchronous mode: `quorum`, `true` or empty.
    pub synchronous_mode: String,
    /// Standbys that may become primary without a loss; empty if not synchronous.
    pub sync_standbys: Vec<String>,
    /// A switchover that is asked for: from, to, when.
    pub switchover: Option<[String; 3]>,
    /// Why the last switchover was not done.
    pub refused: Option<String>,
    /// The timelines that ended, oldest first.
    pub history: Vec<Ended>,
    /// The operator's conditions.
    pub conditions: Vec<Condition>,
    /// The spec has changed since the operator looked.
    pub unobserved: bool,
    /// Which kind of object carries the shared state.
    pub store_mode: String,
    /// The dynamic configuration.
    #[serde(skip)]
    pub config: Value,
}

fn value(annotations: &Annotations, key: &str) -> Option<String> {
    annotations.get(key).filter(|v| !v.is_empty()).cloned()
}

impl Cluster {
    /// From its objects.
    pub fn of(objects: &Objects) -> Self {
        let Objects { resource, leader: lock, config, sync, failover, .. } = objects;
        let leader = value(lock, "leader");
        let dynamic: Value = value(config, "config").and_then(|c| serde_json::from_str(&c).ok()).unwrap_or_default();
        let synchronous_mode = match &dynamic["synchronous_mode"] {
            Value::String(mode) if mode == "quorum" => "quorum",
            Value::Bool(true) => "true",
            Value::String(mode) if mode == "on" || mode == "true" => "true",
            _ => "",
        };
        let sync_standbys = if synchronous_mode.is_empty() || value(sync, "leader") != leader {
            Vec::new()
        } else {
            value(sync, "sync_standby")
                .unwrap_or_default()
                .split(',')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let wanted = ["leader", "member", "scheduled_at"].map(|k| value(failover, k).unwrap_or_default());
        let status = resource.status.clone().unwrap_or_default();
        let mut this = Self {
            namespace: resource.namespace().unwrap_or_default(),
            name: resource.name_any(),
            identifier: match config.get("initialize").map(String::as_str) {
                None => "uninitialized".to_owned(),
                Some("") => "initializing".to_owned(),
                Some(identifier) => identifier.to_owned(),
            },
            leader_since: value(lock, "acquireTime").filter(|_| leader.is_some()),
            renewed: value(lock, "renewTime").filter(|_| leader.is_some()),
            ttl: value(lock, "ttl").and_then(|t| t.parse().ok()),
            leader,
            wanted: resource.spec.instances,
            positions: "as last published".to_owned(),
            paused: dynamic["pause"].as_bool() == Some(true),
            fenced: objects.resource.spec.fenced.clone(),
            hibernated: objects.resource.spec.hibernate,
            synchronous_mode: synchronous_mode.to_owned(),
            sync_standbys,
            switchover: wanted[..2].iter().any(|v| !v.is_empty()).then_some(wanted),
            refused: value(failover, "matriarch.dev/result"),
            history: history(value(config, "history")),
            unobserved: status.observed_generation != resource.metadata.generation,
            conditions: status.conditions,
            store_mode: match resource.spec.store_mode {
                StoreMode::ConfigMaps => "ConfigMaps",
                StoreMode::Endpoints => "Endpoints",
            }
            .to_owned(),
            config: dynamic,
            ..Self::default()
        };
        let head = |pod: &Pod| report(pod)["xlog_location"].as_i64();
        let position = objects
            .pods
            .iter()
            .filter(|p| Some(p.name_any()) == this.leader)
            .find_map(head)
            .max(value(lock, "optime").and_then(|o| o.parse().ok()));
        this.members = objects.pods.iter().map(|pod| this.member(pod, position)).collect();
        this.members.sort_by(|a, b| a.name.cmp(&b.name));
        this.timeline = this.leading().and_then(|m| m.timeline);
        this
    }

    fn member(&self, pod: &Pod, position: Option<i64>) -> Member {
        let name = pod.name_any();
        let report = report(pod);
        let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
        let leads = self.leader.as_deref() == Some(&name);
        let standby = if self.synchronous_mode == "quorum" { "Quorum Standby" } else { "Sync Standby" };
        let replication = text("replication_state");
        let location = report["xlog_location"].as_i64();
        let behind = |at: Option<i64>| if leads { None } else { position.zip(at).map(|(p, l)| (p - l).max(0)) };
        let status = pod.status.clone().unwrap_or_default();
        let own = &report["matriarch"];
        let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        Member {
            host: host(&text("conn_url")).unwrap_or_else(|| status.pod_ip.clone().unwrap_or_default()),
            role: match () {
                () if leads && text("role") == "standby_leader" => "Standby Leader",
                () if leads => "Leader",
                () if self.sync_standbys.iter().any(|s| s.eq_ignore_ascii_case(&name)) => standby,
                () => "Replica",
            }
            .to_owned(),
            state: if leads || replication.is_empty() { text("state") } else { replication },
            timeline: report["timeline"].as_i64(),
            lsn: location.map(lsn),
            lag: behind(location),
            replay_lag: behind(report["replay_lsn"].as_i64()),
            pending_restart: report["pending_restart"].as_bool() == Some(true),
            pending_restart_reason: report["pending_restart_reason"].clone(),
            scheduled_restart: report.get("scheduled_restart").filter(|r| r.is_object()).cloned(),
            tags: report["tags"].as_object().cloned().unwrap_or_default(),
            rule: own["rule"].as_str().unwrap_or_default().to_owned(),
            reason: own["reason"].as_str().unwrap_or_default().to_owned(),
            invalid_parameters: own["invalid_parameters"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
            ready: status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            paused: report["pause"].as_bool() == Some(true),
            version: own["server_version"].as_i64().map(version).unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
            agent: agent_image(pod).unwrap_or_default().to_owned(),
            restarts: containers.map(|c| c.restart_count).sum(),
            name,
        }
    }

    /// The leader's row.
    pub fn leading(&self) -> Option<&Member> {
        self.members.iter().find(|m| Some(&m.name) == self.leader.as_ref())
    }

    /// `namespace/name`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
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

/// The `history` key: `[timeline, position, reason, when, who]`, the last two only where they are known.
fn history(text: Option<String>) -> Vec<Ended> {
    let lines: Vec<Vec<Value>> = text.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
    let words = |line: &[Value], n: usize| line.get(n).and_then(Value::as_str).map(str::to_owned);
    lines
        .iter()
        .map(|line| Ended {
            timeline: line.first().and_then(Value::as_i64).unwrap_or_default(),
            lsn: line.get(1).and_then(Value::as_i64).map(lsn).unwrap_or_default(),
            reason: words(line, 2).unwrap_or_default(),
            at: words(line, 3),
            leader: words(line, 4),
        })
        .collect()
}

/// Of `postgres://host:port/database`; the port only if it is not PostgreSQL's own.
fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let address = rest.split('/').next()?;
    Some(address.strip_suffix(":5432").unwrap_or(address).to_owned())
}

/// As PostgreSQL writes it.
fn lsn(position: i64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// 170004 → 17.4; before 10, 90603 → 9.6.3.
fn version(number: i64) -> String {
    if number >= 100_000 {
        format!("{}.{}", number / 10_000, number % 10_000)
    } else {
        format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_postgresql_does() {
        assert_eq!(
            (lsn(0x1_0300_0060), version(170_004), version(90_603)),
            ("1/3000060".into(), "17.4".into(), "9.6.3".into())
        );
    }

    #[test]
    fn the_host_is_the_members_own() {
        assert_eq!(host("postgres://h.x.svc:5432/postgres"), Some("h.x.svc".to_owned()));
        assert_eq!(host("postgres://h:5433/postgres"), Some("h:5433".to_owned()));
        assert_eq!(host("nonsense"), None);
    }
}
