//! The status document: `GET /patroni` and the body of every health check.

use matriarch_ha::event::ServerStatus;
use matriarch_ha::member_status::PATRONI_VERSION;
use matriarch_ha::types::Wall;
use serde_json::{Map, Value, json};

use super::seen::Seen;

/// Patroni 4's fields, and ours under `matriarch`. Without an answer of PostgreSQL only state, role and what the store says.
pub fn document(seen: &Seen) -> Value {
    let (view, site) = (seen.view, seen.site);
    let mut document = Map::new();
    let mut set = |key: &str, value: Value| document.insert(key.to_owned(), value);
    set("state", json!(seen.state()));
    set("role", json!(seen.role()));
    if let Some(server) = &view.server {
        set("postmaster_start_time", json!(started(server).map_or_else(|| server.started.clone(), printed)));
        set("server_version", json!(server.version));
        if server.in_recovery {
            let received = if server.received.0 == 0 { server.replayed } else { server.received };
            let xlog = json!({"received_location": received, "replayed_location": server.replayed,
                "replayed_timestamp": server.replayed_at.map(printed), "paused": server.replay_paused});
            // Without it a peer that runs Patroni does not count us as a voter.
            if !view.withholds_position {
                set("xlog", xlog);
            }
            if let Some(state) = server.replication_state() {
                set("replication_state", json!(state));
            }
        } else {
            set("xlog", json!({"location": server.flush}));
        }
        if seen.sync_standby() {
            set("sync_standby", json!(true));
        }
        if seen.quorum_standby() {
            set("quorum_standby", json!(true));
        }
        if server.timeline.0 != 0 {
            set("timeline", json!(server.timeline));
        }
        let standbys: Vec<Value> = view.standbys.iter().map(standby).collect();
        if !standbys.is_empty() {
            set("replication", json!(standbys));
        }
        set("database_system_identifier", json!(server.system_id));
        if !server.pending_restart.is_empty() {
            set("pending_restart", json!(true));
            set("pending_restart_reason", json!(server.pending_restart));
        }
    }
    // Told when it is in force: who was told may end the agent in any way, and PostgreSQL goes on.
    if view.paused && !view.pausing {
        set("pause", json!(true));
    }
    if seen.unlocked() {
        set("cluster_unlocked", json!(true));
    }
    if view.failsafe_active {
        set("failsafe_mode_is_active", json!(true));
    }
    if let Some(scheduled) = &view.scheduled_restart {
        let mut scheduled = scheduled.clone();
        if let Some(scheduled) = scheduled.as_object_mut() {
            scheduled.remove("postmaster_start_time");
        }
        set("scheduled_restart", scheduled);
    }
    set("dcs_last_seen", json!(store_last_seen(seen)));
    if !site.tags.is_empty() {
        set("tags", json!(site.tags));
    }
    set("patroni", json!({"version": PATRONI_VERSION, "scope": site.scope, "name": view.name}));
    let mut ours = json!({"pod_uid": view.pod_uid, "rule": view.rule, "reason": view.reason});
    if view.demoted {
        ours["demoted"] = json!(true);
    }
    set("matriarch", ours);
    Value::Object(document)
}

fn standby(row: &matriarch_ha::event::StandbyStatus) -> Value {
    json!({"usename": row.user, "application_name": row.member, "client_addr": row.address, "state": row.state,
        "sync_state": row.sync_state, "sync_priority": row.sync_priority})
}

/// When the postmaster was started.
pub fn started(server: &ServerStatus) -> Option<Wall> {
    server.started.parse().ok()
}

/// As Python prints a moment: with a space, not with a `T`.
fn printed(at: Wall) -> String {
    at.to_string().replacen('T', " ", 1)
}

/// Seconds since 1970 at which the store was last heard of, 0: never.
pub fn store_last_seen(seen: &Seen) -> i64 {
    if seen.view.store_seen.0 == 0 {
        return 0;
    }
    let age = i64::try_from(seen.now.boot.ms_since(seen.view.store_seen)).unwrap_or(i64::MAX);
    (seen.now.wall.0 / 1000).saturating_sub(age) / 1000
}
