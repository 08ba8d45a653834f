//! The agent: everything between the pure core ([`matriarch_ha`]) and the world.

pub mod driver;
