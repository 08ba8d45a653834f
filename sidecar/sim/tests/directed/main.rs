//! The 25 nastiest schedules known, as plans: what has to hold is that no promise is broken, and that the trouble really came about.
//! Which schedule is shown where: `docs/simulation.md`.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)] // a test may panic: that is how it fails

mod fence;
mod lock;
mod people;
mod play;
mod synchronous;
mod timelines;
