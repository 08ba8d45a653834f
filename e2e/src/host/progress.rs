//! Prints what is being done and how long it took, so that nobody stares at a silent terminal.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// Runs `work`, printing `what` before and the seconds after.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    eprintln!("  {what} …");
    let result = work().with_context(|| what.to_owned());
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("  {what}: {verdict} after {:.1} s", begin.elapsed().as_secs_f32());
    result
}
