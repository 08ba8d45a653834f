//! The test cluster tests itself: everything that scenarios rely on, once, on two nodes of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use matriarch_e2e::cluster::{self, Cluster, Namespace, Options};
use matriarch_e2e::host::cgroup;
use rustix::process::Signal;

const SOON: Duration = Duration::from_mins(1);

/// A PostgreSQL with a volume and a native sidecar on one node, a client on the other.
const PODS: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 512Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: pg}
spec: {selector: {app: pg}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pg, labels: {app: pg}}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {kubernetes.io/hostname: node-1}
  securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999}
  initContainers:
  - {name: sidecar, image: "matriarch.dev/no-postgres:1", restartPolicy: Always, command: [sleep, infinity]}
  containers:
  - name: postgres
    image: docker.io/library/postgres:15
    command: [sh, -c, "initdb --auth=trust -D /data/pg && echo 'host all all all trust' >> /data/pg/pg_hba.conf && exec postgres -D /data/pg -c listen_addresses='*'"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {kubernetes.io/hostname: node-2}
  containers:
  - {name: client, image: "docker.io/library/postgres:18", command: [sleep, infinity]}
"#;

/// Asks PostgreSQL through name, Service and the other node.
async fn select_one(ns: &Namespace) -> Result<Option<String>> {
    let query = ["psql", "postgresql://postgres@pg/postgres?connect_timeout=1", "-qAtc", "select 1"];
    let output = ns.exec("client", "client", &query).await?;
    Ok((output.stdout.trim() != "1").then_some(output.stderr))
}

async fn everything(ns: Namespace) -> Result<()> {
    let cluster = &ns.cluster;
    ns.apply(PODS).await?;
    ns.pod_ready("pg", SOON).await?;
    ns.pod_ready("client", SOON).await?;
    cluster.wait("PostgreSQL answers", SOON, || select_one(&ns)).await?;

    let failing = ns.exec("client", "client", &["sh", "-c", "echo out; echo err >&2; exit 3"]).await?;
    ensure!((failing.code, failing.stdout.as_str(), failing.stderr.as_str()) == (3, "out\n", "err\n"), "{failing:?}");
    let logs = cluster.logs(&ns.name, "pg", "postgres", false).await?;
    ensure!(logs.contains("ready to accept connections"), "{logs}");

    let processes = cluster.pod_processes(&ns.name, "pg").await?;
    let postgres = processes.get("postgres").context("no container postgres")?;
    ensure!(postgres.len() > 3 && postgres[0].command.contains("listen_addresses"), "{processes:?}");
    ensure!(processes.get("sidecar").is_some_and(|all| all.len() == 1), "{processes:?}");

    // Each fault is felt, and each undoing as well.
    cluster.set_pod_cut(&ns.name, "pg", true).await?;
    ensure!(select_one(&ns).await?.is_some(), "a cut pod answered");
    cluster.set_pod_cut(&ns.name, "pg", false).await?;
    cluster.wait("the pod's cable is back", SOON, || select_one(&ns)).await?;

    cluster.cut_pods(&ns.name, "pg", "client").await?;
    ensure!(select_one(&ns).await?.is_some(), "a cut pair talked");
    cluster.cut_pod_from(&ns.name, "client", &[]).await?;
    cluster.cut_pod_from(&ns.name, "pg", &[]).await?;
    cluster.wait("the pair talks again", SOON, || select_one(&ns)).await?;

    cluster.set_container_frozen(&ns.name, "pg", "postgres", true).await?;
    ensure!(select_one(&ns).await?.is_some(), "a frozen container answered");
    cluster.set_container_frozen(&ns.name, "pg", "postgres", false).await?;
    cluster.wait("PostgreSQL has thawed", SOON, || select_one(&ns)).await?;

    cluster.stop_api_server()?;
    ensure!(cluster.api_is_ready().await.is_err(), "a dead API server answered");
    cluster.start_api_server()?;
    cluster.wait("the API server is back", SOON, || cluster.api_is_ready()).await?;

    let begin = Timestamp::now();
    cluster.pod(&ns.name, "pg").await?;
    let counts = cluster.api_requests(begin, Timestamp::now())?;
    ensure!(counts.keys().any(|one| one.user == "admin" && one.resource == "pods" && !one.is_write()), "{counts:?}");

    cluster.set_node_cut("node-1", true)?;
    cluster.wait("a cut node is seen", SOON, || readiness(cluster, "node-1", false)).await?;
    cluster.set_node_cut("node-1", false)?;
    cluster.wait("the node is back", SOON, || readiness(cluster, "node-1", true)).await?;
    cluster.wait("PostgreSQL answers after the node's return", SOON, || select_one(&ns)).await
}

async fn readiness(cluster: &Cluster, node: &str, wanted: bool) -> Result<Option<String>> {
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client());
    let ready = cluster::is_ready(&nodes.get(node).await?);
    Ok((ready != wanted).then(|| format!("Ready is {ready}")))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and makes a cluster: `cargo test -p matriarch-e2e --test cluster -- --ignored`"]
async fn a_cluster_does_all_that_scenarios_rely_on() -> Result<()> {
    let name = "self-test";
    Cluster::down(name)?;
    let begin = Instant::now();
    let cluster = Cluster::up(&Options { name: name.to_owned(), nodes: 2, volumes: 2, volume_mib: 1024 }).await?;
    eprintln!("two nodes are up after {:.1} s", begin.elapsed().as_secs_f32());
    cluster.with_namespace("self-test", everything).await?;
    cluster.ensure_volumes(3).await?;
    cluster.kill_node("node-2")?;
    let group = cluster.layout().node_named("node-2")?.cgroup;
    let dead = || Ok((!cgroup::processes(&group).is_empty()).then(|| "something lives on".to_owned()));
    cluster.wait("a killed node is dead", SOON, async || dead()).await?;
    Cluster::down(name)?;
    ensure!(cluster::leftovers(name)?.is_empty(), "{:?}", cluster::leftovers(name)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and makes a cluster: `cargo test -p matriarch-e2e --test cluster -- --ignored`"]
async fn down_clears_up_after_a_crash() -> Result<()> {
    let name = "self-crash";
    Cluster::down(name)?;
    let options = Options { name: name.to_owned(), volumes: 2, ..Options::default() };
    // An up that is abandoned half way: what it started runs on.
    let _ = tokio::time::timeout(Duration::from_secs(3), Cluster::up(&options)).await;
    tokio::time::sleep(Duration::from_secs(3)).await; // its blocking half cannot be abandoned, only outlived
    Cluster::down(name)?;
    ensure!(cluster::leftovers(name)?.is_empty(), "{:?}", cluster::leftovers(name)?);

    let cluster = Cluster::up(&options).await?;
    for component in ["containerd-node-1", "etcd", "kubelet-node-1"] {
        cluster.component(component)?.signal(Signal::KILL)?;
    }
    cluster.set_node_frozen("node-1", true)?;
    std::fs::remove_file(cluster.layout().folder().join("cluster.json"))?;
    Cluster::down(name)?;
    ensure!(cluster::leftovers(name)?.is_empty(), "{:?}", cluster::leftovers(name)?);
    Ok(())
}
