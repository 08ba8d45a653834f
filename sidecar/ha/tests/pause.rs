//! Pause: nothing happens by itself, what a person orders does, and nobody takes a lock whose holder may be writable.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Kind, Request};
use world::{ASYNC, World, cluster, settled};

const PAUSED: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"failsafe_mode":true,"pause":true}"#;

fn paused() -> (World, String, String) {
    let (mut world, leader, other) = cluster(ASYNC);
    pause(&mut world, true);
    world.run(3_000);
    (world, leader, other)
}

fn pause(world: &mut World, on: bool) {
    world.annotate("x-config", &[("config", Some(if on { PAUSED } else { ASYNC }))]);
}

fn last_rule(world: &mut World, name: &str) -> String {
    world.node(name).verdicts.last().unwrap().1.clone()
}

#[test]
fn a_paused_primary_that_loses_the_store_goes_on_and_nobody_else_leads() {
    let (mut world, leader, other) = paused();
    assert!(world.annotation("x-leader", "matriarch.dev/fence").is_some(), "the lock says that the fence is lifted");
    world.cut(&leader);
    world.run(60_000);
    assert_eq!(world.writable(), [leader.clone()]);
    // Resumed, but the leader does not hear of it (simulation schedule 21).
    world.unheard.insert(leader.clone());
    pause(&mut world, false);
    world.run(120_000);
    assert_eq!(world.writable(), [leader.clone()], "it goes on");
    assert_eq!(world.leader(), Some(leader.clone()), "and nobody took its lock");
    assert_eq!(last_rule(&mut world, &other), "unlocked.paused-holder");
    // It comes back: its fence is armed again, and everything is as before.
    world.cut_off.clear();
    world.unheard.clear();
    world.run(10_000);
    assert_eq!(world.annotation("x-leader", "matriarch.dev/fence"), None);
    assert_eq!(world.writable(), [leader.clone()]);
    world.node(&leader).agent_up = false;
    world.run_until("an ordinary failover", 14_000, |w| w.writable().first().is_some_and(|p| *p != leader));
}

#[test]
fn an_agent_that_starts_in_a_pause_does_not_write_the_lifted_fence_into_the_ttl() {
    for while_paused in [true, false] {
        let (mut world, leader, _) = paused();
        world.node(&leader).agent_up = false;
        world.run(1_000);
        if while_paused {
            world.node(&leader).agent_up = true;
            world.restart_agent(&leader);
            world.run(5_000);
        }
        pause(&mut world, false);
        if !while_paused {
            world.run(1_000);
            world.node(&leader).agent_up = true;
            world.restart_agent(&leader);
        }
        world.run(5_000);
        assert_eq!(world.annotation("x-leader", "ttl").as_deref(), Some("10"), "{while_paused}");
        assert_eq!(world.annotation("x-leader", "matriarch.dev/fence"), None, "{while_paused}");
        assert_eq!(world.writable(), [leader.clone()], "{while_paused}");
        world.node(&leader).agent_up = false;
        world.run_until("an ordinary failover", 14_000, |w| w.writable().first().is_some_and(|p| *p != leader));
    }
}

#[test]
fn a_paused_leader_that_is_seen_demoted_is_replaced_after_the_resume() {
    let (mut world, leader, _) = paused();
    world.cut(&leader);
    world.crash(&leader);
    world.run(20_000);
    assert!(world.writable().is_empty(), "nothing is started and nobody takes over in pause");
    pause(&mut world, false);
    world.run_until("a new leader", 10_000, |w| w.writable().first().is_some_and(|p| *p != leader));
}

#[test]
fn a_failover_by_hand_overrules_a_paused_leader_that_nobody_reaches() {
    let (mut world, leader, other) = paused();
    world.cut(&leader);
    world.unheard.insert(leader.clone());
    world.run(20_000);
    pause(&mut world, false);
    world.run(20_000);
    assert_eq!(world.writable(), [leader.clone()]);
    // The person says: the leader is gone. Here it is.
    world.crash(&leader);
    world.node(&leader).agent_up = false;
    world.annotate("x-failover", &[("member", Some(&other))]);
    world.run_until("the chosen one leads", 5_000, |w| w.writable() == [other.clone()]);
}

#[test]
fn a_supervisor_that_does_not_acknowledge_keeps_the_lock_marked() {
    let (mut world, leader, _) = paused();
    world.deaf.insert(leader.clone());
    pause(&mut world, false);
    world.run(10_000);
    assert!(world.annotation("x-leader", "matriarch.dev/fence").is_some());
    world.deaf.clear();
    world.run(5_000);
    assert_eq!(world.annotation("x-leader", "matriarch.dev/fence"), None);
}

/// Who hears that the cluster is paused may end the agent: PostgreSQL goes on.
#[test]
fn pause_is_told_when_the_fence_is_lifted() {
    let (mut world, leader, _) = cluster(ASYNC);
    world.deaf.insert(leader.clone());
    pause(&mut world, true);
    world.run(2_000);
    let told = |world: &World, name: &str| {
        let pod = &world.objects[&(Kind::Pod, name.to_owned())];
        pod.annotations["status"].contains("\"pause\":true")
    };
    for name in ["x-0", "x-1", "x-2"] {
        assert_eq!(told(&world, name), name != leader, "{name}");
    }
    world.deaf.clear();
    world.run(4_000);
    assert!(told(&world, &leader));
    // In the moment in which it is told the fence is far away.
    let permit = world.node(&leader).db.permit.unwrap();
    assert!(permit.ms_since(world.now) > 3_600_000);
    pause(&mut world, false);
    world.run(3_000);
    assert!(!told(&world, &leader));
}

#[test]
fn a_paused_primary_that_stops_stays_stopped_and_releases_the_lock() {
    let (mut world, leader, other) = paused();
    world.crash(&leader);
    world.run(30_000);
    assert!(world.writable().is_empty());
    assert_eq!(world.leader(), None);
    assert_eq!(last_rule(&mut world, &leader), "paused.hold");
    assert_eq!(last_rule(&mut world, &other), "unlocked.paused");
    pause(&mut world, false);
    world.run_until("resumed", 15_000, settled);
}

#[test]
fn a_restart_behind_our_back_is_taken_as_it_is() {
    let (mut world, leader, _) = paused();
    world.crash(&leader);
    world.run(3_000);
    // A person starts it again, beside the supervisor, whose latch knows nothing of it.
    let db = &mut world.node(&leader).db;
    (db.running, db.primary, db.permit) = (true, true, None);
    world.push(&leader, 0, Event::Started { pid: 2 });
    world.run(20_000);
    assert_eq!(world.writable(), [leader.clone()]);
    assert_eq!(world.leader(), Some(leader.clone()), "it has the lock again");
    pause(&mut world, false);
    world.run_until("resumed", 15_000, settled);
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn a_standby_promoted_by_hand_takes_the_lock() {
    let (mut world, leader, other) = paused();
    world.crash(&leader);
    world.run(3_000);
    let db = &mut world.node(&other).db;
    db.primary = true;
    db.data.as_mut().unwrap().timeline += 1;
    world.run(5_000);
    assert_eq!(world.leader(), Some(other.clone()));
    pause(&mut world, false);
    world.run_until("the old one follows", 20_000, settled);
    assert_eq!(world.leader(), Some(other));
}

#[test]
fn a_primary_without_the_lock_goes_on_until_the_resume() {
    let (mut world, leader, other) = paused();
    world.lawless = true;
    let db = &mut world.node(&other).db;
    db.primary = true;
    db.data.as_mut().unwrap().timeline += 1;
    world.run(10_000);
    assert_eq!(world.writable().len(), 2, "a person did that");
    assert_eq!(last_rule(&mut world, &other), "follower.paused");
    pause(&mut world, false);
    world.run_until("demoted", 5_000, |w| w.writable() == [leader.clone()]);
}

#[test]
fn a_switchover_in_pause_is_done_and_the_old_primary_follows() {
    let (mut world, leader, other) = paused();
    let ask =
        |candidate: Option<String>| Request::Switchover { leader: Some(leader.clone()), candidate, scheduled_at: None };
    world.request(&leader, 6, ask(None));
    world.run(100);
    assert_eq!(
        world.reply(6),
        Some((400, "Switchover is possible only to a specific candidate in a paused state".into()))
    );
    world.request(&leader, 7, ask(Some(other.clone())));
    let ms = world.run_until("candidate leads", 5_000, |w| w.writable() == [other.clone()]);
    assert!(ms < 400, "{ms} ms");
    world.run_until("the old one follows", 10_000, settled);
    world.run(3_000);
    assert!(world.reply(7).unwrap().1.contains("Successfully"));
    let before = world.node(&leader).verdicts.len();
    world.crash(&leader);
    world.run(10_000);
    assert!(!world.node(&leader).db.running, "the command is over: a stopped standby stays stopped");
    assert!(world.node(&leader).verdicts.len() > before);
}

#[test]
fn a_failover_by_hand_in_pause_needs_no_leader() {
    let (mut world, leader, other) = paused();
    world.crash(&leader);
    world.run(5_000);
    world.annotate("x-failover", &[("member", Some(&other))]);
    world.run_until("candidate leads", 5_000, |w| w.writable() == [other.clone()]);
}
