//! Fenced members: PostgreSQL is stopped and stays so, a leader hands over first, and lifting the fence brings it back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Request, RestartOrder};
use serde_json::json;
use world::{ASYNC, QUORUM, World, cluster, config, settled};

fn fence(world: &mut World, names: &[&str]) {
    let with = config(json!({"matriarch": {"fenced": names}, "synchronous_mode": "quorum"}));
    world.annotate("x-config", &[("config", Some(&with))]);
}

fn rule(world: &mut World, name: &str) -> String {
    world.node(name).verdicts.last().unwrap().1.clone()
}

#[test]
fn a_fenced_standby_stops_stays_so_and_comes_back() {
    let (mut world, leader, other) = cluster(QUORUM);
    fence(&mut world, &[&other, "nobody"]);
    world.run_until("stopped", 3_000, |w| !w.node(&other).db.running);
    world.run(10_000);
    assert_eq!(rule(&mut world, &other), "fenced.stopped");
    let view = world.node(&other).view.clone();
    assert_eq!((view.state.as_str(), view.reason.contains("fenced")), ("stopped", true), "{}", view.reason);
    let sync = world.annotation("x-sync", "sync_standby").unwrap_or_default();
    assert!(!sync.contains(&other), "it has left the synchronous set: {sync}");
    assert_eq!(world.writable(), [leader.clone()]);
    // A new agent, and orders: it stays stopped.
    world.restart_agent(&other);
    world.run(10_000);
    world.request(&other, 77, Request::Restart(RestartOrder::default()));
    world.run(3_000);
    assert_eq!(world.reply(77).unwrap().0, 503);
    assert!(!world.node(&other).db.running);
    // It does not lead either, when the leader goes, and does not keep the third from it.
    world.node(&leader).agent_up = false;
    world.crash(&leader);
    world.run_until("the third leads", 20_000, |w| w.writable().first().is_some_and(|p| *p != leader && *p != other));
    assert!(!world.node(&other).db.running);
    world.node(&leader).agent_up = true;
    world.annotate("x-config", &[("config", Some(QUORUM))]);
    world.run_until("all are back", 30_000, settled);
    assert!(world.node(&other).db.running);
}

#[test]
fn a_fenced_leader_hands_over_first() {
    let (mut world, leader, _) = cluster(QUORUM);
    fence(&mut world, &[&leader]);
    let took = world.run_until("another leader", 5_000, |w| w.writable().first().is_some_and(|p| *p != leader));
    assert!(took < 2_000, "{took} ms: as a switchover");
    world.run(10_000);
    assert!(!world.node(&leader).db.running);
    assert!(world.node(&leader).verdicts.iter().any(|(_, rule, _)| rule == "fenced.hand-over"));
    assert_eq!(rule(&mut world, &leader), "fenced.stopped");
    world.annotate("x-config", &[("config", Some(QUORUM))]);
    world.run_until("it is back", 30_000, settled);
    assert!(world.node(&leader).db.running && !world.node(&leader).db.primary, "as a standby");
}

#[test]
fn when_all_are_fenced_nobody_leads_and_whoever_has_all_leads_afterwards() {
    let (mut world, leader, _) = cluster(QUORUM);
    fence(&mut world, &["x-0", "x-1", "x-2"]);
    world.run(30_000);
    assert!(world.nodes.values().all(|node| !node.db.running), "all are stopped");
    assert_eq!(world.leader(), None, "the lock is released");
    world.annotate("x-config", &[("config", Some(QUORUM))]);
    world.run_until("a leader", 30_000, settled);
    assert!(!world.writable().is_empty(), "{leader} was the last");
}

#[test]
fn in_pause_the_fence_wins_and_nobody_takes_over_before_its_end() {
    let (mut world, leader, other) = cluster(ASYNC);
    let paused = |fenced: &[&str]| config(json!({"pause": true, "matriarch": {"fenced": fenced}}));
    world.annotate("x-config", &[("config", Some(&paused(&[])))]);
    world.run(5_000);
    world.annotate("x-config", &[("config", Some(&paused(&[&leader, &other])))]);
    world.run(20_000);
    assert!(!world.node(&leader).db.running && !world.node(&other).db.running);
    assert!(world.writable().is_empty());
    let without_pause = config(json!({"matriarch": {"fenced": [leader, other]}}));
    world.annotate("x-config", &[("config", Some(&without_pause))]);
    world.run_until("the third leads", 20_000, |w| !w.writable().is_empty());
    assert!(!world.node(&leader).db.running && !world.node(&other).db.running);
}

#[test]
fn a_fence_that_cannot_be_read_changes_nothing() {
    let (mut world, leader, _) = cluster(ASYNC);
    for wrong in [json!("x-0"), json!({"x-0": true}), json!([1])] {
        let with = config(json!({"matriarch": {"fenced": wrong}}));
        world.annotate("x-config", &[("config", Some(&with))]);
        world.run(5_000);
        assert_eq!(world.writable(), [leader.clone()]);
        assert!(world.node(&leader).view.config_problems.iter().any(|said| said.contains("matriarch.fenced")));
    }
}
