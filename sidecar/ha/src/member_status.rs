//! The `status` annotation of a member's pod: what it says about itself to patronictl, to its peers and to the operator.

use serde_json::{Map, Value, json};

use crate::event::Declared;
use crate::view::View;

/// The version of Patroni whose wire format we speak; its tools parse it.
pub const PATRONI_VERSION: &str = "4.1.4";

/// Keys that go up with every commit: no reason to write by themselves.
const POSITIONS: [&str; 3] = ["xlog_location", "receive_lsn", "replay_lsn"];

/// The annotation's JSON with Patroni 4's keys, in Patroni's order, and ours under `matriarch`.
///
/// `conn_url` is `postgres://host:port/postgres`, `api_url` `https://host:port/patroni`. `xlog_location` is the flush position of
/// a primary and the larger of received and replayed of a standby, and is absent while PostgreSQL does not answer.
pub fn member_status(view: &View, conn_url: &str, api_url: &str) -> Value {
    let mut status = Map::new();
    let mut set = |key: &str, value: Value| status.insert(key.to_owned(), value);
    set("conn_url", json!(conn_url));
    set("api_url", json!(api_url));
    set("state", json!(view.state));
    set("role", json!(view.role));
    set("version", json!(PATRONI_VERSION));
    // pg_rewind, which believes pg_control, must wait: Patroni looks for this key.
    let unchecked = |server: &crate::event::ServerStatus| {
        !server.in_recovery && server.checkpoint_timeline.0 != 0 && server.checkpoint_timeline < server.timeline
    };
    if view.leader && view.server.as_ref().is_some_and(unchecked) {
        set("checkpoint_after_promote", json!(false));
    }
    if !view.tags.is_empty() {
        set("tags", json!(view.tags));
    }
    if let Some(server) = &view.server {
        if !server.pending_restart.is_empty() {
            set("pending_restart", json!(true));
            set("pending_restart_reason", json!(server.pending_restart));
        }
        if server.in_recovery {
            set("xlog_location", json!(server.received.max(server.replayed)));
            set("receive_lsn", json!(server.received));
            set("replay_lsn", json!(server.replayed));
            if let Some(state) = server.replication_state() {
                set("replication_state", json!(state));
            }
        } else {
            set("xlog_location", json!(server.flush));
        }
    }
    if view.timeline.0 != 0 {
        set("timeline", json!(view.timeline));
    }
    if let Some(scheduled) = &view.scheduled_restart {
        set("scheduled_restart", scheduled.clone());
    }
    if view.paused && !view.pausing {
        set("pause", json!(true));
    }
    set("matriarch", matriarch(view));
    Value::Object(status)
}

/// What is ours: why the member is where it is.
fn matriarch(view: &View) -> Value {
    let mut ours = json!({"rule": view.rule, "reason": view.reason, "pod_uid": view.pod_uid});
    if let Some(server) = &view.server {
        ours["server_version"] = json!(server.version);
    }
    if !view.invalid_parameters.is_empty() {
        ours["invalid_parameters"] = json!(view.invalid_parameters);
    }
    if !view.config_problems.is_empty() {
        ours["config_problems"] = json!(view.config_problems);
    }
    if let Some(Declared { generation, failed }) = &view.declared {
        ours["declared"] = json!({"generation": generation, "failed": failed});
    }
    ours
}

/// Whether `new` says something that `old` does not, positions aside: they come and go with a write, but never cause one.
pub fn worth_writing(old: &Value, new: &Value) -> bool {
    match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => {
            let covers = |a: &Map<String, Value>, b: &Map<String, Value>| {
                a.iter().all(|(key, value)| match b.get(key) {
                    Some(other) => value == other || POSITIONS.contains(&key.as_str()),
                    None => false,
                })
            };
            !(covers(old, new) && covers(new, old))
        }
        _ => old != new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ServerStatus;
    use crate::types::{Lsn, Timeline};

    fn standby() -> View {
        View {
            pod_uid: "u-1".into(),
            state: "running".into(),
            role: "replica".into(),
            rule: "follower.streams".into(),
            reason: "follows orders-0".into(),
            timeline: Timeline(3),
            server: Some(ServerStatus {
                in_recovery: true,
                received: Lsn(200),
                replayed: Lsn(150),
                streaming: true,
                ..ServerStatus::default()
            }),
            ..View::default()
        }
    }

    fn status(view: &View) -> Value {
        member_status(view, "postgres://h:5432/postgres", "https://h:8008/patroni")
    }

    #[test]
    fn a_standby_says_where_it_is_in_patronis_words() {
        assert_eq!(
            status(&standby()),
            json!({
                "conn_url": "postgres://h:5432/postgres", "api_url": "https://h:8008/patroni",
                "state": "running", "role": "replica", "version": "4.1.4",
                "xlog_location": 200, "receive_lsn": 200, "replay_lsn": 150,
                "replication_state": "streaming", "timeline": 3,
                "matriarch": {"rule": "follower.streams", "reason": "follows orders-0", "pod_uid": "u-1", "server_version": 0},
            })
        );
    }

    #[test]
    fn a_leader_says_what_became_of_declared_objects() {
        let failed = std::collections::BTreeMap::from([("role/x".to_owned(), "why".to_owned())]);
        let view = View { declared: Some(Declared { generation: "g".to_owned(), failed }), ..standby() };
        let (before, now) = (status(&standby()), status(&view));
        assert_eq!(now["matriarch"]["declared"], json!({"generation": "g", "failed": {"role/x": "why"}}));
        assert!(worth_writing(&before, &now) && !worth_writing(&now, &status(&view)));
    }

    #[test]
    fn a_primary_says_what_it_flushed() {
        let view = View {
            role: "primary".into(),
            paused: true,
            server: Some(ServerStatus { flush: Lsn(300), ..ServerStatus::default() }),
            ..standby()
        };
        let status = status(&view);
        assert_eq!(status["xlog_location"], 300);
        assert_eq!(status["pause"], true);
        assert_eq!(status.get("receive_lsn"), None);
        assert_eq!(status.get("replication_state"), None);
    }

    #[test]
    fn a_new_primary_says_that_its_timeline_is_not_in_pg_control_yet() {
        let promoted = |checkpoint_timeline| View {
            role: "primary".into(),
            leader: true,
            server: Some(ServerStatus { timeline: Timeline(4), checkpoint_timeline, ..ServerStatus::default() }),
            ..standby()
        };
        assert_eq!(status(&promoted(Timeline(3)))["checkpoint_after_promote"], false);
        assert_eq!(status(&promoted(Timeline(4))).get("checkpoint_after_promote"), None);
    }

    #[test]
    fn a_server_that_does_not_answer_has_no_position() {
        let view = View { server: None, state: "starting".into(), timeline: Timeline(0), ..standby() };
        let status = status(&view);
        assert_eq!(status.get("xlog_location"), None);
        assert_eq!(status.get("timeline"), None);
    }

    #[test]
    fn parameters_that_cannot_be_used_are_told() {
        let mut view = standby();
        view.invalid_parameters.insert("max_connections".into(), "is no number".into());
        assert_eq!(status(&view)["matriarch"]["invalid_parameters"]["max_connections"], "is no number");
    }

    #[test]
    fn progress_alone_is_not_worth_a_write() {
        let old = status(&standby());
        let mut moved = standby();
        moved.server.as_mut().unwrap().received = Lsn(900);
        assert!(!worth_writing(&old, &status(&moved)));
        assert!(!worth_writing(&old, &old));
        let mut stopped = moved;
        stopped.server.as_mut().unwrap().streaming = false;
        assert!(worth_writing(&old, &status(&stopped)));
        assert!(worth_writing(&status(&stopped), &old));
        let away = status(&View { server: None, ..standby() });
        assert!(worth_writing(&old, &away));
        assert!(worth_writing(&Value::Null, &old));
    }
}
