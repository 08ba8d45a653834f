//! Exhaustive searches within small bounds: the quorum planner, the lease with its fence, and the rules. `MATRIARCH_FULL=1`
//! widens the bounds from seconds to minutes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

mod decide;
mod gen_all;
mod lease;
mod quorum;
mod quorum_model;
mod quorum_names;
mod search;
mod snapshots;

/// Wider bounds were asked for.
fn full() -> bool {
    std::env::var_os("MATRIARCH_FULL").is_some()
}
