//! `log.deduplicate_heartbeat_logs: false`: what is in force is said again in every loop, as Patroni does; otherwise only when it changes.

use std::time::Duration;

use matriarch_ha::view::View;

use crate::driver::handle::Handle;
use crate::reload::Reloader;

/// Patroni's default of `loop_wait`, seconds.
const LOOP_WAIT: f64 = 10.0;

/// For ever.
pub async fn keep(handle: Handle, reloader: Reloader) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(loop_wait(&handle.view())).await;
        let view = handle.view();
        // A new verdict was said by itself.
        if reloader.config().log.heartbeats && !view.reason.is_empty() && said == view.reason {
            tracing::info!(rule.id = view.rule, "{}", view.reason);
        }
        said.clone_from(&view.reason);
    }
}

fn loop_wait(view: &View) -> Duration {
    let configured = view.config.as_ref().and_then(|config| config.get("loop_wait")?.as_f64());
    Duration::from_secs_f64(configured.filter(|seconds| (0.5..=3600.0).contains(seconds)).unwrap_or(LOOP_WAIT))
}
