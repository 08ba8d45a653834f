//! Waiting for a condition, never for a time: an expired wait says what it waited for and what it last saw.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Cluster;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

impl Cluster {
    /// Waits until `condition` returns `None`. `Some(text)` is what is still missing; an error counts as missing as well,
    /// for servers restart under test.
    pub async fn wait(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> Result<Option<String>>,
    ) -> Result<()> {
        self.wait_for(what, deadline, async || {
            Ok(match condition().await? {
                None => Ok(()),
                Some(missing) => Err(missing),
            })
        })
        .await
    }

    /// As [`wait`](Self::wait), for a condition that brings a value: `Ok(Ok(value))`, or `Ok(Err(missing))`.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> Result<Result<T, String>>,
    ) -> Result<T> {
        let begin = Instant::now();
        let mut last = "the condition was never looked at to its end".to_owned();
        loop {
            let left = deadline.saturating_sub(begin.elapsed());
            match tokio::time::timeout(left, condition()).await {
                Ok(Ok(Ok(value))) => return Ok(value),
                Ok(Ok(Err(missing))) => last = missing,
                Ok(Err(error)) => last = format!("{error:#}"),
                Err(_) => {}
            }
            if begin.elapsed() + POLL >= deadline {
                bail!("waited {:.1} s in vain until {what}; last seen: {last}", begin.elapsed().as_secs_f32());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `None` when the API server says that it is ready.
    pub async fn api_is_ready(&self) -> Result<Option<String>> {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let answer = self.client.request_text(request).await?;
        Ok((answer != "ok").then_some(answer))
    }
}
