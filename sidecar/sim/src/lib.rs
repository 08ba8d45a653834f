//! A deterministic simulator of a cluster: the agent's production core, the production fence and quorum planner, in a world of
//! models that fail in every way that `docs/safety.md` allows, with the promises checked at every step.

#[cfg(feature = "mutants")]
mod aim;
mod check;
mod clock;
pub mod conformance;
pub mod coverage;
mod draw;
mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod plan;
mod queue;
pub mod shrink;
pub mod swarm;
mod trace;
mod world;

pub use check::Violation;
pub use world::{Outcome, Stats, run, run_traced};
