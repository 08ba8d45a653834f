//! `make demo`: in plain words, from nothing to a PostgreSQL that survives the death of its primary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;

use crate::cluster::{self, Cluster};
use crate::deps::cache::Cache;
use crate::images::own::{self, Profile};
use crate::scenarios::{Herd, Lock, Wanted, World};
use crate::workload::{Promise, Workload, clock};

/// Where the demo makes its cluster.
const NAMESPACE: &str = "default";
const NAME: &str = "orders";
const PATIENCE: Duration = Duration::from_mins(2);

/// Shows it all and leaves it up.
pub async fn demo(options: cluster::Options, major: &str) -> Result<()> {
    let begin = Instant::now();
    say(
        "Starting a real Kubernetes on this machine: etcd, API server, scheduler, kubelet, kube-proxy, containerd, DNS.",
    );
    let cluster = Cluster::attach_or_up(&options).await?;
    say("Building the operator and the sidecar, and installing the operator with its CustomResourceDefinition.");
    let binaries = tokio::task::spawn_blocking(|| own::compile(Profile::Release)).await??;
    let world = World::prepare(cluster.clone(), &binaries, NAMESPACE, major).await?;

    let wanted = Wanted { name: NAME, instances: 3, endpoints: false, major: major.to_owned() };
    let herd = Herd::new(world.namespace.clone(), &wanted);
    if herd.api().get_opt(NAME).await?.is_some() {
        say("The last demo left a cluster behind; it goes first.");
        herd.delete().await?;
    }
    cluster.ensure_volumes(3).await?;
    say("Now this is applied:");
    println!("\n{}", indented(&herd.manifest(&wanted)));
    let applied = Instant::now();
    herd.apply(&herd.manifest(&wanted)).await?;
    herd.steady(PATIENCE).await?;
    say(&format!(
        "Three members are ready after {:.0} s: a primary, and two standbys that stream.",
        applied.elapsed().as_secs_f32()
    ));
    show(&world).await?;

    say("Clients write numbered rows through the Service, one every 10 ms, and note each acknowledgement.");
    let node = cluster.layout().node(1);
    let file = cluster::dump_folder("demo.jsonl");
    let run = format!("demo {}", clock::now().as_millis());
    let workload = Arc::new(Workload::start(herd.database().await?, Some(&node.netns), &run, &file).await?);
    for member in herd.members().await? {
        workload.watch_pod(Some(&node.netns), &member.address)?; // a second primary would be noticed
    }
    workload.writable(PATIENCE).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let primary = herd.primary().await?.name;
    say(&format!("The postmaster of the primary, {primary}, is killed with SIGKILL."));
    let at = clock::now();
    cluster.kill(&[herd.postmaster(&primary).await?])?;
    workload.writable(PATIENCE).await?;
    say(&format!(
        "{} takes writes again: PostgreSQL was started in place. Longest wait of a client: {}.",
        herd.lock().await?.leader,
        wait_since(&workload, at)
    ));
    herd.steady(PATIENCE).await?;

    let lock = herd.lock().await?;
    say(&format!(
        "The primary's pod, {}, is deleted by force: kubectl delete pod --force --grace-period=0.",
        lock.leader
    ));
    let at = clock::now();
    let pods = world.namespace.api::<Pod>();
    pods.delete(&lock.leader, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
    let new: Lock = herd.other_leader(&lock, PATIENCE).await?;
    workload.writable(PATIENCE).await?;
    say(&format!("{} is the primary now. Longest wait of a client: {}.", new.leader, wait_since(&workload, at)));
    herd.steady(PATIENCE).await?;
    say(&format!("{} is back, as a standby.", lock.leader));
    show(&world).await?;

    let verdict = workload.finish().await?;
    let failures = verdict.failures(Promise::QUORUM);
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    println!(
        "\n  {} writes acknowledged, longest gap {:.2} s, {} acknowledged writes lost, never two primaries.",
        verdict.acknowledged,
        verdict.gap_length().as_secs_f64(),
        verdict.lost.len()
    );
    let layout = cluster.layout();
    println!(
        "\nAll of it took {:.0} s. The cluster is still up; look around:\n\n  \
         export KUBECONFIG={}\n  export PATH={}:{}:$PATH\n  \
         kubectl get postgresclusters\n  kubectl get pods\n  kubectl matriarch list\n  \
         kubectl matriarch switchover {NAME}\n\nWhen you have seen enough:\n\n  make cluster-down{}",
        begin.elapsed().as_secs_f32(),
        layout.kubeconfig("admin").display(),
        Cache::open()?.bin().display(),
        world.images.binaries.display(),
        if layout.name == cluster::Options::default().name { String::new() } else { format!(" NAME={}", layout.name) },
    );
    Ok(())
}

/// One step, in words.
fn say(text: &str) {
    println!("\n* {text}");
}

/// What a user sees.
async fn show(world: &World) -> Result<()> {
    println!("\n{}", indented(&world.plugin(&["list", NAME]).await?));
    Ok(())
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// The longest gap that ended since then.
fn wait_since(workload: &Workload, since: Duration) -> String {
    let attempts = workload.history().attempts();
    let gap = crate::workload::longest_gap(&attempts, since);
    gap.map_or_else(|| "unknown".to_owned(), |gap| format!("{:.2} s", gap.length.as_secs_f64()))
}
