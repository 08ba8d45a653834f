//! New agents in running pods.

use std::time::Duration;

use anyhow::{Result, ensure};
use matriarch_crds::names::AGENT_CONTAINER;

use super::case::Case;

/// The operator gets another sidecar image and replaces the agents in their pods; no PostgreSQL is touched.
pub async fn agents(case: &Case) -> Result<()> {
    let members = case.herd.members().await?;
    let mut before = Vec::new();
    for member in &members {
        let agents = case.processes(&member.name, Some(AGENT_CONTAINER)).await?;
        before.push((member, case.herd.postmaster(&member.name).await?, agents));
    }
    let old = &case.world.images.sidecar.reference;
    let new = format!("{old}-next");
    case.cluster().tag_image(old, &new)?;
    case.world.set_sidecar_image(&new).await?;
    for (member, postmaster, agents) in &before {
        let what = format!("{} has a new agent", member.name);
        case.cluster()
            .wait(&what, Duration::from_secs(90), async || {
                let now = case.herd.member(&member.name).await?;
                ensure!(now.uid == member.uid, "the pod was replaced");
                let old = agents.iter().any(|process| process.is_alive());
                Ok((old || !now.ready || now.restarts <= member.restarts).then(|| "the old one runs".to_owned()))
            })
            .await?;
        ensure!(postmaster.is_alive(), "PostgreSQL of {} was restarted", member.name);
    }
    case.herd.steady(Duration::from_mins(1)).await?;
    let lock = case.herd.lock().await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    ensure!(before.iter().all(|(_, postmaster, _)| postmaster.is_alive()), "a PostgreSQL was restarted");
    case.note("three agents replaced, every postmaster the same");
    Ok(())
}
