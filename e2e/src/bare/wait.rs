//! How scenarios outside of pods wait.

use std::time::Duration;

use anyhow::Result;

use crate::host::process::Process;
use crate::wait::{self, Pace};

/// All is on this machine, so looks are cheap.
const PACE: Pace = Pace { poll: Duration::from_millis(50), tell: Some(Duration::from_secs(10)) };

/// Waits for `Ok(Ok(value))`; `Ok(Err(missing))` and errors are what is still missing.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    condition: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    wait::until(what, deadline, PACE, condition).await
}

/// Waits for a process to end, whoever ends it; `what` says it in the scenario's words.
pub async fn ended(what: &str, deadline: Duration, process: &Process) -> Result<()> {
    until(what, deadline, async || Ok(if process.is_alive() { Err("it runs".to_owned()) } else { Ok(()) })).await
}
