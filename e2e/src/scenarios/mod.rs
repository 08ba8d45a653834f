//! The scenarios: Matriarch on a real Kubernetes, one fault after the other, each with the workload and the checker.

mod api;
mod bootstrap;
mod case;
mod containers;
mod day_two;
mod herd;
mod idle;
mod input;
mod list;
mod lock;
pub(crate) mod memory;
mod partition;
mod plugin;
mod pods;
mod report;
mod runner;
mod switchover;
mod upgrade;
mod world;

pub use case::Case;
pub use herd::{Herd, Wanted};
pub use lock::Lock;
pub use report::{Report, Row};
pub use runner::{Options, test};
pub use world::World;
