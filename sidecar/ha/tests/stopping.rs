//! Crashes, starts that take long, stops that take long, and a primary that gets time to renew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Request};
use serde_json::{Value, json};
use world::{World, settled};

fn cluster(more: Value) -> (World, String, String) {
    world::cluster(&world::config(more))
}

#[test]
fn a_crash_fails_over_at_once_where_that_is_asked_for() {
    for mode in [json!(false), json!(true), json!("quorum")] {
        let (mut world, leader, _) = cluster(json!({"primary_start_timeout": 0, "synchronous_mode": mode}));
        world.crash(&leader);
        let ms = world.run_until("another leads", 5_000, |w| w.writable().first().is_some_and(|p| *p != leader));
        assert!(ms < 1_000, "{ms} ms");
        world.run_until("it follows", 10_000, settled);
    }
}

#[test]
fn a_crash_is_recovered_in_place_where_nobody_else_can_lead() {
    let (mut world, leader, _) = cluster(json!({"primary_start_timeout": 0}));
    for name in ["x-0", "x-1", "x-2"] {
        if name != leader {
            world.crash(name);
            world.node(name).agent_up = false;
            world.store(matriarch_ha::event::Kind::Pod, name, |pod| pod.deleting = true);
        }
    }
    world.run(1_000);
    world.crash(&leader);
    world.run_until("back in place", 5_000, |w| w.writable() == [leader.clone()]);
    assert_eq!(world.node(&leader).db.data.as_ref().unwrap().timeline, 1);
}

#[test]
fn the_lock_is_released_while_the_archiver_still_works() {
    for order in [true, false] {
        let (mut world, leader, other) = cluster(json!({}));
        world.node(&leader).db.archiver_ms = 20_000;
        if order {
            let request = Request::Switchover {
                leader: Some(leader.clone()),
                candidate: Some(other.clone()),
                scheduled_at: None,
            };
            world.request(&leader, 7, request);
        } else {
            world.push(&leader, 0, Event::Terminating);
        }
        let ms = world.run_until("another leads", 5_000, |w| w.writable().first().is_some_and(|p| *p != leader));
        assert!((500..2_000).contains(&ms), "{ms} ms");
        assert!(world.node(&leader).db.running, "it still archives");
        world.run(25_000);
        assert!(order && settled(&mut world) || world.node(&leader).finished);
    }
}

#[test]
fn the_lock_is_not_released_early_to_one_who_lacks_the_end() {
    let (mut world, leader, other) = cluster(json!({}));
    world.node(&leader).db.archiver_ms = 6_000;
    let request =
        Request::Switchover { leader: Some(leader.clone()), candidate: Some(other.clone()), scheduled_at: None };
    world.request(&leader, 7, request);
    world.run(20);
    world.node(&other).db.config.upstream = None;
    world.run(5_000);
    assert_eq!(world.leader(), Some(leader), "the candidate does not have all of it");
}

#[test]
fn a_primary_whose_log_still_comes_gets_time_to_renew() {
    for (seconds, expected) in [(0, false), (30, true)] {
        let (mut world, leader, _) = cluster(json!({"primary_race_backoff": seconds, "failsafe_mode": false}));
        world.lawless = true;
        // The agent hangs and, for once, nothing fences its primary.
        world.node(&leader).agent_up = false;
        world.node(&leader).db.permit = None;
        world.run(25_000);
        let takes = world.leader() == Some(leader.clone());
        assert_eq!(takes, expected, "{seconds}");
        if expected {
            world.run_until("not for ever", 20_000, |w| w.leader() != Some(leader.clone()));
        }
    }
}

#[test]
fn a_switchover_is_honoured_while_the_primary_starts() {
    let (mut world, leader, other) = cluster(json!({}));
    world.node(&leader).db.slow_start = true;
    world.crash(&leader);
    world.run(2_000);
    assert!(world.writable().is_empty());
    let request =
        Request::Switchover { leader: Some(leader.clone()), candidate: Some(other.clone()), scheduled_at: None };
    world.request(&other, 7, request);
    world.run_until("candidate leads", 8_000, |w| w.writable() == [other.clone()]);
}

#[test]
fn a_stopped_former_primary_starts_when_the_leader_does_not_come_up_and_leads_in_its_place() {
    for mode in [json!(true), json!(false)] {
        let (mut world, leader, _) = cluster(json!({"primary_start_timeout": 20, "synchronous_mode": mode}));
        let voter = world.annotation("x-sync", "sync_standby").filter(|_| mode == json!(true));
        let other = voter.unwrap_or_else(|| world.nodes.keys().find(|name| **name != leader).unwrap().clone());
        let third = world.nodes.keys().find(|name| **name != leader && **name != other).unwrap().clone();
        world.crash(&third);
        world.node(&third).agent_up = false;
        world.store(matriarch_ha::event::Kind::Pod, &third, |pod| pod.deleting = true);
        world.node(&leader).db.slow_start = true;
        world.crash(&leader);
        world.crash(&other);
        world.node(&other).db.data.as_mut().unwrap().standby_signal = false;
        world.run(15_000);
        assert_eq!((world.leader(), world.nodes[&other].db.running), (Some(leader.clone()), false), "{mode}");
        if mode == json!(true) {
            world.run_until("another leads", 30_000, |w| w.writable() == [other.clone()]);
        } else {
            // What it lacks nobody knows.
            world.run(30_000);
            assert_eq!((world.leader(), world.nodes[&other].db.running), (Some(leader.clone()), false));
        }
    }
}
