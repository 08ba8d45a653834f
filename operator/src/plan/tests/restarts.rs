//! Settings that need a restart: who, in which order, what hinders it, and what is not the operator's business.

use super::*;
use crate::next_step::Turn;
use crate::plan::restarts::Restarted;

const CHANGE: &str = "1970-01-01T00:01:00Z";

/// Three members; the spec changed `max_connections` and `shared_buffers` a minute ago.
fn changed() -> Seen {
    let mut seen = running();
    seen.now = jiff::Timestamp::from_second(120).unwrap();
    annotate(&mut seen, "orders-config", config::CHANGED_ANNOTATION, CHANGE);
    let names = r#"["max_connections","shared_buffers"]"#;
    annotate(&mut seen, "orders-config", config::CHANGED_NAMES_ANNOTATION, names);
    for m in &mut seen.members {
        m.report.replication_state = Some("streaming".to_owned());
    }
    seen
}

/// The members wait for a setting.
fn pending(seen: &mut Seen, members: &[usize], name: &str, [old, new]: [&str; 2]) {
    for member in members {
        let report = &mut seen.members[*member].report;
        report.pending_restart = Some(true);
        report.pending.insert(name.to_owned(), [old.to_owned(), new.to_owned()]);
    }
}

fn restarted(seen: &mut Seen, member: usize, turns: &[Turn], at: i64) {
    seen.members[member].restarted = Some(Restarted {
        change: CHANGE.to_owned(),
        at: jiff::Timestamp::from_second(at).unwrap(),
        turns: turns.iter().map(|turn| turn.word().to_owned()).collect(),
    });
}

fn turn(seen: &Seen) -> Option<(String, Turn)> {
    match plan(seen).step {
        Step::Restart { pod, turn, .. } => Some((pod, turn)),
        _ => None,
    }
}

fn waits(seen: &Seen) -> &'static str {
    match plan(seen).step {
        Step::Wait { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_raised_setting_goes_to_the_standbys_first_and_the_leader_moves() {
    let mut seen = changed();
    pending(&mut seen, &[0, 1, 2], "max_connections", ["100", "130"]);
    assert_eq!(turn(&seen), Some(("orders-2".to_owned(), Turn::Standby)));
    seen.members[2].report.pending_restart = None;
    assert_eq!(turn(&seen), Some(("orders-1".to_owned(), Turn::Standby)));
    seen.members[1].report.pending_restart = None;
    let Step::Switchover { from, to, .. } = plan(&seen).step else { panic!("{:?}", plan(&seen).step) };
    assert_eq!((from.as_str(), to.as_str()), ("orders-0", "orders-1"));
    seen.members.truncate(1);
    seen.cluster.spec.instances = 1;
    let set = seen.objects.get_mut(&(Kind::StatefulSet, "orders".to_owned())).unwrap();
    set["spec"]["replicas"] = json!(1);
    assert_eq!(turn(&seen), Some(("orders-0".to_owned(), Turn::Primary)), "a single member has nobody to hand over to");
}

#[test]
fn a_lowered_setting_goes_to_the_leader_first_in_place() {
    let mut seen = changed();
    pending(&mut seen, &[0, 1, 2], "max_connections", ["100", "80"]);
    assert_eq!(turn(&seen), Some(("orders-0".to_owned(), Turn::Primary)));
    // What the standbys wait for besides can be done before.
    pending(&mut seen, &[2], "shared_buffers", ["16MB", "32MB"]);
    assert_eq!(turn(&seen), Some(("orders-2".to_owned(), Turn::Standby)));
    restarted(&mut seen, 2, &[Turn::Standby], 60);
    seen.members[2].report.pending.remove("shared_buffers");
    assert_eq!(turn(&seen), Some(("orders-0".to_owned(), Turn::Primary)));
    seen.members[0].report.pending_restart = None;
    seen.members[0].report.pending.clear();
    restarted(&mut seen, 0, &[Turn::Primary], 119);
    assert_eq!(waits(&seen), "Restart", "the leader may not say yet that it is away");
    restarted(&mut seen, 0, &[Turn::Primary], 100);
    assert_eq!(turn(&seen), Some(("orders-2".to_owned(), Turn::AfterPrimary)), "its second turn");
    let Some(Write::Restart(order)) = plan(&seen).writes.pop() else { panic!("{:?}", plan(&seen).writes) };
    assert_eq!((order.role.as_str(), order.note.turns.join(" ").as_str()), ("replica", "standby after-primary"));
    assert!(!order.replaceable, "a new pod would not help");
}

#[test]
fn nobody_is_restarted_twice_for_one_turn_of_a_change() {
    let mut seen = changed();
    pending(&mut seen, &[1], "max_connections", ["100", "130"]);
    restarted(&mut seen, 1, &[Turn::Standby], 60);
    assert_eq!(plan(&seen).step, Step::Stable);
    annotate(&mut seen, "orders-config", config::CHANGED_ANNOTATION, "1970-01-01T00:01:30Z");
    assert_eq!(turn(&seen), Some(("orders-1".to_owned(), Turn::Standby)), "another change");
}

#[test]
fn what_the_spec_did_not_change_is_left_to_whoever_did() {
    let mut seen = changed();
    pending(&mut seen, &[1], "wal_buffers", ["-1", "1MB"]);
    assert_eq!(plan(&seen).step, Step::Stable);
    // Nobody noted which settings it changed: an older operator.
    annotate(&mut seen, "orders-config", config::CHANGED_NAMES_ANNOTATION, "");
    assert_eq!(turn(&seen), Some(("orders-1".to_owned(), Turn::Standby)));
    annotate(&mut seen, "orders-config", config::CHANGED_ANNOTATION, "");
    assert_eq!(plan(&seen).step, Step::Stable, "the spec never changed any");
}

#[test]
fn a_restart_waits_like_everything_that_stops_postgresql() {
    let why = |change: &dyn Fn(&mut Seen)| {
        let mut seen = changed();
        pending(&mut seen, &[0, 1, 2], "max_connections", ["100", "80"]);
        change(&mut seen);
        waits(&seen)
    };
    assert_eq!(why(&|s| s.cluster.spec.paused = Some(true)), "Paused");
    assert_eq!(why(&|s| s.cluster.spec.fenced = vec!["orders-2".to_owned()]), "Fenced");
    assert_eq!(why(&|s| s.members[2].ready = false), "MembersNotReady");
    assert_eq!(why(&|s| s.now = jiff::Timestamp::from_second(63).unwrap()), "Restart", "not everybody has read it");
    let sunday = json!([{"days": ["Sun"], "start": "02:00", "duration": "1h"}]);
    let windows: Vec<_> = serde_json::from_value(sunday).unwrap();
    assert_eq!(why(&|s| s.cluster.spec.maintenance_windows.clone_from(&windows)), "MaintenanceWindow");
    assert_eq!(why(&|s| annotate(s, "orders-failover", "member", "orders-1")), "Switchover");
    // One that was restarted is waited for until it streams.
    let away = |s: &mut Seen| {
        restarted(s, 1, &[Turn::Standby], 100);
        s.members[1].report.replication_state = None;
    };
    assert_eq!(why(&away), "Restart");
}

#[test]
fn which_settings_the_spec_changed_is_noted_with_the_change() {
    let mut seen = running();
    let noted = |seen: &Seen| {
        plan(seen).writes.iter().find_map(|write| match write {
            Write::Patch { name, body, .. } if name == "orders-config" => {
                let names = &body["metadata"]["annotations"][config::CHANGED_NAMES_ANNOTATION];
                Some(serde_json::from_str::<Vec<String>>(names.as_str()?).unwrap().join(" "))
            }
            _ => None,
        })
    };
    let parameters = |seen: &mut Seen, value: Value| {
        seen.cluster.spec.postgresql.parameters = serde_json::from_value(value).unwrap();
    };
    parameters(&mut seen, json!({"max_connections": 80}));
    assert_eq!(noted(&seen).as_deref(), Some("max_connections"));
    annotate(&mut seen, "orders-config", config::CHANGED_ANNOTATION, CHANGE);
    annotate(&mut seen, "orders-config", config::CHANGED_NAMES_ANNOTATION, r#"["max_connections"]"#);
    parameters(&mut seen, json!({"work_mem": "8MB"}));
    assert_eq!(noted(&seen).as_deref(), Some("max_connections work_mem"));
    // An older operator changed some, and nobody knows which.
    annotate(&mut seen, "orders-config", config::CHANGED_NAMES_ANNOTATION, "");
    assert_eq!(noted(&seen), None);
}
