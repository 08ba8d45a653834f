//! The agent: everything between the pure core ([`matriarch_ha`]) and the world.

pub mod api;
pub mod driver;
pub mod peers;
pub mod tls;
