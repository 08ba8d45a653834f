//! Waiting for a condition, never for a time: an expired wait says what it waited for and what it last saw.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How a wait goes on.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often the condition is looked at.
    pub poll: Duration,
    /// How often a long wait is told of, though it may end well.
    pub tell: Option<Duration>,
}

/// Waits for `Ok(Ok(value))`; `Ok(Err(missing))` and errors are what is still missing.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    pace: Pace,
    mut condition: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let begin = Instant::now();
    let mut told = pace.tell;
    let mut last = "the condition was never looked at to its end".to_owned();
    loop {
        let left = deadline.saturating_sub(begin.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(missing))) => last = missing,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if let (Some(next), Some(tell)) = (told, pace.tell)
            && begin.elapsed() >= next
        {
            eprintln!("    {:.0} s until {what}: {last}", begin.elapsed().as_secs_f32());
            told = Some(next + tell);
        }
        if begin.elapsed() + pace.poll >= deadline {
            bail!("waited {:.1} s in vain until {what}; last seen: {last}", begin.elapsed().as_secs_f32());
        }
        tokio::time::sleep(pace.poll).await;
    }
}
