//! The documents, field by field.

use std::sync::Arc;

use matriarch_ha::event::StandbyStatus;
use serde_json::Value;

use super::*;
use crate::api::Body;

fn document(view: &View, path: &str) -> Value {
    match get(view, &site(), path) {
        super::super::Answer { code: 200, body: Body::Json(value), .. } => value,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn a_primarys_status_is_patronis() {
    let mut view = leader();
    view.standbys = vec![StandbyStatus {
        member: "orders-1".into(),
        state: "streaming".into(),
        sync_state: "quorum".into(),
        flush: Lsn(1000),
        ..StandbyStatus::default()
    }];
    assert_eq!(
        document(&view, "/patroni"),
        json!({
            "state": "running", "role": "primary", "postmaster_start_time": "2024-07-02 11:00:00+00:00",
            "server_version": 150_018, "xlog": {"location": 1000}, "timeline": 3,
            "replication": [{"usename": "", "application_name": "orders-1", "client_addr": null, "state": "streaming",
                             "sync_state": "quorum", "sync_priority": 0}],
            "database_system_identifier": "7268616322854375442", "dcs_last_seen": 1_719_918_401,
            "patroni": {"version": "4.1.4", "scope": "orders", "name": "orders-0"},
            "matriarch": {"pod_uid": "uid-of-orders-0", "rule": "some.rule", "reason": "as it should be"},
        })
    );
}

#[test]
fn a_standbys_status_has_both_positions() {
    let view =
        View { sync_mode: "quorum".into(), sync_standby: true, paused: true, failsafe_active: true, ..standby() };
    let status = document(&view, "/patroni");
    assert_eq!(
        (&status["xlog"]["received_location"], &status["xlog"]["replayed_location"]),
        (&json!(1000), &json!(900))
    );
    assert_eq!(status["replication_state"], "streaming");
    for flag in ["quorum_standby", "pause", "failsafe_mode_is_active"] {
        assert_eq!(status[flag], true, "{flag}");
    }
    assert_eq!(status.get("cluster_unlocked"), None);
    let mut nothing_received = standby();
    nothing_received.server.as_mut().unwrap().received = Lsn(0);
    assert_eq!(document(&nothing_received, "/patroni")["xlog"]["received_location"], 900);
}

#[test]
fn a_server_that_does_not_answer_is_unknown() {
    let status = document(&View { server: None, store_seen: Boot(0), ..standby() }, "/patroni");
    assert_eq!((&status["state"], &status["role"]), (&json!("unknown"), &json!("replica")));
    assert_eq!(status["cluster_unlocked"], true);
    assert_eq!(status["dcs_last_seen"], 0);
    assert_eq!(status.get("xlog"), None);
}

#[test]
fn the_cluster_lists_members_by_name_with_their_lag() {
    let mut view = standby();
    Arc::make_mut(&mut view.members)[0].sync = true;
    view.sync_mode = "quorum".into();
    Arc::make_mut(&mut view.members)[0].status["replication_state"] = json!("streaming");
    assert_eq!(
        document(&view, "/cluster"),
        json!({"scope": "orders", "members": [
            {
                "name": "orders-0", "role": "leader", "state": "running", "host": "orders-0.orders-pods.x.svc", "port": 5432,
                "api_url": "https://orders-0.orders-pods.x.svc:8008/patroni", "timeline": 3, "lsn": "0/384",
            },
            {
                "name": "orders-1", "role": "quorum_standby", "state": "streaming", "host": "orders-1.orders-pods.x.svc",
                "port": 5432, "api_url": "https://orders-1.orders-pods.x.svc:8008/patroni", "timeline": 3,
                "lsn": "0/3E8", "lag": 0, "receive_lsn": "0/3E8", "receive_lag": 0, "replay_lsn": "0/384", "replay_lag": 100,
            },
        ]})
    );
}

#[test]
fn a_primary_knows_its_standbys_better_than_their_annotations() {
    let mut view = View { leader_lsn: Lsn(0), ..leader() };
    view.standbys = vec![StandbyStatus { member: "orders-1".into(), flush: Lsn(990), ..StandbyStatus::default() }];
    let cluster = document(&view, "/cluster");
    assert_eq!((&cluster["members"][1]["lag"], &cluster["members"][1]["replay_lag"]), (&json!(10), &json!("unknown")));
}

#[test]
fn members_without_a_status_are_members() {
    let mut view = leader();
    Arc::make_mut(&mut view.members)[0].status = Value::Null;
    let row = document(&view, "/cluster")["members"][1].clone();
    assert_eq!((&row["name"], &row["state"], &row["lag"]), (&json!("orders-1"), &json!(""), &json!("unknown")));
}

#[test]
fn what_is_not_stored_is_not_made_up() {
    assert_eq!(document(&leader(), "/config/anything"), json!({"ttl": 10}));
    assert_eq!(get(&View { config: None, ..leader() }, &site(), "/config").code, 502);
    assert_eq!(get(&leader(), &site(), "/failsafe").code, 502);
    let mut view = leader();
    view.failsafe_members.insert("orders-0".into(), "https://h:8008/patroni".into());
    assert_eq!(document(&view, "/failsafe"), json!({"orders-0": "https://h:8008/patroni"}));
    assert_eq!(document(&leader(), "/history"), json!([]));
}

#[test]
fn the_cluster_shows_what_is_scheduled_and_its_history() {
    use matriarch_ha::store::record::{Failover, When};
    let at = "2034-07-02T09:06:00Z".parse().unwrap();
    let switchover = Some(Failover { leader: Some("orders-0".into()), member: None, when: When::At(at) });
    let line = matriarch_ha::history::Line {
        timeline: Timeline(2),
        lsn: Lsn(96),
        reason: "no recovery target specified".into(),
        at: Some("2024-01-01T00:00:00+00:00".into()),
        leader: Some("orders-1".into()),
    };
    let view = View { switchover, history: vec![line], ..leader() };
    assert_eq!(
        document(&view, "/cluster")["scheduled_switchover"],
        json!({"at": "2034-07-02T09:06:00+00:00", "from": "orders-0"})
    );
    assert_eq!(
        document(&view, "/history"),
        json!([[2, 96, "no recovery target specified", "2024-01-01T00:00:00+00:00", "orders-1"]])
    );
    assert_eq!(document(&leader(), "/cluster").get("scheduled_switchover"), None);
}
