//! Pods that are deleted.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

use super::case::Case;

/// The primary's pod, as `kubectl delete pod` does: it gets SIGTERM and hands the lock over.
pub async fn deleted(case: &Case) -> Result<()> {
    let pods: Api<Pod> = case.herd.namespace.api();
    pods.delete(&case.primary.name, &DeleteParams::default()).await?;
    let lock = case.failover(Duration::from_mins(1)).await?;
    case.note(format!("{} took over", lock.leader));
    case.fenced_before(&lock)
}

/// The primary's pod, as `kubectl delete pod --force --grace-period=0`: the API server forgets it at once, and a new one
/// of the same name comes while the old one's processes may still run.
pub async fn deleted_by_force(case: &Case) -> Result<()> {
    force(case, &case.primary.name).await?;
    let lock = case.failover(Duration::from_mins(1)).await?;
    case.note(format!("{} took over", lock.leader));
    case.fenced_before(&lock)
}

/// All pods at once, by force.
pub async fn all_killed(case: &Case) -> Result<()> {
    let members = case.herd.members().await?;
    try_join_all(members.iter().map(|member| force(case, &member.name))).await?;
    let lock = case.failover(Duration::from_secs(90)).await?;
    case.note(format!("{} leads", lock.leader));
    Ok(())
}

/// Deletes a pod without waiting for anything.
pub async fn force(case: &Case, pod: &str) -> Result<()> {
    let pods: Api<Pod> = case.herd.namespace.api();
    pods.delete(pod, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
    Ok(())
}
