//! The kubelet's probes. They read memory and a clock, nothing that could hang.

use matriarch_ha::types::Lsn;

use super::Answer;
use super::query::{self, Query};
use super::seen::Seen;

/// 200 while the core finishes its cycles: within ttl when a primary runs, else within twice that. Always in pause.
pub fn liveness(seen: &Seen) -> Answer {
    let last = seen.view.cycle_at.max(seen.site.started);
    // Before the first view the ttl is unknown; 30 s is Patroni's default.
    let ttl = if seen.view.ttl_ms == 0 { 30_000 } else { seen.view.ttl_ms };
    let patience = if seen.primary().is_some() { ttl } else { 2 * ttl };
    let alive = seen.view.paused || seen.now.boot.ms_since(last) < patience;
    Answer::empty(if alive { 200 } else { 503 })
}

/// 200 if PostgreSQL can be used: a primary that holds the lock and accepts connections, or a standby that is near the leader.
///
/// Query: `lag` is another limit than `maximum_lag_on_failover`; `mode=write` looks at what was received instead of replayed.
pub fn readiness(seen: &Seen, query: &Query) -> Answer {
    Answer::empty(if ready(seen, query) { 200 } else { 503 })
}

fn ready(seen: &Seen, query: &Query) -> bool {
    if !seen.running() {
        return false;
    }
    let Some(standby) = seen.standby() else {
        // A primary without the lock is about to be stopped, but for pause, where a person wants it to run.
        return seen.leader() || seen.view.paused;
    };
    if seen.leader() {
        return seen.standby_cluster(); // else it is still being promoted
    }
    let limit = query::value(query, "lag").and_then(query::bytes).unwrap_or(seen.view.max_lag);
    let position: Lsn = if query::value(query, "mode") == Some("write") {
        standby.received.max(standby.replayed)
    } else {
        standby.replayed
    };
    // While nobody leads there is nobody to stream from: reads stay possible during a failover. That needs a store that says
    // so; a standby that hears neither leader nor store may be behind by any amount.
    let leaderless = seen.store_known() && seen.view.unlocked;
    let follows = standby.streaming || leaderless || seen.view.paused;
    follows && !seen.lags(position, limit)
}
