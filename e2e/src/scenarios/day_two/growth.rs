//! Volumes of data and of WAL grow while PostgreSQL writes on them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::Api;
use matriarch_crds::names::WAL_VOLUME;
use serde_json::{Value, json};

use super::super::case::Case;
use super::super::herd::{Herd, Wanted};
use super::super::input::rejected;
use super::super::world::World;
use super::changes::{postmasters, same};
use crate::cluster::GROWING;
use crate::host::process::Process;

const LONG_ENOUGH: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;

/// A kind of volume: the name of its claims' template, its field in the spec, its size before and after, in MiB.
struct Volume {
    template: &'static str,
    field: &'static str,
    before: u64,
    after: u64,
}

const VOLUMES: [Volume; 2] = [
    Volume { template: "data", field: "storage", before: 1024, after: 2048 },
    Volume { template: "wal", field: "walStorage", before: 1024, after: 1536 },
];

/// A cluster on volumes of a driver that lets them grow online, made if it is not there.
pub async fn herd(world: &World, wanted: &Wanted) -> Result<Herd> {
    let herd = Herd::new(world.namespace.clone(), wanted);
    if herd.api().get_opt(herd.name()).await?.is_some() {
        return Ok(herd);
    }
    world.cluster.offer_growing_volumes().await?;
    let mut change = sizes(|volume| volume.before);
    for volume in &VOLUMES {
        change[volume.field]["storageClass"] = json!(GROWING);
    }
    Herd::create_with(world.namespace.clone(), wanted, &change).await
}

/// A smaller size is refused, a larger one as well as long as the class does not let volumes grow; then all of them grow,
/// their file systems too, and PostgreSQL runs on.
pub async fn grown(case: &Case) -> Result<()> {
    let before = postmasters(case).await?;
    file_systems(&before, |volume| volume.before)?;
    for volume in &VOLUMES {
        rejected(case, json!({volume.field: {"size": "512Mi"}}), "storage.size cannot shrink").await?;
    }
    case.herd.patch(&sizes(|volume| volume.after)).await?;
    let message = case.herd.condition("StorageResized", "False", "ResizeRefused", LONG_ENOUGH).await?;
    ensure!(message.contains("allowVolumeExpansion: true on the StorageClass (growing)"), "it says only {message:?}");
    eprintln!("    class that does not expand: {message}");
    case.cluster().set_growing(true).await?;
    let begin = Instant::now();
    claims_grown(case, &before).await?;
    case.herd.condition("StorageResized", "True", "Resized", LONG_ENOUGH).await?;
    file_systems(&before, |volume| volume.after)?;
    case.note(format!("six volumes grown {:.1} s after the class allowed it", begin.elapsed().as_secs_f32()));
    template(case).await?;
    same(case, &before).await
}

/// The part of a spec that says how large the volumes are.
fn sizes(of: impl Fn(&Volume) -> u64) -> Value {
    VOLUMES.iter().map(|volume| (volume.field.to_owned(), json!({"size": format!("{}Mi", of(volume))}))).collect()
}

async fn claims_grown(case: &Case, members: &[(String, Process)]) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    case.cluster()
        .wait("every claim has grown", LONG_ENOUGH, async || {
            for (member, _) in members {
                for volume in &VOLUMES {
                    let name = format!("{}-{member}", volume.template);
                    let status = claims.get(&name).await?.status.unwrap_or_default();
                    let has = status.capacity.and_then(|mut all| all.remove("storage"));
                    if has.as_ref().and_then(mib) != Some(volume.after) {
                        return Ok(Some(format!("{name} has {has:?}")));
                    }
                }
            }
            Ok(None)
        })
        .await
}

/// Members to come get as much.
async fn template(case: &Case) -> Result<()> {
    let sets: Api<StatefulSet> = case.herd.namespace.api();
    case.cluster()
        .wait("the StatefulSet says so", LONG_ENOUGH, async || {
            let Some(set) = sets.get_opt(case.herd.name()).await? else { return Ok(Some("there is none".to_owned())) };
            let templates = set.spec.and_then(|spec| spec.volume_claim_templates).unwrap_or_default();
            let requests = templates.into_iter().filter_map(|one| one.spec?.resources?.requests?.remove("storage"));
            let sizes: Vec<Option<u64>> = requests.map(|size| mib(&size)).collect();
            Ok((sizes != VOLUMES.map(|volume| Some(volume.after))).then(|| format!("{sizes:?}")))
        })
        .await
}

/// A quantity as the API server writes it.
fn mib(size: &Quantity) -> Option<u64> {
    let (number, unit) = size.0.split_at_checked(size.0.len().checked_sub(2)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "Mi" => Some(number),
        "Gi" => Some(number * 1024),
        _ => None,
    }
}

/// As the servers see them; what XFS needs for itself is not counted.
fn file_systems(members: &[(String, Process)], size: impl Fn(&Volume) -> u64) -> Result<()> {
    for (member, postmaster) in members {
        for volume in &VOLUMES {
            let at = match volume.template {
                "wal" => format!("/proc/{}/root{WAL_VOLUME}", postmaster.pid),
                _ => format!("/proc/{}/cwd", postmaster.pid),
            };
            let said = rustix::fs::statvfs(&*at).with_context(|| at.clone())?;
            let (has, wanted) = (said.f_blocks * said.f_frsize / MIB, size(volume));
            ensure!(
                (wanted * 9 / 10..=wanted).contains(&has),
                "the {} file system of {member} has {has} MiB, not {wanted}",
                volume.template
            );
        }
        let wal = std::fs::read_link(format!("/proc/{}/cwd/pg_wal", postmaster.pid))?;
        ensure!(wal.starts_with(WAL_VOLUME), "the WAL of {member} is in {}", wal.display());
    }
    Ok(())
}
