//! `GET /metrics`: Patroni's names, so that its dashboards work, and the same facts by the conventions of Prometheus: base units,
//! one metric with a label for each word instead of a number for it.

use std::fmt::{Display, Write};

use matriarch_ha::event::ServerStatus;
use matriarch_ha::member_status::PATRONI_VERSION;
use matriarch_ha::types::Wall;
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

/// Patroni's roles.
const ROLES: [&str; 5] = ["primary", "standby_leader", "replica", "demoted", "uninitialized"];

/// All of them in Prometheus' text format.
pub fn response(seen: &Seen) -> Answer {
    let labels = [("scope", seen.site.scope.as_str()), ("name", &seen.view.name)];
    let mut out = Lines { text: String::with_capacity(8 * 1024), labels: labelled("", &labels) };
    patroni(&mut out, seen);
    ours(&mut out, seen);
    Answer::new(200, Body::Plain(out.text))
}

/// Lines being written, each metric with its HELP and TYPE.
struct Lines {
    text: String,
    labels: String,
}

impl Lines {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labelled(&self.labels, labels);
        let _ = writeln!(self.text, "{name}{{{labels}}} {value}");
    }

    fn put(&mut self, name: &str, kind: &str, value: impl Display, help: &str) {
        self.head(name, kind, help);
        self.row(name, &[], value);
    }

    fn gauge(&mut self, name: &str, value: impl Display, help: &str) {
        self.put(name, "gauge", value, help);
    }

    fn flag(&mut self, name: &str, value: bool, help: &str) {
        self.gauge(name, u8::from(value), help);
    }

    /// One row for each word, 1 for the one that holds.
    fn words(&mut self, name: &str, label: &str, words: &[&str], present: &str, help: &str) {
        self.head(name, "gauge", help);
        for word in words {
            self.row(name, &[(label, word)], u8::from(*word == present));
        }
    }
}

fn labelled(first: &str, labels: &[(&str, &str)]) -> String {
    let mut text = first.to_owned();
    for (name, value) in labels {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

/// Patroni 4.1's names and types.
fn patroni(out: &mut Lines, seen: &Seen) {
    let view = seen.view;
    let (primary, standby, server) = (seen.primary(), seen.standby(), view.server.as_ref());
    let parts: Vec<String> = PATRONI_VERSION.split('.').map(|part| format!("{part:0>2}")).collect();
    let version = parts.concat();
    out.gauge("patroni_version", version, "Version of Patroni whose interface this is, without periods.");
    out.flag("patroni_postgres_running", seen.running(), "1 if PostgreSQL runs and answers.");
    let started = server.and_then(status::started).map(seconds_since_1970).unwrap_or_default();
    out.gauge("patroni_postmaster_start_time", or_zero(&started), "When PostgreSQL was started, seconds since 1970.");
    out.flag("patroni_primary", seen.role() == "primary", "1 if PostgreSQL is a primary.");
    let location = primary.map_or(0, |server| server.flush.0);
    out.put("patroni_xlog_location", "counter", location, "Flush position of a primary, bytes.");
    out.flag("patroni_standby_leader", seen.role() == "standby_leader", "1 if this member leads a standby cluster.");
    out.flag("patroni_replica", seen.role() == "replica", "1 if this member is a replica.");
    out.flag("patroni_sync_standby", seen.sync_standby(), "1 if this member is a synchronous standby.");
    out.flag("patroni_quorum_standby", seen.quorum_standby(), "1 if this member counts for the quorum.");
    let received = standby.map_or(0, |server| server.received.max(server.replayed).0);
    out.put("patroni_xlog_received_location", "counter", received, "Position that a standby has received, bytes.");
    let replayed = standby.map_or(0, |server| server.replayed.0);
    out.put("patroni_xlog_replayed_location", "counter", replayed, "Position that a standby has replayed, bytes.");
    let at = standby.and_then(|server| server.replayed_at).map(seconds_since_1970).unwrap_or_default();
    let help = "Commit time of the last replayed transaction, seconds since 1970.";
    out.gauge("patroni_xlog_replayed_timestamp", or_zero(&at), help);
    out.flag("patroni_xlog_paused", standby.is_some_and(|server| server.replay_paused), "1 if the replay is paused.");
    let state = standby.and_then(ServerStatus::replication_state);
    out.flag("patroni_postgres_streaming", state == Some("streaming"), "1 if a standby streams.");
    let archive = state == Some("in archive recovery");
    out.flag("patroni_postgres_in_archive_recovery", archive, "1 if a standby reads from an archive.");
    let version = server.map_or(0, |server| server.version);
    out.gauge("patroni_postgres_server_version", version, "server_version_num of PostgreSQL.");
    out.flag("patroni_cluster_unlocked", seen.unlocked(), "1 if nobody is known to hold the leader lock.");
    out.flag("patroni_failsafe_mode_is_active", view.failsafe_active, "1 if failsafe mode is in force.");
    out.flag("patroni_failsafe_mode_enabled", view.failsafe_mode, "1 if failsafe mode is configured.");
    let member = view.failsafe_members.contains_key(&view.name);
    out.flag("patroni_failsafe_member", member, "1 if this member belongs to the failsafe topology.");
    let timeline = server.map_or(0, |server| server.timeline.0);
    out.gauge("patroni_postgres_timeline", timeline, "Timeline of PostgreSQL.");
    let seen_at = status::store_last_seen(seen);
    out.gauge("patroni_dcs_last_seen", seen_at, "When the store was last heard of, seconds since 1970.");
    let pending = server.is_some_and(|server| !server.pending_restart.is_empty());
    out.flag("patroni_pending_restart", pending, "1 if parameters wait for a restart.");
    out.flag("patroni_is_paused", view.paused, "1 if the cluster is paused.");
    let state = STATES.iter().position(|state| *state == seen.state());
    let state = state.and_then(|at| i32::try_from(at).ok()).unwrap_or(-1);
    out.gauge("patroni_postgres_state", state, "Number of the state, 5 running, -1 unknown.");
    let priority = seen.site.tags.get("failover_priority").and_then(Value::as_i64).unwrap_or(1);
    let priority = if seen.site.tag("nofailover") { 0 } else { priority };
    out.gauge("patroni_failover_priority", priority, "Tag failover_priority, 0 never leads.");
}

/// The same facts, and more, by the conventions of Prometheus.
fn ours(out: &mut Lines, seen: &Seen) {
    let view = seen.view;
    let (standby, server) = (seen.standby(), view.server.as_ref());
    out.head("matriarch_build_info", "gauge", "Versions of the agent and of PostgreSQL.");
    let postgres = server.map(|server| server.version.to_string()).unwrap_or_default();
    out.row("matriarch_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("postgres_version", &postgres)], 1);
    out.words("matriarch_state", "state", &STATES, seen.state(), "1 for the state that PostgreSQL is in.");
    out.words("matriarch_role", "role", &ROLES, seen.role(), "1 for the role that PostgreSQL has.");
    out.flag("matriarch_leader", seen.leader(), "1 if this member holds the leader lock.");
    out.flag("matriarch_paused", view.paused, "1 if the cluster is paused.");
    out.flag("matriarch_pending_restart", pending(seen) > 0, "1 if parameters wait for a restart.");
    out.gauge("matriarch_pending_restart_parameters", pending(seen), "Parameters that wait for a restart.");
    let timeline = server.map_or(0, |server| server.timeline.0);
    out.gauge("matriarch_timeline", timeline, "Timeline of PostgreSQL.");
    if let Some(at) = server.and_then(status::started) {
        let help = "When PostgreSQL was started.";
        out.gauge("matriarch_postmaster_start_timestamp_seconds", seconds_since_1970(at), help);
    }
    if let Some(primary) = seen.primary() {
        out.put(
            "matriarch_wal_flushed_bytes_total",
            "counter",
            primary.flush.0,
            "End of the flushed log of a primary.",
        );
    }
    if let Some(standby) = standby {
        let head = view.leader_lsn.max(standby.upstream_end).0;
        out.put("matriarch_wal_received_bytes_total", "counter", standby.received.0, "End of what a standby received.");
        out.put("matriarch_wal_replayed_bytes_total", "counter", standby.replayed.0, "End of what a standby replayed.");
        let lag = head.saturating_sub(standby.received.max(standby.replayed).0);
        out.gauge("matriarch_receive_lag_bytes", lag, "What a standby has not received of the leader's log.");
        let lag = head.saturating_sub(standby.replayed.0);
        out.gauge("matriarch_replay_lag_bytes", lag, "What a standby has not replayed of the leader's log.");
        if let Some(at) = standby.replayed_at {
            let help = "Commit time of the last replayed transaction.";
            out.gauge("matriarch_replayed_transaction_timestamp_seconds", seconds_since_1970(at), help);
        }
    }
    out.gauge("matriarch_streaming_standbys", streaming(seen), "Standbys that stream from this member.");
    out.head("matriarch_rule_info", "gauge", "The rule in force.");
    out.row("matriarch_rule_info", &[("rule", &view.rule)], 1);
    let left = if view.leader { view.leader_until.ms_since(seen.now.boot) } else { 0 };
    out.gauge("matriarch_fence_deadline_seconds", seconds(left), "Until a leader must have renewed, else 0.");
    let age = seen.now.boot.ms_since(view.cycle_at.max(seen.site.started));
    out.gauge("matriarch_cycle_age_seconds", seconds(age), "Since the core last finished a cycle.");
    if view.store_seen.0 != 0 {
        let age = seen.now.boot.ms_since(view.store_seen);
        out.gauge("matriarch_store_age_seconds", seconds(age), "Since the store was last heard of.");
    }
    out.gauge(
        "matriarch_invalid_parameters",
        view.invalid_parameters.len(),
        "Configured parameters that cannot be used.",
    );
}

fn pending(seen: &Seen) -> usize {
    seen.view.server.as_ref().map_or(0, |server| server.pending_restart.len())
}

fn streaming(seen: &Seen) -> usize {
    seen.view.standbys.iter().filter(|standby| standby.state == "streaming").count()
}

/// Milliseconds as seconds.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn seconds_since_1970(at: Wall) -> String {
    format!("{}.{:06}", at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000))
}

fn or_zero(text: &str) -> &str {
    if text.is_empty() { "0" } else { text }
}
