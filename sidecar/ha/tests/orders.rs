//! What a person orders of one member: restart, now and later, and reinitialize; and what is told of it all.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::decide::decide;
use matriarch_ha::effect::Reply;
use matriarch_ha::event::{Kind, Request, RestartOrder};
use matriarch_ha::snapshot::Snapshot;
use matriarch_ha::types::Wall;
use serde_json::{Value, json};
use world::{QUORUM, World, settled};

const PAUSED: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"synchronous_mode":"quorum","pause":true}"#;

fn cluster() -> (World, String, String) {
    world::cluster(QUORUM)
}

fn restart(order: RestartOrder) -> Request {
    Request::Restart(order)
}

fn status(world: &World, name: &str) -> Value {
    serde_json::from_str(&world.objects[&(Kind::Pod, name.into())].annotations["status"]).unwrap()
}

#[test]
fn a_restart_is_done_in_place_and_then_answered() {
    let (mut world, leader, other) = cluster();
    for (id, name) in [(7, &leader), (8, &other)] {
        let starts = world.node(name).starts;
        world.request(name, id, restart(RestartOrder::default()));
        world.run(10);
        assert_eq!(world.reply(id), None, "not before it is done");
        world.run_until("answered", 5_000, |w| w.reply(id).is_some());
        assert_eq!(world.reply(id), Some((200, "restarted successfully".into())));
        assert_eq!(world.node(name).starts, starts + 1);
        world.run_until("as before", 5_000, settled);
        assert_eq!(world.leader(), Some(leader.clone()), "nobody took over");
        assert_eq!(world.node(&leader).db.data.as_ref().unwrap().timeline, 1);
    }
}

#[test]
fn a_restart_whose_conditions_do_not_hold_is_refused() {
    let (mut world, leader, _) = cluster();
    for (id, order) in [
        (1, RestartOrder { role: Some("replica".into()), ..RestartOrder::default() }),
        (2, RestartOrder { restart_pending: true, ..RestartOrder::default() }),
        (3, RestartOrder { postgres_version: Some("9.6.0".into()), ..RestartOrder::default() }),
    ] {
        world.request(&leader, id, restart(order));
        world.run(50);
        assert_eq!(world.reply(id), Some((503, "restart conditions are not satisfied".into())), "{id}");
    }
    let order = RestartOrder { role: Some("primary".into()), ..RestartOrder::default() };
    world.request(&leader, 4, restart(order));
    world.run(20);
    world.request(&leader, 5, restart(RestartOrder::default()));
    world.run(50);
    assert_eq!(world.reply(5), Some((503, "restart already in progress".into())));
    world.run_until("done", 5_000, |w| w.reply(4).is_some());
}

#[test]
fn a_scheduled_restart_is_shown_done_or_taken_back() {
    let (mut world, leader, other) = cluster();
    let at = |w: &World, s: i64| RestartOrder {
        schedule: Some(Wall(w.wall().0 + s * 1_000_000)),
        ..RestartOrder::default()
    };
    world.request(&other, 1, Request::CancelRestart);
    let order = at(&world, 20);
    world.request(&other, 2, restart(order.clone()));
    world.request(&other, 3, restart(order));
    world.run(2_000);
    assert_eq!(world.reply(1), Some((404, "no restarts are scheduled".into())));
    assert_eq!(world.reply(2), Some((202, "Restart scheduled".into())));
    assert_eq!(world.reply(3), Some((409, "Another restart is already scheduled".into())));
    assert!(status(&world, &other)["scheduled_restart"]["schedule"].is_string());
    let starts = world.node(&other).starts;
    world.run(17_500);
    assert_eq!(world.node(&other).starts, starts, "not before its time");
    world.run(2_500);
    assert_eq!(world.node(&other).starts, starts + 1);
    world.run_until("as before", 5_000, settled);
    world.run(1_000);
    assert_eq!(status(&world, &other).get("scheduled_restart"), None);
    let order = at(&world, 20);
    world.request(&leader, 4, restart(order));
    world.run(1_000);
    world.request(&leader, 5, Request::CancelRestart);
    world.run(30_000);
    assert_eq!(world.reply(5), Some((200, "scheduled restart deleted".into())));
    assert_eq!(world.writable(), [leader]);
}

#[test]
fn a_restart_in_pause_is_done_and_starts_what_is_stopped() {
    let (mut world, leader, other) = cluster();
    world.annotate("x-config", &[("config", Some(PAUSED))]);
    world.run(3_000);
    for (id, name) in [(7, &leader), (8, &other)] {
        world.request(name, id, restart(RestartOrder::default()));
        world.run_until("answered", 5_000, |w| w.reply(id).is_some());
        assert_eq!(world.reply(id), Some((200, "restarted successfully".into())));
    }
    world.run_until("as before", 5_000, settled);
    world.crash(&other);
    world.run(3_000);
    assert!(!world.node(&other).db.running);
    world.request(&other, 9, restart(RestartOrder::default()));
    world.run_until("answered", 5_000, |w| w.reply(9).is_some());
    assert!(world.node(&other).db.running);
}

#[test]
fn a_member_is_made_anew_and_the_leader_never() {
    let (mut world, leader, other) = cluster();
    let ask = |force| Request::Reinitialize { force, from_leader: true };
    world.request(&leader, 1, ask(true));
    world.run(50);
    assert_eq!(world.reply(1), Some((503, "I am the leader, can not reinitialize".into())));
    let copies = world.node(&other).copies;
    world.request(&other, 2, ask(false));
    world.run(100);
    assert_eq!(world.reply(2), Some((200, "reinitialize started".into())));
    world.request(&other, 3, ask(false));
    world.run(10);
    assert_eq!(world.reply(3).unwrap().0, 503, "already in progress");
    // A long action is cancelled first, where that is asked for.
    world.run_until("it copies", 3_000, |w| w.node(&other).task_kind() == "BaseBackup");
    world.request(&other, 4, ask(true));
    world.run(100);
    assert_eq!(world.reply(4), Some((200, "reinitialize started".into())));
    world.run_until("as before", 10_000, settled);
    assert_eq!(world.node(&other).copies, copies + 1);
    world.run(3_000);
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn without_a_leader_nothing_is_thrown_away() {
    let (mut world, leader, other) = cluster();
    world.crash(&leader);
    world.node(&leader).agent_up = false;
    world.run(200);
    let copies = world.node(&other).copies;
    world.request(&other, 1, Request::Reinitialize { force: true, from_leader: false });
    world.run(100);
    assert_eq!(world.reply(1).unwrap().0, 200, "somebody still has the lock");
    world.run_until("elected", 20_000, |w| w.writable().len() == 1);
    assert_eq!(world.node(&other).copies, copies, "what it had was needed");
}

#[test]
fn a_promotion_is_written_into_the_history() {
    let (mut world, leader, other) = cluster();
    assert_eq!(world.annotation("x-config", "history"), None);
    for (old, new) in [(&leader, &other), (&other, &leader)] {
        let request =
            Request::Switchover { leader: Some(old.clone()), candidate: Some(new.clone()), scheduled_at: None };
        world.request(old, 1, request);
        world.run_until("it leads", 5_000, |w| w.writable() == [new.clone()]);
        world.run_until("the other follows", 10_000, settled);
        world.run(5_000);
    }
    let history: Value = serde_json::from_str(&world.annotation("x-config", "history").unwrap()).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert_eq!((&history[0][0], &history[0][4]), (&json!(1), &json!(other)));
    assert_eq!(
        (&history[1][0], &history[1][2], &history[1][4]),
        (&json!(2), &json!("no recovery target specified"), &json!(leader))
    );
    assert!(history[1][3].as_str().unwrap().ends_with("+00:00"));
}

#[test]
fn a_recorded_snapshot_gives_the_same_verdict() {
    let (mut world, leader, other) = cluster();
    world.node(&leader).agent_up = false;
    world.run_until("a new leader", 14_000, |w| w.writable().first().is_some_and(|p| *p != leader));
    for name in [&leader, &other] {
        let snapshot = world.node(name).decided.clone().unwrap();
        let (_, rule, reason) = world.node(name).verdicts.last().unwrap().clone();
        let replayed: Snapshot = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
        assert_eq!(replayed, *snapshot);
        let verdict = decide(&replayed);
        assert_eq!((verdict.rule.id(), verdict.reason.as_str()), (rule.as_str(), reason.as_str()));
    }
    world.request(&other, 9, Request::Snapshot);
    world.run(10);
    assert!(matches!(&world.replies[&9], Reply::Snapshot(s) if s.name == other));
}

#[test]
fn a_restart_that_takes_longer_than_its_timeout_says_so() {
    let (mut world, leader, other) = cluster();
    world.node(&leader).db.slow_start = true;
    world.request(&leader, 1, restart(RestartOrder { timeout_ms: Some(5_000), ..RestartOrder::default() }));
    let ms = world.run_until("answered", 20_000, |w| w.reply(1).is_some());
    assert_eq!(world.reply(1), Some((503, "postgres is still starting".into())));
    assert!((5_000..7_000).contains(&ms), "{ms} ms");
    // And another member takes over.
    world.run_until("another leads", 20_000, |w| w.writable().iter().any(|name| *name != leader));
    assert!(world.writable().contains(&other) || world.writable().len() == 1);
}

#[test]
fn a_promotion_that_leaves_out_a_timeline_is_written_once() {
    let (mut world, leader, other) = cluster();
    world.unused.extend([1]);
    world.request(
        &leader,
        9,
        Request::Switchover { leader: Some(leader.clone()), candidate: Some(other), scheduled_at: None },
    );
    world.run_until("another leads", 20_000, |w| w.leader() != Some(leader.clone()) && settled(w));
    world.run(6_000);
    let version = |w: &World| w.objects[&(Kind::Lock, "x-config".into())].resource_version.clone();
    let before = version(&world);
    world.run(20_000);
    assert_eq!(version(&world), before, "nothing changes any more");
}
