//! Volumes that can grow: a storage driver on each node and Kubernetes' resizer, beside the `local` volumes, which cannot.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass};
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::layout::{Layout, Node};
use super::{Cluster, daemons, volumes};
use crate::deps::cache::Cache;
use crate::host::mounts::unmount_below;
use crate::host::process::Spec;
use crate::host::run::run;

/// The class of such volumes.
pub const GROWING: &str = "growing";
/// The driver's name.
const DRIVER: &str = "loop.matriarch.dev";
/// Of the resizer's process.
const RESIZER: &str = "csi-resizer";
/// Numbers that no `local` volume has: two for each of three members, who may all be on one node.
const NUMBERS: Range<u16> = 901..907;
/// How long kubelet and resizer may take to know the driver.
const KNOWN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Offers volumes of the class [`GROWING`] on each node, which does not let them grow yet.
    /// [`withdraw_growing_volumes`](Self::withdraw_growing_volumes) takes them away.
    pub async fn offer_growing_volumes(&self) -> Result<()> {
        self.withdraw_growing_volumes().await?;
        let (layout, cache) = (self.layout(), Cache::open()?);
        require_xfs()?;
        self.set_growing(false).await?;
        let kind = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER},
            "spec": {"attachRequired": false, "fsGroupPolicy": "File"},
        });
        self.apply(&kind.to_string()).await?;
        for node in layout.all_nodes() {
            for number in NUMBERS {
                make(layout, &node, number)?;
                self.apply(&volume(layout, &node, number)).await?;
            }
            daemons::start(layout, driver(layout, &cache, &node))?;
        }
        let first = layout.all_nodes().into_iter().next().context("no node")?;
        self.wait("the driver answers", KNOWN, async || {
            Ok((!socket(&first).exists()).then(|| "it has no socket".to_owned()))
        })
        .await?;
        daemons::start(layout, resizer(layout, &cache, &first))?;
        let nodes: Api<CSINode> = Api::all(self.client());
        for node in layout.all_nodes() {
            self.wait(&format!("the kubelet of {} knows the driver", node.name), KNOWN, async || {
                let known = nodes.get(&node.name).await?.spec.drivers;
                Ok((!known.iter().any(|one| one.name == DRIVER)).then(|| format!("it knows {known:?}")))
            })
            .await?;
        }
        Ok(())
    }

    /// Whether the class [`GROWING`] says that its volumes can grow.
    pub async fn set_growing(&self, can: bool) -> Result<()> {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": GROWING},
            "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": can,
        });
        self.apply(&class.to_string()).await.map(drop)
    }

    /// Removes driver, resizer, volumes and class; fine when there are none.
    pub async fn withdraw_growing_volumes(&self) -> Result<()> {
        let (layout, classes) = (self.layout(), Api::<StorageClass>::all(self.client()));
        if classes.get_opt(GROWING).await?.is_none() {
            return Ok(()); // it is the first to come and the last to go
        }
        for name in layout.all_nodes().iter().map(process).chain([RESIZER.to_owned()]) {
            if daemons::find(layout, &name).is_ok() {
                daemons::stop(layout, &name)?;
            }
        }
        let objects: Api<PersistentVolume> = Api::all(self.client());
        for node in layout.all_nodes() {
            let _ = fs::remove_file(registry(&node).join(format!("{DRIVER}-reg.sock"))); // absent is fine
            let _ = fs::remove_file(socket(&node));
            for number in NUMBERS {
                let name = name_of(&node, number);
                if objects.get_opt(&name).await?.is_some() {
                    objects.delete(&name, &DeleteParams::default()).await?;
                }
                let image = image_of(&node, number);
                if image.exists() {
                    unmount_below(&node.volumes().join(number.to_string()))?;
                    fs::remove_file(image)?;
                }
            }
        }
        let drivers: Api<CSIDriver> = Api::all(self.client());
        if drivers.get_opt(DRIVER).await?.is_some() {
            drivers.delete(DRIVER, &DeleteParams::default()).await?;
        }
        classes.delete(GROWING, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// XFS, for ext4 grows under its users only with `CAP_SYS_RESOURCE`, which root has not on every machine.
fn make(layout: &Layout, node: &Node, number: u16) -> Result<()> {
    let image = image_of(node, number);
    run(&["truncate", "--size", &format!("{}M", layout.volume_mib), &image.display().to_string()])?;
    run(&["mkfs.xfs", "-q", "-f", &image.display().to_string()])?;
    volumes::mount(node, &image, number).map(drop)
}

fn require_xfs() -> Result<()> {
    let known = || fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.lines().any(|one| one.trim() == "xfs"));
    if known() {
        return Ok(());
    }
    let loaded = run(&["modprobe", "xfs"]);
    ensure!(known(), "this machine's kernel has no XFS, which volumes that grow need here (modprobe xfs: {loaded:?})");
    Ok(())
}

fn volume(layout: &Layout, node: &Node, number: u16) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name_of(node, number)},
        "spec": {
            "capacity": {"storage": format!("{}Mi", layout.volume_mib)},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": GROWING,
            "csi": {"driver": DRIVER, "volumeHandle": format!("{}/{number}", node.name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
            ]}]}},
        },
    })
    .to_string()
}

fn driver(layout: &Layout, cache: &Cache, node: &Node) -> Spec {
    let name = process(node);
    let argv = vec![
        cache.program("csi-driver"),
        format!("--name={DRIVER}"),
        format!("--node={}", node.name),
        format!("--root={}", layout.folder().display()),
        format!("--socket={}", socket(node).display()),
        format!("--registry={}", registry(node).display()),
    ];
    let log = layout.logs().join(format!("{name}.log"));
    Spec { name, argv, env: Vec::new(), netns: node.netns.clone(), cgroup: node.system_cgroup(), log }
}

/// Any node's driver finds every volume's file.
fn resizer(layout: &Layout, cache: &Cache, node: &Node) -> Spec {
    let argv = vec![
        cache.program("csi-resizer"),
        format!("--csi-address={}", socket(node).display()),
        format!("--kubeconfig={}", layout.kubeconfig("csi-resizer").display()),
    ];
    let log = layout.logs().join(format!("{RESIZER}.log"));
    let cgroup = layout.control_plane_cgroup();
    Spec { name: RESIZER.to_owned(), argv, env: Vec::new(), netns: layout.fabric(), cgroup, log }
}

fn process(node: &Node) -> String {
    format!("csi-driver-{}", node.name)
}

fn image_of(node: &Node, number: u16) -> PathBuf {
    node.folder.join(format!("volume-images/{number}"))
}

/// The names of `local` volumes begin with their node's.
fn name_of(node: &Node, number: u16) -> String {
    format!("{GROWING}-{}-{number}", node.name)
}

fn socket(node: &Node) -> PathBuf {
    node.folder.join("csi.sock")
}

fn registry(node: &Node) -> PathBuf {
    node.folder.join("kubelet/plugins_registry")
}
