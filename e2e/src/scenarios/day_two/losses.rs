//! What is lost or damaged and comes back: a volume claim, a data directory.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};

use matriarch_crds::names::POSTGRES_CONTAINER;

use super::super::case::Case;
use super::super::herd::Member;

const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// A standby's claim is deleted with its pod, another one's data directory under the running server; then one's data directory
/// is damaged. The primary goes on.
pub async fn volumes(case: &Case) -> Result<()> {
    case.cluster().ensure_volumes(1).await?;
    let standbys = case.herd.standbys().await?;
    let [claimless, dataless] = standbys.as_slice() else { anyhow::bail!("two standbys are needed") };
    claim(case, claimless).await.context("a lost claim")?;
    directory(case, dataless).await.context("a deleted data directory")?;
    damaged(case, claimless).await.context("a damaged data directory")?;
    let lock = case.herd.lock().await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    Ok(())
}

/// The primary's data directory is damaged: another takes over, and the damaged one is copied from it.
pub async fn primary(case: &Case) -> Result<()> {
    damaged(case, &case.primary).await?;
    let lock = case.failover(LONG_ENOUGH).await?;
    ensure!(lock.leader != case.primary.name, "{}, which was damaged, leads", lock.leader);
    case.note(format!("{} took over", lock.leader));
    case.fenced_before(&lock)
}

/// What a disk that lost a write does: `pg_control` is garbage, and PostgreSQL is killed. Nothing but another copy helps.
async fn damaged(case: &Case, member: &Member) -> Result<()> {
    let data = data_directory(case, member).await?;
    let control = data.join("global/pg_control");
    let length = usize::try_from(std::fs::metadata(&control)?.len())?;
    let postmaster = case.herd.postmaster(&member.name).await?;
    // Process 1 is the supervisor, which lives; whoever of PostgreSQL lived on could write the file from its memory.
    let all = case.processes(&member.name, Some(POSTGRES_CONTAINER)).await?;
    let begin = Instant::now();
    // In place: owner and mode stay as they are.
    std::fs::OpenOptions::new().write(true).open(&control)?.write_all(&vec![0xA5; length])?;
    case.cluster().kill(all.get(1..).context("no PostgreSQL")?)?;
    case.cluster()
        .wait("another server runs on another copy", LONG_ENOUGH, async || {
            let now = case.herd.postmaster(&member.name).await.ok();
            let damaged = std::fs::read(&control).is_ok_and(|all| all.first() == Some(&0xA5));
            Ok((damaged || now.is_none() || now == Some(postmaster)).then(|| format!("{now:?}, damaged: {damaged}")))
        })
        .await?;
    case.herd.steady(LONG_ENOUGH).await?;
    case.note(format!("{}, damaged, copied anew in {:.1} s", member.name, begin.elapsed().as_secs_f32()));
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
    let data = data_directory(case, member).await?;
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

/// On this machine.
async fn data_directory(case: &Case, member: &Member) -> Result<PathBuf> {
    let claims: Api<PersistentVolumeClaim> = case.herd.namespace.api();
    let volumes: Api<PersistentVolume> = Api::all(case.cluster().client());
    let claim = claims.get(&format!("data-{}", member.name)).await?;
    let volume = claim.spec.and_then(|spec| spec.volume_name).context("the claim is not bound")?;
    let local = volumes.get(&volume).await?.spec.and_then(|spec| spec.local).context("not a local volume")?;
    Ok(PathBuf::from(local.path).join("pgdata"))
}
