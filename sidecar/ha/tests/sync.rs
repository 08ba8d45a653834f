//! Synchronous mode in the life of a cluster. The world checks at every moment that what is stored and what is in force are safe.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use serde_json::{Value, json};
use world::{World, config, settled};

fn on() -> Value {
    json!({"synchronous_mode": true})
}

fn cluster(more: Value) -> World {
    let mut world = World::new(&["x-0"], &config(more));
    world.run_until("bootstrap", 10_000, |w| w.writable() == ["x-0"]);
    world.add("x-1");
    world.add("x-2");
    world.run_until("complete", 10_000, settled);
    world.run(8_000);
    world
}

fn listed(world: &World) -> String {
    world.annotation("x-sync", "sync_standby").unwrap_or_default()
}

fn setting(world: &mut World, name: &str) -> String {
    world.node(name).db.config.sync_names.clone()
}

#[test]
fn one_standby_is_synchronous_and_only_it_takes_over() {
    let mut world = cluster(on());
    let sync = listed(&world);
    assert_eq!(setting(&mut world, "x-0"), format!("\"{sync}\""));
    assert_eq!(world.annotation("x-sync", "quorum").as_deref(), Some("0"));
    // The other one is ahead by what nobody acknowledged.
    let other = ["x-1", "x-2"].into_iter().find(|n| *n != sync).unwrap();
    world.node("x-0").agent_up = false;
    world.run(8_000);
    world.node(other).db.data.as_mut().unwrap().lsn += 5_000;
    world.run_until("the synchronous one leads", 14_000, |w| w.writable() == [sync.clone()]);
    world.node(other).agent_up = false;
    world.run(2_000);
}

#[test]
fn without_its_synchronous_standby_nobody_takes_over() {
    let mut world = cluster(on());
    let sync = listed(&world);
    world.node(&sync).agent_up = false;
    world.node("x-0").agent_up = false;
    world.run(40_000);
    assert!(world.writable().is_empty());
}

#[test]
fn a_lost_standby_is_replaced_in_the_state_before_the_setting() {
    let mut world = cluster(on());
    let gone = listed(&world);
    let other = ["x-1", "x-2"].into_iter().find(|n| *n != gone).unwrap();
    world.sync_history.clear();
    world.crash(&gone);
    world.node(&gone).agent_up = false;
    world.run_until("replaced", 15_000, |w| listed(w) == other);
    let steps: Vec<&str> = world.sync_history.iter().map(|(_, s)| s.as_str()).collect();
    let (old, new) = (format!("\"{gone}\""), format!("\"{other}\""));
    assert_eq!(steps, [format!(" {old}"), format!(" {new}"), format!("{other} {new}")]);
}

#[test]
fn two_are_synchronous_where_two_are_asked_for() {
    let mut world = cluster(json!({"synchronous_mode": true, "synchronous_node_count": 2}));
    assert_eq!(listed(&world), "x-1,x-2");
    assert_eq!(setting(&mut world, "x-0"), r#"2 ("x-1","x-2")"#);
}

#[test]
fn strict_mode_never_goes_without_a_standby() {
    for (mode, star) in [(json!(true), "*"), (json!("quorum"), "ANY 1 (*)")] {
        let mut world = cluster(json!({"synchronous_mode": mode, "synchronous_mode_strict": true}));
        for name in ["x-1", "x-2"] {
            world.crash(name);
            world.node(name).agent_up = false;
        }
        world.run(15_000);
        assert_eq!(setting(&mut world, "x-0"), star);
        for name in ["x-1", "x-2"] {
            world.node(name).agent_up = true;
        }
        world.run_until("back", 20_000, |w| !listed(w).is_empty());
        world.run(5_000);
        // Through a promotion.
        world.sync_history.clear();
        world.node("x-0").agent_up = false;
        world.run_until("a new leader", 14_000, |w| w.writable().first().is_some_and(|p| p != "x-0"));
        world.run(5_000);
        assert!(world.sync_history.iter().all(|(_, s)| s.contains('*') || s.contains('"')), "{:?}", world.sync_history);
    }
}

#[test]
fn without_strict_mode_a_lone_primary_goes_on() {
    let mut world = cluster(on());
    for name in ["x-1", "x-2"] {
        world.crash(name);
        world.node(name).agent_up = false;
    }
    world.run(15_000);
    assert_eq!((setting(&mut world, "x-0").as_str(), listed(&world).as_str()), ("", ""));
    // And then only it may lead.
    world.crash("x-0");
    world.node("x-0").agent_up = false;
    for name in ["x-1", "x-2"] {
        world.node(name).agent_up = true;
    }
    world.run(30_000);
    assert!(world.writable().is_empty());
    world.node("x-0").agent_up = true;
    world.run_until("it is back", 30_000, |w| w.writable() == ["x-0"]);
}

#[test]
fn the_mode_may_change_at_any_time() {
    let modes = [json!(false), json!(true), json!("quorum"), json!(true), json!(false), json!("quorum"), json!(false)];
    let mut world = cluster(json!({"synchronous_mode": false}));
    for mode in modes {
        for ms in [50, 4_000] {
            world.annotate("x-config", &[("config", Some(&config(json!({"synchronous_mode": mode}))))]);
            world.run(ms);
        }
        world.run(5_000);
        let (names, state) = (setting(&mut world, "x-0"), listed(&world));
        match mode {
            Value::Bool(false) => assert_eq!((names.as_str(), world.annotation("x-sync", "leader")), ("", None)),
            Value::Bool(true) => assert_eq!(names, format!("\"{state}\"")),
            _ => assert_eq!((names.as_str(), state.as_str()), (r#"ANY 1 ("x-1","x-2")"#, "x-1,x-2")),
        }
    }
}

#[test]
fn what_is_stored_counts_though_the_mode_is_off() {
    let mut world = cluster(json!({"synchronous_mode": "quorum"}));
    // Switched off while the leader is dead: nobody took the state away, so votes are still needed.
    world.node("x-0").agent_up = false;
    world.node("x-1").agent_up = false;
    world.annotate("x-config", &[("config", Some(&config(json!({"synchronous_mode": false}))))]);
    world.run(30_000);
    assert!(world.writable().is_empty());
    world.node("x-1").agent_up = true;
    world.run_until("two elect", 20_000, |w| w.writable().len() == 1);
}

#[test]
fn a_standby_that_lags_too_far_is_not_synchronous() {
    let mut world = cluster(json!({"synchronous_mode": true, "maximum_lag_on_syncnode": 100_000}));
    let slow = listed(&world);
    world.node(&slow).db.stuck = true;
    world.run_until("replaced", 30_000, |w| !listed(w).is_empty() && listed(w) != slow);
}

#[test]
fn the_higher_sync_priority_is_synchronous() {
    let mut world = World::new(&["x-0"], &config(on()));
    world.run_until("bootstrap", 10_000, |w| w.writable() == ["x-0"]);
    world.add_tagged("x-1", &json!({"sync_priority": 1}));
    world.add_tagged("x-2", &json!({"sync_priority": 5}));
    world.run(15_000);
    assert_eq!(listed(&world), "x-2");
}

#[test]
fn a_switchover_goes_to_a_synchronous_standby_only() {
    use matriarch_ha::event::Request;
    let mut world = cluster(on());
    let sync = listed(&world);
    let other = ["x-1", "x-2"].into_iter().find(|n| *n != sync).unwrap();
    let ask =
        |to: &str| Request::Switchover { leader: Some("x-0".into()), candidate: Some(to.into()), scheduled_at: None };
    world.request("x-0", 6, ask(other));
    world.run(100);
    assert_eq!(world.reply(6), Some((412, "candidate name does not match with sync_standby".into())));
    world.request("x-0", 7, ask(&sync));
    let ms = world.run_until("it leads", 3_000, |w| w.writable() == [sync.clone()]);
    assert!(ms < 400, "{ms} ms");
    world.run_until("the old one follows", 10_000, settled);
}

#[test]
fn votes_wait_for_every_walsender_and_the_checkpointer() {
    for senders in [true, false] {
        let mut world = World::new(&["x-0"], &config(json!({"synchronous_mode": "quorum"})));
        world.run_until("bootstrap", 10_000, |w| w.writable() == ["x-0"]);
        world.run(3_000);
        if senders {
            world.old_setting = Some(String::new());
        } else {
            world.busy_checkpointer = true;
        }
        world.add("x-1");
        world.run_until("the setting is written", 20_000, |w| setting(w, "x-0").contains("x-1"));
        world.run(5_000);
        // Commits may still be acknowledged without x-1: alone it leads nobody.
        assert_eq!(world.annotation("x-sync", "quorum").as_deref(), Some("1"), "{senders}");
        world.old_setting = None;
        world.busy_checkpointer = false;
        world.run_until("it may lead", 3_000, |w| w.annotation("x-sync", "quorum").as_deref() == Some("0"));
    }
}

#[test]
fn a_primary_starts_with_the_setting_of_its_last_life() {
    let mut world = cluster(json!({"synchronous_mode": "quorum"}));
    let leader = world.leader().unwrap();
    let gone = world.nodes.keys().find(|n| **n != leader).unwrap().clone();
    world.crash(&leader);
    world.run_until("in place", 10_000, settled);
    world.run(6_000);
    let before = setting(&mut world, &leader);
    // One standby goes, and the setting with it.
    world.node(&gone).agent_up = false;
    world.node(&gone).db.running = false;
    world.run_until("without it", 10_000, |w| !setting(w, &leader).contains(&gone) && !listed(w).contains(&gone));
    assert_ne!(setting(&mut world, &leader), before);
    // The container of PostgreSQL dies with everything in it: nobody tells how it ended.
    let db = &mut world.node(&leader).db;
    (db.running, db.primary, db.permit, db.seq) = (false, false, None, 0);
    world.push(&leader, 1, matriarch_ha::event::Event::Detached);
    world.push(&leader, 300, world::attached());
    let starts = world.node(&leader).starts;
    world.run_until("it starts again", 5_000, |w| w.node(&leader).starts > starts);
    assert!(!setting(&mut world, &leader).contains(&gone), "x-sync does not count on it any more");
    world.run(2_000);
}
