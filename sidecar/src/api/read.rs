//! Which document a GET, HEAD or OPTIONS asks for.

use super::query::Query;
use super::seen::Seen;
use super::{Answer, cluster, health, metrics, probes, status};

/// Answers by the first segment of the path; whatever has no document of its own is a health check.
pub fn response(seen: &Seen, path: &str, query: &Query) -> Answer {
    match first_segment(path) {
        "patroni" => Answer::json(200, status::document(seen)),
        "cluster" => cluster::cluster(seen),
        "history" => cluster::history(seen),
        "config" => cluster::config(seen),
        "failsafe" => cluster::failsafe(seen),
        "metrics" => metrics::response(seen),
        "liveness" => probes::liveness(seen),
        "readiness" => probes::readiness(seen, query),
        _ => health::response(seen, path, query),
    }
}

/// HEAD and OPTIONS: no body, and a health check whatever the path, but for the kubelet's probes.
pub fn status_only(seen: &Seen, path: &str, query: &Query) -> Answer {
    match first_segment(path) {
        "liveness" => probes::liveness(seen),
        "readiness" => probes::readiness(seen, query),
        _ => Answer::empty(health::code(seen, path, query)),
    }
}

/// `/config/anything` is `/config`.
pub fn first_segment(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}
