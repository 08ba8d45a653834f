//! The agent: everything between the pure core ([`matriarch_ha`]) and the world.

pub mod agent;
pub mod api;
pub mod commands;
pub mod config;
pub mod ctl;
pub mod declared;
pub mod driver;
pub mod explain;
mod heartbeat;
pub mod install;
pub mod logging;
pub mod mounted;
pub mod peers;
pub mod postgres;
pub mod reload;
pub mod store;
pub mod supervisor;
pub mod tls;
