//! From nothing to a cluster that takes writes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::list::On;
use super::report::Row;
use super::runner;
use super::world::World;

const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// One member, durability async.
pub async fn one(world: &World, row: &mut Row) -> Result<()> {
    let begin = Instant::now();
    let herd = world.herd("single", 1, false).await?;
    herd.steady(LONG_ENOUGH).await?;
    row.note(format!("steady after {:.1} s", begin.elapsed().as_secs_f32()));
    let durability = herd.status().await?.durability.map(matriarch_crds::Durability::as_str);
    ensure!(durability == Some("async"), "the durability of one member is {durability:?}");
    runner::writes(world, &herd, row).await?;
    herd.delete().await
}

/// Three members, durability quorum. The cluster stays for the scenarios that follow.
pub async fn three(world: &World, row: &mut Row, on: On) -> Result<()> {
    runner::remove_others(world, on).await?;
    let begin = Instant::now();
    let herd = runner::herd_on(world, on).await?;
    herd.steady(LONG_ENOUGH).await?;
    row.note(format!("steady after {:.1} s", begin.elapsed().as_secs_f32()));
    let durability = herd.status().await?.durability.map(matriarch_crds::Durability::as_str);
    ensure!(durability == Some("quorum"), "the durability of three members is {durability:?}");
    runner::writes(world, &herd, row).await
}
