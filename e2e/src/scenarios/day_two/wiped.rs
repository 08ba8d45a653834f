//! Somebody deletes the shared configuration while the operator is away: the agents write it again.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints};
use kube::api::{Api, DeleteParams};

use super::super::herd::Herd;
use super::super::list::On;
use super::super::report::Row;
use super::super::runner;
use super::super::world::World;
use super::outside::Outside;

const A_MINUTE: Duration = Duration::from_mins(1);

/// On the cluster whose lock is an Endpoints object.
pub async fn endpoints(world: &World, row: &mut Row) -> Result<()> {
    let herd = runner::herd_on(world, On::Endpoints).await?;
    herd.steady(2 * A_MINUTE).await?;
    let _outside = Outside::take_over(world, "endpoints-wiped-config").await?;
    config(world, &herd, true).await?;
    row.note("the configuration came back as it was without the operator");
    world.operator_in_its_pod().await?;
    herd.steady(A_MINUTE).await
}

/// Deletes the object, and waits until the leader has written it as it was.
pub async fn config(world: &World, herd: &Herd, endpoints: bool) -> Result<()> {
    let name = herd.names.config();
    let before = herd.annotations(&name).await?;
    ensure!(before.contains_key("config"), "there is no configuration: {before:?}");
    if endpoints {
        let api: Api<Endpoints> = herd.namespace.api();
        api.delete(&name, &DeleteParams::default()).await?;
    } else {
        let api: Api<ConfigMap> = herd.namespace.api();
        api.delete(&name, &DeleteParams::default()).await?;
    }
    world
        .cluster
        .wait("the configuration is back", A_MINUTE, async || {
            let now = herd.annotations(&name).await?;
            let same = ["config", "initialize"].iter().all(|key| now.get(*key) == before.get(*key));
            Ok((!same).then(|| format!("{now:?}")))
        })
        .await
}
