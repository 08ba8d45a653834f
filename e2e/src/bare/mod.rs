//! Members outside of pods: three real agents, supervisors and `PostgreSQL` on this machine against a real API server, without
//! kubelets. Everything lives in namespaces of its own (processes, network, mounts) and goes with them.

mod control_plane;
mod ctl;
mod endpoints;
mod haproxy;
mod list;
mod member;
mod patroni;
mod pgbouncer;
mod postgres;
mod proxy;
mod runner;
pub(crate) mod sandbox;
mod scenarios;
mod stage;
mod team;
mod wait;

pub(crate) use control_plane::ControlPlane;
pub use postgres::programs;
pub use runner::{Options, inside};
pub use sandbox::enter;
pub(crate) use wait::until;
