//! `kubectl matriarch`, each command against a running cluster: its effect, and one way in which it must fail.

mod look;
mod order;
mod rights;
mod run;

use std::time::{Duration, Instant};

use anyhow::Result;

use super::herd::Herd;
use super::list::On;
use super::report::Row;
use super::runner;
use super::world::World;
use run::Kubectl;

const STEADY: Duration = Duration::from_mins(2);

/// What every part has.
struct Stage<'a> {
    world: &'a World,
    herd: Herd,
    kubectl: Kubectl,
}

/// All of it, on the cluster of the other scenarios.
pub async fn all(world: &World, row: &mut Row) -> Result<()> {
    let herd = runner::herd_on(world, On::ConfigMaps).await?;
    herd.steady(STEADY).await?;
    let stage = Stage { world, kubectl: Kubectl::new(world)?, herd };
    let begin = Instant::now();
    look::all(&stage).await?;
    order::configuration(&stage).await?;
    order::maintenance(&stage).await?;
    order::members(&stage).await?;
    order::leadership(&stage).await?;
    stage.herd.steady(STEADY).await?;
    rights::all(&stage).await?;
    look::report(&stage).await?;
    row.note(format!("{} calls in {:.0} s", stage.kubectl.calls(), begin.elapsed().as_secs_f32()));
    Ok(())
}
