//! Waiting for a condition, never for a time: an expired wait says what it waited for and what it last saw.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A long wait is told of, though it may end well.
const TELL: Duration = Duration::from_secs(10);

/// Waits for `Ok(Ok(value))`; `Ok(Err(missing))` and errors are what is still missing.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let begin = Instant::now();
    let mut told = TELL;
    let mut last = "the condition was never looked at to its end".to_owned();
    loop {
        let left = deadline.saturating_sub(begin.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(missing))) => last = missing,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if begin.elapsed() >= told {
            eprintln!("    {:.0} s until {what}: {last}", begin.elapsed().as_secs_f32());
            told += TELL;
        }
        if begin.elapsed() + POLL >= deadline {
            bail!("waited {:.1} s in vain until {what}; last seen: {last}", begin.elapsed().as_secs_f32());
        }
        tokio::time::sleep(POLL).await;
    }
}
