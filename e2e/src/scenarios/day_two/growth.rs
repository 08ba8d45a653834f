//! Volumes grow while PostgreSQL runs on them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::Api;
use serde_json::json;

use super::super::case::Case;
use super::changes::{postmasters, same};

const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// From 1 to 2 GiB: claims, file systems, and the template for members to come.
pub async fn grown(case: &Case) -> Result<()> {
    let before = postmasters(case).await?;
    let begin = Instant::now();
    case.herd.patch(&json!({"storage": {"size": "2Gi"}})).await?;
    let mut grown = 0;
    case.cluster()
        .wait("three volumes have grown", LONG_ENOUGH, async || {
            grown += case.cluster().grow_volumes(case.namespace()).await?;
            Ok((grown < 3).then(|| format!("{grown} have")))
        })
        .await?;
    case.herd.condition("StorageResized", "True", "Resized", LONG_ENOUGH).await?;
    case.note(format!("three volumes after {:.1} s", begin.elapsed().as_secs_f32()));
    for (member, _) in &before {
        let size = file_system(case, member).await?;
        ensure!(size > 1_900 << 20, "the file system of {member} has {size} bytes");
    }
    let sets: Api<StatefulSet> = case.herd.namespace.api();
    case.cluster()
        .wait("members to come get 2Gi", LONG_ENOUGH, async || {
            let Some(set) = sets.get_opt(case.herd.name()).await? else { return Ok(Some("no StatefulSet".to_owned())) };
            let text = serde_json::to_value(set.spec)?["volumeClaimTemplates"][0]["spec"]["resources"].to_string();
            Ok((!text.contains("2Gi")).then_some(text))
        })
        .await?;
    case.herd.steady(LONG_ENOUGH).await?;
    same(case, &before).await
}

/// How large the file system of a member's data is, in bytes.
async fn file_system(case: &Case, member: &str) -> Result<u64> {
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    let volumes: Api<PersistentVolume> = Api::all(case.cluster().client());
    let claim = claims.get(&format!("data-{member}")).await?;
    let volume = claim.spec.and_then(|spec| spec.volume_name).context("the claim is not bound")?;
    let local = volumes.get(&volume).await?.spec.and_then(|spec| spec.local).context("not a local volume")?;
    let said = rustix::fs::statvfs(&local.path)?;
    Ok(said.f_blocks * said.f_frsize)
}
