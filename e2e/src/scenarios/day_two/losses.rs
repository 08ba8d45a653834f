//! What is lost and comes back: a volume claim, a data directory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};

use super::super::case::Case;
use super::super::herd::Member;

const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// A standby's claim is deleted with its pod, another one's data directory under the running server.
pub async fn volumes(case: &Case) -> Result<()> {
    case.cluster().ensure_volumes(1).await?;
    let standbys = case.herd.standbys().await?;
    let [claimless, dataless] = standbys.as_slice() else { anyhow::bail!("two standbys are needed") };
    claim(case, claimless).await.context("a lost claim")?;
    directory(case, dataless).await.context("a deleted data directory")?;
    let lock = case.herd.lock().await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    Ok(())
}

async fn claim(case: &Case, member: &Member) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    let pods: Api<Pod> = case.herd.namespace.api();
    let name = format!("data-{}", member.name);
    let old = claims.get(&name).await?.metadata.uid;
    let begin = Instant::now();
    claims.delete(&name, &DeleteParams::default()).await?;
    pods.delete(&member.name, &DeleteParams::default()).await?;
    case.cluster()
        .wait("there is another claim", LONG_ENOUGH, async || {
            let now = claims.get_opt(&name).await?.and_then(|claim| claim.metadata.uid);
            Ok((now.is_none() || now == old).then(|| format!("{now:?}")))
        })
        .await?;
    case.herd.steady(LONG_ENOUGH).await?;
    case.note(format!("{} copied onto a new volume in {:.1} s", member.name, begin.elapsed().as_secs_f32()));
    Ok(())
}

async fn directory(case: &Case, member: &Member) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    let volumes: Api<PersistentVolume> = Api::all(case.cluster().client());
    let claim = claims.get(&format!("data-{}", member.name)).await?;
    let volume = claim.spec.and_then(|spec| spec.volume_name).context("the claim is not bound")?;
    let local = volumes.get(&volume).await?.spec.and_then(|spec| spec.local).context("not a local volume")?;
    let data = std::path::Path::new(&local.path).join("pgdata");
    let postmaster = case.herd.postmaster(&member.name).await?;
    let begin = Instant::now();
    std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
    // PostgreSQL looks once a minute whether its directory is still there; this is what it does then.
    postmaster.signal(rustix::process::Signal::QUIT)?;
    case.cluster()
        .wait("another server runs on another copy", LONG_ENOUGH, async || {
            let now = case.herd.postmaster(&member.name).await?;
            let there = data.join("PG_VERSION").exists();
            Ok((now == postmaster || !there).then(|| format!("{now:?}, a copy: {there}")))
        })
        .await?;
    case.herd.steady(LONG_ENOUGH).await?;
    case.note(format!("{} copied into an empty directory in {:.1} s", member.name, begin.elapsed().as_secs_f32()));
    Ok(())
}
