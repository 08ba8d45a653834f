//! How a cluster is waited for.

use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use crate::wait::{Pace, until};

/// Each look is a request to the API server.
const PACE: Pace = Pace { poll: Duration::from_millis(100), tell: None };

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
        condition: impl AsyncFnMut() -> Result<Result<T, String>>,
    ) -> Result<T> {
        until(what, deadline, PACE, condition).await
    }

    /// `None` when the API server says that it is ready.
    pub async fn api_is_ready(&self) -> Result<Option<String>> {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let answer = self.client.request_text(request).await?;
        Ok((answer != "ok").then_some(answer))
    }
}
