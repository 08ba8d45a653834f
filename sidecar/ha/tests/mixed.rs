//! Our members beside members that run Patroni, which knows neither fences, nor elections, nor reserved timelines.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Kind};
use world::{Database, World, settled};

const ASYNC: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"failsafe_mode":false}"#;
const PAUSED: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"failsafe_mode":false,"pause":true}"#;
const QUORUM: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"failsafe_mode":false,"synchronous_mode":"quorum"}"#;

/// A member that has described itself as Patroni does, and answers nobody.
fn add_patroni(world: &mut World, name: &str) {
    world.store(Kind::Pod, name, |pod| {
        pod.uid = format!("uid-{name}");
        let status = r#"{"state":"running","role":"replica","version":"4.1.5","timeline":1}"#;
        pod.annotations.insert("status".to_owned(), status.to_owned());
    });
}

fn running(config: &str) -> (World, String) {
    let mut world = World::new(&["x-0", "x-1"], config);
    world.run_until("bootstrap", 10_000, settled);
    world.run(6_000);
    let leader = world.leader().unwrap();
    (world, leader)
}

#[test]
fn a_fence_is_not_lifted_in_pause_where_somebody_does_not_heed_that() {
    let (mut world, leader) = running(ASYNC);
    add_patroni(&mut world, "x-9");
    world.annotate("x-config", &[("config", Some(PAUSED))]);
    world.run(5_000);
    assert_eq!(world.annotation("x-leader", "matriarch.dev/fence"), None);
    world.cut(&leader);
    world.run(15_000);
    assert!(world.writable().is_empty(), "it was stopped with its ttl: {:?}", world.primaries);
}

#[test]
fn a_lifted_fence_is_armed_again_when_a_member_comes_that_does_not_heed_it() {
    let (mut world, _) = running(ASYNC);
    world.annotate("x-config", &[("config", Some(PAUSED))]);
    world.run(5_000);
    assert!(world.annotation("x-leader", "matriarch.dev/fence").is_some());
    add_patroni(&mut world, "x-9");
    world.run(5_000);
    assert_eq!(world.annotation("x-leader", "matriarch.dev/fence"), None);
}

#[test]
fn a_promotion_leaves_room_for_timelines_that_nobody_has_heard_of() {
    let (mut world, leader) = running(ASYNC);
    add_patroni(&mut world, "x-8");
    add_patroni(&mut world, "x-9");
    world.crash(&leader);
    world.node(&leader).agent_up = false;
    world.run_until("another leads", 20_000, |w| w.writable().first().is_some_and(|p| *p != leader));
    assert_eq!(world.annotation("x-leader", "matriarch.dev/timeline").as_deref(), Some("4"));
}

#[test]
fn the_primary_that_patroni_had_the_lock_for_goes_on_under_our_agent() {
    let (mut world, leader) = running(ASYNC);
    // As Patroni writes it: the holder that our keys name is one of another tenure.
    let patroni = [("acquireTime", Some("P1")), ("renewTime", Some("P1")), ("leader", Some(leader.as_str()))];
    world.annotate("x-leader", &patroni);
    // Our agent is new here, and the server is not its.
    let server = std::mem::take(&mut world.node(&leader).db);
    world.add(&leader);
    world.node(&leader).db = Database { permit: None, seq: 0, ..server };
    world.push(&leader, 5, Event::Started { pid: 2 });
    world.run(20_000);
    assert_eq!(world.writable(), [leader.clone()]);
    assert_eq!(world.node(&leader).starts, 0, "it was not stopped meanwhile");
    let holder = world.annotation("x-leader", "matriarch.dev/holder").unwrap();
    assert!(holder.starts_with(&format!("uid-{leader}@")) && !holder.ends_with("@P1"), "{holder}");
}

#[test]
fn a_position_that_is_a_vote_for_patroni_is_told_after_the_stream_has_ended() {
    for (patroni, ended) in [(true, true), (false, false)] {
        let (mut world, leader, other) = world::cluster(QUORUM);
        if patroni {
            add_patroni(&mut world, "x-9");
        }
        // The primary lives on, and its supervisor does not see to the fence, as without one.
        world.lawless = true;
        world.node(&leader).agent_up = false;
        world.node(&leader).db.permit = None;
        // Nobody of ours asks.
        let third = world.nodes.keys().rfind(|name| ![&leader, &other].contains(name)).unwrap().clone();
        world.node(&third).agent_up = false;
        let expired = |w: &mut World| w.node(&other).verdicts.last().unwrap().1.starts_with("unlocked.");
        world.run_until("the lock has expired", 15_000, expired);
        assert_eq!(world.node(&other).view.withholds_position, patroni);
        world.run(1_000);
        assert_eq!(world.node(&other).db.config.upstream.is_none(), ended, "with Patroni: {patroni}");
        assert!(!world.node(&other).view.withholds_position);
    }
}

#[test]
fn a_stream_does_not_end_where_the_store_is_away() {
    let (mut world, leader) = running(QUORUM);
    let other = world.nodes.keys().find(|name| **name != leader).unwrap().clone();
    add_patroni(&mut world, "x-9");
    world.run(1_000);
    // It sees no renewal any more.
    world.cut(&other);
    world.run(20_000);
    assert!(world.node(&other).db.config.upstream.is_some());
    assert!(!world.node(&other).view.withholds_position);
}

#[test]
fn labels_have_the_values_that_services_select() {
    let (mut world, leader) = running(ASYNC);
    let other = world.nodes.keys().find(|name| **name != leader).unwrap().clone();
    let labels = |world: &World, name: &str| world.objects[&(Kind::Pod, name.to_owned())].labels.clone();
    assert_eq!(labels(&world, &leader)["role"], "primary");
    world.add_as("x-2", |identity| {
        (identity.leader_label, identity.follower_label) = ("master".to_owned(), "slave".to_owned());
        identity.tmp_role_label = Some("plain".to_owned());
    });
    world.run(6_000);
    assert_eq!((&*labels(&world, "x-2")["role"], &*labels(&world, "x-2")["plain"]), ("slave", "replica"));
    world.annotate("x-failover", &[("leader", Some(&leader)), ("member", Some("x-2"))]);
    world.run_until("a switchover", 10_000, |w| w.writable() == ["x-2".to_owned()]);
    world.run(3_000);
    assert_eq!((&*labels(&world, "x-2")["role"], &*labels(&world, "x-2")["plain"]), ("master", "primary"));
    assert_eq!(labels(&world, &other)["role"], "replica");
}
