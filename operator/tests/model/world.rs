//! A small Kubernetes: objects with versions and uids, the StatefulSet controller, garbage collection, kubelets, nodes,
//! the eviction API. Just enough that what the operator writes has the effect that it has in a real one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use matriarch_crds::PostgresCluster;
use matriarch_operator::kinds::Kind;
use matriarch_operator::member::{AgentReport, Member, Trouble};
use matriarch_operator::nodes::Node;
use matriarch_operator::observe::Seen;
use matriarch_operator::plan::restarts::Restarted;
use matriarch_operator::plan::{RESTART_ANNOTATION, example};
use serde_json::{Value, json};

/// The cluster's name, as in the example.
pub const NAME: &str = "orders";
/// Of the image that no node can pull.
pub const BAD_IMAGE: &str = "postgrse:17";
/// After so many seconds a pod that is being deleted is killed.
pub const GRACE: i64 = 90;

/// One pod.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub ordinal: i32,
    pub uid: String,
    pub created: i64,
    pub deleting: Option<i64>,
    pub node: Option<String>,
    pub image: String,
    pub made_with: String,
    pub agent_image: String,
    pub agent_runs: String,
    pub agent_upgraded: Option<Timestamp>,
    pub mounted: Option<String>,
    /// PostgreSQL runs.
    pub up: bool,
    /// It streams or leads, so clients can use it.
    pub ready: bool,
    /// Since when, and whether it confirms commits: a moment later, when the leader has seen it.
    pub ready_since: Option<i64>,
    pub confirms: bool,
    /// `max_connections` with which PostgreSQL runs.
    pub runs: u64,
    /// The same of its primary, as `pg_control` names it.
    pub control: u64,
    /// For which change the operator had it restarted.
    pub restarted: Option<Restarted>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct World {
    pub now: i64,
    pub cluster: PostgresCluster,
    pub objects: BTreeMap<(Kind, String), Value>,
    pub pods: BTreeMap<String, Pod>,
    /// What is on each data volume: a position in the log.
    pub disks: BTreeMap<String, u64>,
    pub nodes: BTreeMap<String, bool>,
    pub sidecar_image: String,
    pub sees_nodes: bool,
    /// The last commit that a client was told of.
    pub acked: u64,
    /// Nobody can reach an agent.
    pub agents_hidden: bool,
    /// What the objects of a claim lost on purpose are.
    pub lost: BTreeSet<String>,
    counter: u64,
}

impl World {
    /// Nothing but the resource.
    pub fn new(spec: &Value) -> Self {
        let mut all = json!({"instances": 3, "image": "postgres:17", "storage": {"size": "1Gi"}});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        let mut cluster = example(serde_json::from_value(all).unwrap()).cluster;
        cluster.metadata.generation = Some(1);
        Self {
            now: 1_000_000,
            cluster,
            objects: BTreeMap::new(),
            pods: BTreeMap::new(),
            disks: BTreeMap::new(),
            nodes: (0..4).map(|n| (format!("node-{n}"), false)).collect(),
            sidecar_image: "sidecar:1".into(),
            sees_nodes: true,
            acked: 0,
            agents_hidden: false,
            lost: BTreeSet::new(),
            counter: 0,
        }
    }

    pub fn next(&mut self) -> String {
        self.counter += 1;
        self.counter.to_string()
    }

    pub fn annotation(&self, object: &str, key: &str) -> Option<String> {
        let value = &self.objects.get(&(Kind::ConfigMap, object.to_owned()))?["metadata"]["annotations"][key];
        value.as_str().filter(|v| !v.is_empty()).map(str::to_owned)
    }

    pub fn annotate(&mut self, object: &str, key: &str, value: Option<&str>) {
        let version = self.next();
        if let Some(found) = self.objects.get_mut(&(Kind::ConfigMap, object.to_owned())) {
            found["metadata"]["annotations"][key] = json!(value);
            found["metadata"]["resourceVersion"] = json!(version);
        }
    }

    pub fn leader(&self) -> Option<String> {
        self.annotation("orders-leader", "leader")
    }

    /// Gives somebody the lock, as of now.
    pub fn lock(&mut self, member: &str) {
        let now = Timestamp::from_second(self.now).unwrap().to_string();
        self.annotate("orders-leader", "leader", Some(member));
        self.annotate("orders-leader", "acquireTime", Some(&now));
    }

    /// The leader, if it serves.
    pub fn serving(&self) -> Option<String> {
        self.leader().filter(|l| self.pods.get(l).is_some_and(|p| p.up && p.deleting.is_none()))
    }

    pub fn set(&self) -> Option<&Value> {
        self.objects.get(&(Kind::StatefulSet, NAME.to_owned()))
    }

    pub fn replicas(&self) -> i64 {
        self.set().map_or(0, |s| s["spec"]["replicas"].as_i64().unwrap())
    }

    pub fn disk(&self, pod: &str) -> Option<u64> {
        self.disks.get(&format!("data-{pod}")).copied()
    }

    pub fn fenced(&self, pod: &str) -> bool {
        self.cluster.spec.fenced.iter().any(|f| f == pod)
    }

    /// As the operator sees it.
    pub fn seen(&self) -> Seen {
        let mut seen = example(self.cluster.spec.clone());
        seen.now = Timestamp::from_second(self.now).unwrap();
        seen.cluster = self.cluster.clone();
        seen.sidecar_image.clone_from(&self.sidecar_image);
        seen.objects = self.objects.clone();
        seen.members = self.pods.iter().map(|(name, pod)| self.member(name, pod)).collect();
        seen.nodes = self.sees_nodes.then(|| {
            let node =
                |(name, drained): (&String, &bool)| (name.clone(), Node { drained: *drained, hostname: name.clone() });
            self.nodes.iter().map(node).collect()
        });
        seen
    }

    fn member(&self, name: &str, pod: &Pod) -> Member {
        let bad = pod.image == BAD_IMAGE && pod.node.is_some();
        let trouble = bad.then(|| Trouble { reason: "ImagePullFailed", message: "correct spec.image".into() });
        let state = if pod.up { "running" } else { "stopped" };
        let wanted = self.wanted();
        let waits = (pod.up && pod.runs != wanted)
            .then(|| ("max_connections".to_owned(), [pod.runs.to_string(), wanted.to_string()]));
        Member {
            name: name.to_owned(),
            ordinal: pod.ordinal,
            uid: pod.uid.clone(),
            created: Timestamp::from_second(pod.created).ok(),
            deleting: pod.deleting.is_some(),
            gone_by: pod.deleting.and_then(|d| Timestamp::from_second(d).ok()),
            node: pod.node.clone(),
            ip: None,
            claims: vec![format!("data-{name}")],
            postgres_down: pod.node.is_none() || bad,
            ready: pod.ready,
            ready_since: pod.ready_since.filter(|_| pod.ready).and_then(|at| Timestamp::from_second(at).ok()),
            agent_image: pod.agent_image.clone(),
            agent_settled: pod.agent_image == pod.agent_runs,
            agent_upgraded: pod.agent_upgraded,
            made_with: Some(pod.made_with.clone()),
            mounted: pod.mounted.clone(),
            restarted: pod.restarted.clone(),
            report: AgentReport {
                state: (pod.node.is_some() && !bad).then(|| state.to_owned()),
                xlog_location: self.disk(name).and_then(|lsn| i64::try_from(lsn).ok()),
                pending_restart: Some(waits.is_some()),
                pending: waits.into_iter().collect(),
                replication_state: pod.ready.then(|| "streaming".to_owned()),
                ..AgentReport::default()
            },
            trouble,
        }
    }

    /// The StatefulSet controller: `Parallel`, `OnDelete`.
    pub fn controller(&mut self) {
        let Some(set) = self.set().cloned() else { return };
        if !set["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let replicas = i32::try_from(set["spec"]["replicas"].as_i64().unwrap()).unwrap();
        let until = self.now + GRACE;
        for pod in self.pods.values_mut().filter(|p| p.ordinal >= replicas && p.deleting.is_none()) {
            pod.deleting = Some(until);
        }
        let template = &set["spec"]["template"];
        for ordinal in 0..replicas {
            let name = format!("{NAME}-{ordinal}");
            let claim = format!("data-{name}");
            if self.pods.contains_key(&name) {
                continue;
            }
            let uid = self.next();
            let pod = Pod {
                ordinal,
                uid: format!("pod-{uid}"),
                created: self.now,
                image: template["spec"]["containers"][0]["image"].as_str().unwrap().to_owned(),
                made_with: template["metadata"]["annotations"][RESTART_ANNOTATION].as_str().unwrap().to_owned(),
                agent_image: template["spec"]["initContainers"][1]["image"].as_str().unwrap().to_owned(),
                ..Pod::default()
            };
            self.pods.insert(name, pod);
            let key = (Kind::PersistentVolumeClaim, claim.clone());
            if let Entry::Vacant(free) = self.objects.entry(key) {
                free.insert(json!({
                    "metadata": {"name": claim, "uid": format!("claim-{uid}"), "resourceVersion": uid},
                    "spec": {"resources": set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]},
                    "status": {"phase": "Bound"},
                }));
                self.lost.remove(&claim);
            }
        }
    }

    /// What is on its way out and held by nobody goes.
    pub fn collect(&mut self) {
        let on_its_way = |o: &Value| !o["metadata"]["deletionTimestamp"].is_null();
        let used: BTreeSet<String> =
            self.pods.iter().filter(|(_, p)| p.node.is_some()).map(|(name, _)| format!("data-{name}")).collect();
        let gone: Vec<(Kind, String)> = self
            .objects
            .iter()
            .filter(|((_, name), object)| on_its_way(object) && !used.contains(name))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.objects.remove(&key);
            self.disks.remove(&key.1);
        }
    }

    /// The scheduler and one pod's kubelet.
    pub fn kubelet(&mut self, name: &str) {
        let claim = self.objects.get(&(Kind::PersistentVolumeClaim, format!("data-{name}")));
        let usable =
            claim.is_some_and(|c| c["metadata"]["deletionTimestamp"].is_null() && c["status"]["phase"] == "Bound");
        let open = self.nodes.iter().filter(|(_, drained)| !**drained).map(|(n, _)| n.clone());
        let taken: Vec<String> = self.pods.values().filter_map(|p| p.node.clone()).collect();
        let mut open: Vec<String> = open.collect();
        open.sort_by_key(|n| taken.iter().filter(|t| *t == n).count());
        let fenced = self.fenced(name);
        let Some(pod) = self.pods.get_mut(name) else { return };
        if pod.deleting.is_some() {
            self.stop(name);
            self.pods.remove(name);
            return;
        }
        if pod.node.is_none() {
            if usable && let Some(node) = open.first() {
                pod.node = Some(node.clone());
            }
            return;
        }
        pod.agent_runs.clone_from(&pod.agent_image);
        if !pod.up && pod.image != BAD_IMAGE && !fenced {
            self.start(name);
        }
    }

    /// `max_connections` as the dynamic configuration has it.
    pub fn wanted(&self) -> u64 {
        let config = self.annotation("orders-config", "config").unwrap_or_default();
        let config: Value = serde_json::from_str(&config).unwrap_or_default();
        config["postgresql"]["parameters"]["max_connections"].as_u64().unwrap_or(100)
    }

    /// PostgreSQL starts: a standby with no less than its primary had, a primary with no more than its standbys have.
    pub fn start(&mut self, name: &str) {
        let wanted = self.wanted();
        let leads = self.leader().as_deref() == Some(name);
        let least = self.pods.iter().filter(|(n, p)| *n != name && p.up).map(|(_, p)| p.runs).min();
        let Some(pod) = self.pods.get_mut(name) else { return };
        pod.runs = match least {
            Some(least) if leads && wanted > least => wanted.min(least.max(pod.control)),
            _ if leads => wanted,
            _ => wanted.max(pod.control),
        };
        if leads {
            pod.control = pod.runs;
        }
        pod.up = true;
    }

    /// PostgreSQL stops cleanly; a leader releases the lock.
    pub fn stop(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            (pod.up, pod.ready) = (false, false);
        }
        if self.leader().as_deref() == Some(name) {
            self.annotate("orders-leader", "leader", None);
        }
    }

    /// Evicts what is on drained nodes, as `kubectl drain` does, as far as the budgets let it.
    pub fn evict(&mut self) {
        let on_drained: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, p)| p.deleting.is_none() && p.node.as_ref().is_some_and(|n| self.nodes[n]))
            .map(|(name, _)| name.clone())
            .collect();
        for name in on_drained {
            let budgets: Vec<Value> = self.budgets_of(&name);
            assert!(budgets.len() < 2, "{name} is in two budgets, which the eviction API refuses for good");
            let allowed = budgets.iter().all(|budget| {
                let healthy = i64::try_from(
                    self.pods
                        .iter()
                        .filter(|(n, p)| p.ready && p.deleting.is_none() && self.selects(budget, n))
                        .count(),
                )
                .unwrap();
                let least = budget["spec"]["minAvailable"].as_i64().unwrap_or_else(|| self.replicas() - 1);
                healthy > least
            });
            if allowed {
                self.pods.get_mut(&name).unwrap().deleting = Some(self.now + GRACE);
            }
        }
    }

    fn budgets_of(&self, pod: &str) -> Vec<Value> {
        let budgets = self.objects.iter().filter(|((kind, _), _)| *kind == Kind::PodDisruptionBudget);
        budgets.map(|(_, b)| b.clone()).filter(|b| self.selects(b, pod)).collect()
    }

    fn selects(&self, budget: &Value, pod: &str) -> bool {
        let role = if self.leader().as_deref() == Some(pod) { "primary" } else { "replica" };
        let selector = &budget["spec"]["selector"];
        let labels = &selector["matchLabels"];
        let is = labels["role"].is_null() || labels["role"] == role;
        let is_not = selector["matchExpressions"].as_array().into_iter().flatten().all(|e| {
            assert_eq!((e["key"].as_str(), e["operator"].as_str()), (Some("role"), Some("NotIn")));
            !e["values"].as_array().unwrap().contains(&json!(role))
        });
        is && is_not
    }
}
