//! `up`: makes a cluster, as much at once as two cores allow. Every step prints what it does.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Node as NodeObject, ServiceAccount};
use kube::api::{Api, ListParams};

use super::layout::{self, Layout};
use super::{Cluster, certs, control_plane, daemons, down, network, node, volumes};
use crate::deps::{self, cache::Cache};
use crate::host::cgroup;
use crate::host::lock::FileLock;
use crate::host::progress::step;
use crate::host::sysctl;
use crate::images;

/// What kind of cluster to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name: clusters of different names live side by side.
    pub name: String,
    /// How many nodes, at most 9.
    pub nodes: u8,
    /// Volumes for each node.
    pub volumes: u16,
    /// The size of each, in MiB.
    pub volume_mib: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: "dev".to_owned(), nodes: 1, volumes: 12, volume_mib: 1024 }
    }
}

/// Makes a cluster and waits until its nodes are ready. What was made stays for a look when a step fails; `down` clears it.
pub async fn up(options: &Options) -> Result<Cluster> {
    layout::check_name(&options.name)?;
    if options.nodes == 0 || options.nodes > 9 {
        bail!("a cluster has 1 to 9 nodes, not {}", options.nodes);
    }
    let cache = Cache::open()?;
    let layout = {
        let (options, cache) = (options.clone(), cache.clone());
        tokio::task::spawn_blocking(move || start_machinery(&options, &cache)).await??
    };
    let cluster = Cluster::attach(&layout.name).await?;
    let deadline = Duration::from_mins(1);
    cluster.wait("API server is ready", deadline, || cluster.api_is_ready()).await.map_err(|e| explain(&layout, e))?;
    {
        let (layout, cache) = (layout.clone(), cache.clone());
        tokio::task::spawn_blocking(move || -> Result<()> {
            control_plane::start_controllers(&layout, &cache)?;
            for one in layout.all_nodes() {
                node::start_kubelet(&layout, &one, &cache)?;
            }
            Ok(())
        })
        .await??;
    }
    cluster.apply(&control_plane::dns_service(&layout)).await?;
    cluster.apply(volumes::STORAGE_CLASS).await?;
    for one in layout.all_nodes() {
        cluster.apply(&volumes::manifests(&layout, &one, 1..layout.volumes + 1)?).await?;
    }
    cluster.wait("nodes are ready", deadline, || all_ready(&cluster)).await.map_err(|e| explain(&layout, e))?;
    daemons::check(&layout)?;
    Ok(cluster)
}

/// Everything that needs no API server: network, certificates, volumes, containerd with images; and etcd and API server.
fn start_machinery(options: &Options, cache: &Cache) -> Result<Layout> {
    deps::require_root()?;
    let _lock = FileLock::acquire(&std::path::Path::new(layout::STATE).join(".lock"))?;
    if layout::folder_of(&options.name).exists() {
        bail!("cluster {:?} exists: `matriarch-e2e cluster down --name {0}` removes it", options.name);
    }
    deps::ensure(cache)?;
    down::down(&options.name)?; // leftovers that lost their folder
    let layout = Layout {
        name: options.name.clone(),
        index: layout::free_index()?,
        nodes: options.nodes,
        volumes: options.volumes,
        volume_mib: options.volume_mib,
    };
    sysctl::save(&layout::sysctls())?;
    layout.save()?;
    std::fs::create_dir_all(layout.logs())?;
    let template = images::ensure(cache)?;
    cgroup::create(&layout.control_plane_cgroup())?;
    step("network, keys and certificates", || {
        network::create(&layout)?;
        certs::write(&layout)
    })?;
    control_plane::start_store(&layout, cache)?;
    thread::scope(|scope| {
        let mut jobs = Vec::new();
        for one in layout.all_nodes() {
            let (layout, template) = (&layout, &template);
            let for_volumes = one.clone();
            jobs.push(scope.spawn(move || {
                step(&format!("{} volumes of {}", layout.volumes, for_volumes.name), || {
                    volumes::create(layout, &for_volumes, 1..layout.volumes + 1)
                })
            }));
            jobs.push(scope.spawn(move || {
                step(&format!("containerd of {}", one.name), || node::start_containerd(layout, &one, template))
            }));
        }
        jobs.into_iter().try_for_each(|job| job.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(layout)
}

/// `None` when all nodes are Ready and pods may be made; else what is missing.
async fn all_ready(cluster: &Cluster) -> Result<Option<String>> {
    let nodes: Api<NodeObject> = Api::all(cluster.client());
    let wanted = usize::from(cluster.layout().nodes);
    let ready = nodes.list(&ListParams::default()).await?.items.iter().filter(|node| is_ready(node)).count();
    if ready < wanted {
        return Ok(Some(format!("{ready} of {wanted} are")));
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), "default");
    Ok(accounts.get_opt("default").await?.is_none().then(|| "no default ServiceAccount yet".to_owned()))
}

/// Whether a node's Ready condition holds.
pub fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A process that has ended explains more than a deadline that has passed.
fn explain(layout: &Layout, error: anyhow::Error) -> anyhow::Error {
    match daemons::check(layout) {
        Ok(()) => error.context(format!("the processes run; their logs are in {}", layout.logs().display())),
        Err(ended) => Err::<(), _>(ended).context(error).err().unwrap_or_else(|| anyhow!("unknown")),
    }
}
