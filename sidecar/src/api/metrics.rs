//! `GET /metrics`: Patroni's names, so that its dashboards work, and a few of ours.

use std::fmt::Write;

use serde_json::Value;

use super::seen::Seen;
use super::{Answer, Body, status};

/// Patroni's numbers of states, in order.
const STATES: [&str; 15] = [
    "initializing new cluster",
    "initdb failed",
    "running custom bootstrap script",
    "custom bootstrap failed",
    "creating replica",
    "running",
    "starting",
    "starting after custom bootstrap",
    "start failed",
    "restarting",
    "restart failed",
    "stopping",
    "stopped",
    "stop failed",
    "crashed",
];

/// All of them in Prometheus' text format.
pub fn response(seen: &Seen) -> Answer {
    Answer::new(200, Body::Plain(text(seen)))
}

/// Lines being written, each metric with its HELP and TYPE.
struct Lines {
    text: String,
    labels: String,
}

impl Lines {
    fn put(&mut self, name: &str, kind: &str, value: impl std::fmt::Display, help: &str) {
        let labels = self.labels.clone();
        self.put_labelled(name, kind, &labels, value, help);
    }

    fn put_labelled(&mut self, name: &str, kind: &str, labels: &str, value: impl std::fmt::Display, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}");
    }

    fn flag(&mut self, name: &str, value: bool, help: &str) {
        self.put(name, "gauge", u8::from(value), help);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn text(seen: &Seen) -> String {
    let view = seen.view;
    let labels = format!("scope=\"{}\",name=\"{}\"", escaped(&seen.site.scope), escaped(&view.name));
    let mut out = Lines { text: String::with_capacity(6 * 1024), labels };
    let (primary, standby) = (seen.primary(), seen.standby());
    let server = view.server.as_ref();
    out.put("patroni_version", "gauge", "040104", "Version of Patroni whose interface this is.");
    out.flag("patroni_postgres_running", seen.running(), "1 if PostgreSQL runs and answers.");
    out.flag("patroni_primary", seen.leader() && !seen.standby_cluster(), "1 if this member holds the leader lock.");
    let location = primary.map_or(0, |server| server.flush.0);
    out.put("patroni_xlog_location", "counter", location, "Flush position of a primary, bytes.");
    let standby_leader = seen.leader() && seen.standby_cluster();
    out.flag("patroni_standby_leader", standby_leader, "1 if this member leads a standby cluster.");
    out.flag("patroni_replica", seen.role() == "replica", "1 if this member is a replica.");
    out.flag("patroni_sync_standby", seen.sync_standby(), "1 if this member is a synchronous standby.");
    out.flag("patroni_quorum_standby", seen.quorum_standby(), "1 if this member counts for the quorum.");
    let received = standby.map_or(0, |server| server.received.max(server.replayed).0);
    out.put("patroni_xlog_received_location", "counter", received, "Position that a standby has received, bytes.");
    let replayed = standby.map_or(0, |server| server.replayed.0);
    out.put("patroni_xlog_replayed_location", "counter", replayed, "Position that a standby has replayed, bytes.");
    let streaming = standby.is_some_and(|server| server.streaming);
    out.flag("patroni_postgres_streaming", streaming, "1 if a standby streams.");
    let version = server.map_or(0, |server| server.version);
    out.put("patroni_postgres_server_version", "gauge", version, "server_version_num of PostgreSQL.");
    out.flag("patroni_cluster_unlocked", seen.unlocked(), "1 if nobody is known to hold the leader lock.");
    out.flag("patroni_failsafe_mode_is_active", view.failsafe_active, "1 if failsafe mode is in force.");
    out.flag("patroni_failsafe_mode_enabled", view.failsafe_mode, "1 if failsafe mode is configured.");
    let member = view.failsafe_members.contains_key(&view.name);
    out.flag("patroni_failsafe_member", member, "1 if this member belongs to the failsafe topology.");
    out.put("patroni_postgres_timeline", "gauge", view.timeline, "Timeline of PostgreSQL.");
    let seen_at = status::store_last_seen(seen);
    out.put("patroni_dcs_last_seen", "gauge", seen_at, "When the store was last heard of, seconds since 1970.");
    let pending = server.is_some_and(|server| !server.pending_restart.is_empty());
    out.flag("patroni_pending_restart", pending, "1 if parameters wait for a restart.");
    out.flag("patroni_is_paused", view.paused, "1 if the cluster is paused.");
    let state = STATES.iter().position(|state| *state == view.state);
    let state = state.and_then(|at| i32::try_from(at).ok()).unwrap_or(-1);
    out.put("patroni_postgres_state", "gauge", state, "Number of the state, 5 running, -1 unknown.");
    let priority = seen.site.tags.get("failover_priority").and_then(Value::as_i64).unwrap_or(1);
    let priority = if seen.site.tag("nofailover") { 0 } else { priority };
    out.put("patroni_failover_priority", "gauge", priority, "Tag failover_priority, 0 never leads.");

    let rule = format!("{},rule=\"{}\"", out.labels, escaped(&view.rule));
    out.put_labelled("matriarch_rule_info", "gauge", &rule, 1, "The rule in force.");
    let left = if view.leader { view.leader_until.ms_since(seen.now.boot) } else { 0 };
    out.put("matriarch_fence_deadline_seconds", "gauge", seconds(left), "Until a leader must have renewed, else 0.");
    let age = seen.now.boot.ms_since(view.cycle_at.max(seen.site.started));
    out.put("matriarch_cycle_age_seconds", "gauge", seconds(age), "Since the core last finished a cycle.");
    let invalid = view.invalid_parameters.len();
    out.put("matriarch_invalid_parameters", "gauge", invalid, "Configured parameters that cannot be used.");
    out.text
}

/// Milliseconds as seconds.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
