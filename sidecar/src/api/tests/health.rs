//! Every health check, for every kind of member.

use std::sync::Arc;

use super::*;
use crate::api::Body;

/// Paths that answer 200; all others of [`ALL`] must answer 503.
#[track_caller]
fn passes_only(view: &View, expected: &[&str]) {
    let site = site();
    let found: Vec<&str> = ALL.iter().copied().filter(|path| get(view, &site, path).code == 200).collect();
    assert_eq!(found, expected);
    for path in ALL {
        let whole = get(view, &site, path);
        assert!(matches!(whole.body, Body::Json(ref document) if document["state"].is_string()), "{path}");
        let short = head(view, &site, path);
        assert_eq!((short.code, short.body), (whole.code, Body::Empty), "{path}");
    }
}

const ALL: [&str; 22] = [
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/standby-leader",
    "/standby_leader",
    "/replica",
    "/replica?lag=99",
    "/replica?lag=1kB",
    "/replica?replication_state=streaming",
    "/replica?tag_zone=a",
    "/read-only",
    "/health",
    "/sync",
    "/synchronous",
    "/async",
    "/asynchronous",
    "/quorum",
    "/read-only-sync",
    "/read-only-quorum",
    "/nothing",
];

const LEADER: [&str; 9] = [
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/read-only",
    "/health",
    "/read-only-sync",
    "/read-only-quorum",
];

#[test]
fn a_leader_is_where_writes_go() {
    passes_only(&leader(), &LEADER);
}

#[test]
fn a_leader_past_its_deadline_is_none_whatever_was_published() {
    let view = View { leader_until: NOW.boot, ..leader() };
    passes_only(&view, &["/health"]);
}

#[test]
fn a_leader_whose_server_does_not_answer_still_holds_the_lock() {
    let view = View { server: None, ..leader() };
    let expected: Vec<&str> = LEADER.into_iter().filter(|path| *path != "/health").collect();
    passes_only(&view, &expected);
}

#[test]
fn a_primary_without_the_lock_takes_nothing() {
    passes_only(&View { leader: false, ..leader() }, &["/health"]);
}

const STANDBY: [&str; 7] = [
    "/replica",
    "/replica?lag=1kB",
    "/replica?replication_state=streaming",
    "/read-only",
    "/health",
    "/async",
    "/asynchronous",
];

#[test]
fn a_standby_is_where_reads_go() {
    passes_only(&standby(), &STANDBY);
}

#[test]
fn a_synchronous_standby_is_no_asynchronous_one() {
    let view = View { sync_mode: "on".into(), sync_standby: true, ..standby() };
    passes_only(
        &view,
        &[
            "/replica",
            "/replica?lag=1kB",
            "/replica?replication_state=streaming",
            "/read-only",
            "/health",
            "/sync",
            "/synchronous",
            "/read-only-sync",
        ],
    );
}

#[test]
fn a_quorum_standby_has_checks_of_its_own() {
    let view = View { sync_mode: "quorum".into(), sync_standby: true, ..standby() };
    passes_only(
        &view,
        &[
            "/replica",
            "/replica?lag=1kB",
            "/replica?replication_state=streaming",
            "/read-only",
            "/health",
            "/quorum",
            "/read-only-quorum",
        ],
    );
}

#[test]
fn without_the_store_nobody_knows_who_is_synchronous() {
    let view =
        View { store_seen: Boot(NOW.boot.0 - 11 * SECOND), sync_mode: "on".into(), sync_standby: true, ..standby() };
    passes_only(
        &view,
        &["/replica", "/replica?lag=1kB", "/replica?replication_state=streaming", "/read-only", "/health"],
    );
}

#[test]
fn a_standby_that_does_not_stream_is_a_replica_all_the_same() {
    let mut view = standby();
    view.server.as_mut().unwrap().streaming = false;
    let expected: Vec<&str> = STANDBY.into_iter().filter(|path| !path.contains("streaming")).collect();
    passes_only(&view, &expected);
}

#[test]
fn a_member_that_starts_takes_nothing() {
    passes_only(&View { server: None, state: "starting".into(), ..standby() }, &[]);
    passes_only(&View { server: None, ..standby() }, &[]);
    passes_only(&View::default(), &[]);
}

#[test]
fn in_pause_without_the_store_the_role_decides() {
    let away = Boot(NOW.boot.0 - 60 * SECOND);
    passes_only(
        &View { paused: true, store_seen: away, leader: false, ..leader() },
        &["/", "/primary", "/master", "/read-write", "/leader", "/read-only", "/health"],
    );
}

#[test]
fn the_leader_of_a_standby_cluster_takes_no_writes() {
    let view = View {
        leader: true,
        leader_until: Boot(NOW.boot.0 + SECOND),
        role: "standby_leader".into(),
        config: Some(Arc::new(json!({"standby_cluster": {"host": "elsewhere"}}))),
        ..standby()
    };
    passes_only(
        &view,
        &[
            "/leader",
            "/standby-leader",
            "/standby_leader",
            "/read-only",
            "/health",
            "/read-only-sync",
            "/read-only-quorum",
        ],
    );
}

#[test]
fn tags_choose_among_replicas_and_never_hide_a_leader() {
    let mut site = site();
    site.tags.insert("zone".into(), json!("a"));
    site.tags.insert("clonefrom".into(), json!(true));
    for (path, code) in [
        ("/replica?tag_zone=a", 200),
        ("/replica?tag_zone=b", 503),
        ("/replica?tag_clonefrom=true", 200),
        ("/replica?tag_clonefrom=True", 503),
        ("/replica?tag_zone=a&tag_clonefrom=true", 200),
        ("/health?tag_zone=b", 503),
        ("/async?tag_missing=x", 503),
    ] {
        assert_eq!(get(&standby(), &site, path).code, code, "{path}");
    }
    assert_eq!(get(&leader(), &site, "/primary?tag_zone=b").code, 200);
    site.tags.insert("noloadbalance".into(), json!(true));
    assert_eq!(get(&standby(), &site, "/replica").code, 503);
}

#[test]
fn a_limit_that_cannot_be_read_limits_nothing() {
    assert_eq!(get(&standby(), &site(), "/replica?lag=much").code, 200);
    assert_eq!(get(&standby(), &site(), "/replica?lag=100").code, 200);
    assert_eq!(get(&View { leader_lsn: Lsn(0), ..standby() }, &site(), "/replica?lag=0").code, 200);
}
