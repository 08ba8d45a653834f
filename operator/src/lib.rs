//! The operator: turns a `PostgresCluster` into pods, Services and Secrets, and says in its status how they do.
//!
//! `observe` reads (from watch caches), [`plan`] decides (pure), `apply` writes. The agents in the pods elect the
//! leader among themselves: nothing here is needed for a failover.

pub mod agent;
pub mod apply;
pub mod config;
pub mod controller;
pub mod events;
pub mod kinds;
pub mod lease;
pub mod manifests;
pub mod member;
pub mod metrics;
pub mod next_step;
pub mod nodes;
pub mod observe;
pub mod optional;
pub mod plan;
pub mod status;
pub mod tls;
pub mod watch;
