//! What kubelets and agents would say: every pod becomes ready, the first member of each cluster holds its lock and renews it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::ResourceExt as _;
use matriarch_crds::names::{
    AGENT_CONTAINER, APPLICATION, APPLICATION_LABEL, ClusterNames, HOLDER_ANNOTATION, INSTALL_CONTAINER,
    POSTGRES_CONTAINER, ROLE_LABEL, ROLE_PRIMARY, ROLE_REPLICA, SCOPE_LABEL, STATUS_ANNOTATION,
};
use serde_json::json;

/// How many pods are served at a time.
const AT_ONCE: usize = 16;
/// How often a leader renews its lock.
const RENEWAL: Duration = Duration::from_secs(2);

/// Serves pods of all namespaces for ever.
pub async fn run(client: Client) -> Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let selector = format!("{APPLICATION_LABEL}={APPLICATION}");
    loop {
        let known = pods.list(&ListParams::default().labels(&selector)).await?;
        let version = known.metadata.resource_version.clone().unwrap_or_default();
        futures::stream::iter(known.items.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |pod| serve(&client, pod))
            .await?;
        let events = pods.watch(&WatchParams::default().labels(&selector).timeout(290), &version).await?;
        events
            .map_err(anyhow::Error::from)
            .try_for_each_concurrent(AT_ONCE, |event| async {
                match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => serve(&client, pod).await,
                    _ => Ok(()),
                }
            })
            .await?;
    }
}

async fn serve(client: &Client, pod: Pod) -> Result<()> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    if ready || pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let scope = pod.labels().get(SCOPE_LABEL).cloned().context("a pod without a cluster")?;
    let leads = name.ends_with("-0");
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let said = json!({"metadata": {
        "labels": {(ROLE_LABEL): if leads { ROLE_PRIMARY } else { ROLE_REPLICA }},
        "annotations": {(STATUS_ANNOTATION): status(&scope, &namespace, &name, leads).to_string()},
    }});
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(said)).await?;
    if leads {
        lock(client, &scope, &namespace, &name, &pod.uid().unwrap_or_default()).await?;
    }
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running(&pod))).await?;
    Ok(())
}

/// As an agent writes it.
fn status(scope: &str, namespace: &str, name: &str, leads: bool) -> serde_json::Value {
    let host = ClusterNames::new(scope, false).member_host(name, namespace);
    let mut status = json!({
        "conn_url": "postgres://10.0.0.1:5432/postgres",
        "api_url": format!("https://{host}:8008/patroni"),
        "state": "running",
        "role": if leads { "primary" } else { "replica" },
        "version": "4.1.0",
        "xlog_location": 67_109_368,
        "timeline": 1,
        "matriarch": {
            "rule": if leads { "leader.renew" } else { "follower.stream" },
            "reason": "",
            "server_version": 160_014,
        },
    });
    if !leads {
        status["replication_state"] = json!("streaming");
    }
    status
}

/// As a kubelet writes it.
fn running(pod: &Pod) -> serde_json::Value {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    let image = |name: &str| {
        let spec = pod.spec.as_ref();
        let all = spec.map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers)).into_iter().flatten();
        all.into_iter().find(|one| one.name == name).and_then(|one| one.image.clone()).unwrap_or_default()
    };
    let container = |name: &str| {
        json!({
            "name": name, "image": image(name), "imageID": "sha256:0", "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        })
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "startTime": now,
        "conditions": conditions,
        "initContainerStatuses": [
            {
                "name": INSTALL_CONTAINER, "image": image(INSTALL_CONTAINER), "imageID": "sha256:0", "ready": true,
                "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}},
            },
            container(AGENT_CONTAINER),
        ],
        "containerStatuses": [container(POSTGRES_CONTAINER)],
    }})
}

/// The first member of a new cluster has made it and leads.
async fn lock(client: &Client, scope: &str, namespace: &str, name: &str, uid: &str) -> Result<()> {
    let names = ClusterNames::new(scope, false);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now().to_string();
    let standbys = format!("{scope}-1,{scope}-2");
    for (object, annotations) in [
        (names.config(), json!({"initialize": "7300000000000000000"})),
        (names.sync(), json!({"leader": name, "sync_standby": standbys, "quorum": "1"})),
        (
            names.leader(),
            json!({
                "leader": name, "acquireTime": now, "renewTime": now, "ttl": "10", "transitions": "0",
                "optime": "67109368", (HOLDER_ANNOTATION): format!("{uid}@{now}"),
            }),
        ),
    ] {
        let body = json!({"metadata": {"annotations": annotations}});
        maps.patch(&object, &PatchParams::default(), &Patch::Merge(body)).await.context(object)?;
    }
    Ok(())
}

/// Renews the locks of these clusters for ever, each as often as a leader does; evenly spread.
pub async fn renew(client: Client, clusters: Vec<(String, String)>) -> Result<()> {
    let count = u32::try_from(clusters.len())?.max(1);
    let mut tick = tokio::time::interval(RENEWAL / count);
    let mut position = 67_109_368_u64;
    loop {
        for (namespace, scope) in &clusters {
            tick.tick().await;
            position += 8;
            let annotations = json!({"renewTime": Timestamp::now().to_string(), "optime": position.to_string()});
            let body = json!({"metadata": {"annotations": annotations}});
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let leader = ClusterNames::new(scope.as_str(), false).leader();
            tokio::spawn(async move { maps.patch(&leader, &PatchParams::default(), &Patch::Merge(body)).await });
        }
    }
}
