//! The loop between the core and the world: one event in, its effects out. No decisions here.

pub mod clock;
pub mod handle;
