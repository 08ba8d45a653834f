//! A supply of `local` volumes: each an ext4 file system of fixed size on a loop device, so that a full disk is real.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::Cluster;
use super::layout::{Layout, Node};
use crate::host::mounts;
use crate::host::run::run;

/// The default `StorageClass`: a claim is bound when its pod is scheduled.
pub const STORAGE_CLASS: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"#;

/// Makes and mounts the file systems `from..to` of a node.
pub fn create(layout: &Layout, node: &Node, numbers: std::ops::Range<u16>) -> Result<()> {
    let images = node.folder.join("volume-images");
    fs::create_dir_all(&images)?;
    let template = layout.folder().join(format!("ext4-{}-{}", node.name, layout.volume_mib));
    if !template.exists() {
        let size = format!("{}M", layout.volume_mib);
        run(&["truncate", "--size", &size, &template.display().to_string()])?;
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", &template.display().to_string()])?;
    }
    for number in numbers {
        let image = images.join(format!("{number:03}"));
        run(&["cp", "--sparse=always", &template.display().to_string(), &image.display().to_string()])?;
        let point = mount(node, &image, number)?;
        let _ = fs::remove_dir(point.join("lost+found"));
    }
    Ok(())
}

/// Mounts the file system in `image` as the volume `number`; returns where.
pub fn mount(node: &Node, image: &Path, number: u16) -> Result<PathBuf> {
    let point = node.volumes().join(format!("{number:03}"));
    fs::create_dir_all(&point)?;
    run(&["mount", "-o", "loop,discard", &image.display().to_string(), &point.display().to_string()])?;
    Ok(point)
}

/// The `PersistentVolumes` of a node, as YAML.
pub fn manifests(layout: &Layout, node: &Node, numbers: std::ops::Range<u16>) -> Result<String> {
    let documents: Vec<String> = numbers
        .map(|number| {
            let point = node.volumes().join(format!("{number:03}"));
            let volume = json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": format!("{}-{number:03}", node.name)},
                "spec": {
                    "capacity": {"storage": format!("{}Mi", layout.volume_mib)},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "local",
                    "local": {"path": point},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
                    ]}]}},
                },
            });
            serde_json::to_string(&volume).context("unable to write a volume")
        })
        .collect::<Result<_>>()?;
    Ok(documents.join("\n---\n"))
}

impl Cluster {
    /// Wipes volumes whose claim is gone and offers them again; returns how many.
    pub async fn recycle_volumes(&self) -> Result<usize> {
        let volumes: Api<PersistentVolume> = Api::all(self.client());
        let mut recycled = 0;
        for volume in volumes.list(&ListParams::default()).await?.items {
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            let path = volume.spec.as_ref().and_then(|spec| spec.local.as_ref()).map(|local| local.path.clone());
            let (Some("Released"), Some(path), Some(name)) = (phase, path, volume.metadata.name) else { continue };
            if !Path::new(&path).starts_with(self.layout().folder()) {
                continue; // somebody's own volume
            }
            if mounts::is_shared(Path::new(&path))? {
                continue; // a pod that was deleted by force has it still; the kubelet takes it away within minutes
            }
            run(&["find", &path, "-mindepth", "1", "-delete"])?;
            run(&["chown", "0:0", &path])?;
            run(&["chmod", "0755", &path])?;
            let free = json!({"spec": {"claimRef": null}});
            volumes.patch(&name, &PatchParams::default(), &Patch::Merge(&free)).await?;
            recycled += 1;
        }
        Ok(recycled)
    }

    /// Makes sure that every node has `count` volumes that no claim holds, recycling first and making new ones then.
    pub async fn ensure_volumes(&self, count: usize) -> Result<()> {
        self.recycle_volumes().await?;
        let volumes: Api<PersistentVolume> = Api::all(self.client());
        let all = volumes.list(&ListParams::default()).await?.items;
        for node in self.layout().all_nodes() {
            let own: Vec<_> = all
                .iter()
                .filter(|volume| volume.metadata.name.as_ref().is_some_and(|name| is_of(name, &node.name)))
                .collect();
            let free = own.iter().filter(|volume| volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none()));
            let missing = count.saturating_sub(free.count());
            if missing > 0 {
                let next = own
                    .iter()
                    .filter_map(|volume| volume.metadata.name.as_ref()?.rsplit_once('-')?.1.parse::<u16>().ok())
                    .max()
                    .map_or(1, |last| last + 1);
                let numbers = next..next + u16::try_from(missing)?;
                create(self.layout(), &node, numbers.clone())?;
                self.apply(&manifests(self.layout(), &node, numbers)?).await?;
            }
        }
        Ok(())
    }
}

fn is_of(volume: &str, node: &str) -> bool {
    volume.strip_prefix(node).is_some_and(|rest| rest.starts_with('-'))
}
