//! Cascading replication and standby clusters: who follows whom, and who is never writable.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::Kind;
use serde_json::json;
use world::{Data, World};

const CONFIG: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3}"#;
const STANDBY: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"standby_cluster":
    {"host":"far.away","port":5433,"primary_slot_name":"here","restore_command":"fetch %f %p"}}"#;

fn upstream(world: &World, name: &str) -> Option<String> {
    world.nodes[name].db.config.upstream.as_ref().map(|u| u.member.clone())
}

/// x-0 leads, x-1 follows it, x-2 has these tags.
fn cascade(tags: serde_json::Value) -> World {
    let mut world = World::new(&["x-0"], CONFIG);
    world.run_until("bootstrap", 10_000, |w| w.writable() == ["x-0"]);
    world.add("x-1");
    world.add_tagged("x-2", &tags);
    world.run_until("all run", 20_000, |w| w.nodes.values().all(|n| n.db.running));
    world
}

#[test]
fn replicatefrom_names_the_upstream_as_long_as_it_runs() {
    let mut world = cascade(json!({"replicatefrom": "x-1"}));
    world.run_until("cascades", 10_000, |w| upstream(w, "x-2").as_deref() == Some("x-1"));
    let slot = world.nodes["x-2"].db.config.upstream.as_ref().unwrap().slot.clone();
    assert_eq!(slot.as_deref(), Some("x_2"));
    // The upstream is gone: the leader instead, and back when it runs again.
    world.node("x-1").agent_up = false;
    world.crash("x-1");
    world.run_until("the leader instead", 15_000, |w| upstream(w, "x-2").as_deref() == Some("x-0"));
    world.node("x-1").agent_up = true;
    world.run_until("back", 90_000, |w| upstream(w, "x-2").as_deref() == Some("x-1"));
}

#[test]
fn a_chain_of_tags_ends_at_the_leader() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.run_until("bootstrap", 10_000, |w| w.writable() == ["x-0"]);
    world.add_tagged("x-1", &json!({"replicatefrom": "x-2"}));
    world.add_tagged("x-2", &json!({"replicatefrom": "x-1"}));
    world.add_tagged("x-3", &json!({"replicatefrom": "nobody"}));
    world.run_until("all run", 20_000, |w| w.nodes.values().all(|n| n.db.running));
    world.run(20_000);
    for name in ["x-1", "x-2", "x-3"] {
        assert_eq!(upstream(&world, name).as_deref(), Some("x-0"), "{name}");
    }
}

#[test]
fn a_nostream_member_streams_from_nobody_and_is_left_alone() {
    let mut world = cascade(json!({"nostream": true}));
    world.run(30_000);
    assert!(world.nodes["x-2"].db.running);
    assert_eq!(upstream(&world, "x-2"), None);
    assert!(!world.node("x-2").verdicts.iter().any(|(_, rule, _)| rule == "follower.stuck"));
}

fn standby_cluster() -> World {
    let mut world = World::new(&["x-0", "x-1"], STANDBY);
    world.remote = Some(Data { timeline: 7, lsn: 5_000, ..Data::new() });
    world.run_until("complete", 30_000, |w| {
        let Some(leader) = w.leader() else { return false };
        let other = if leader == "x-0" { "x-1" } else { "x-0" };
        w.annotation("x-config", "initialize").is_some()
            && upstream(w, &leader).as_deref() == Some("")
            && upstream(w, other).as_deref() == Some(leader.as_str())
    });
    world.run(5_000);
    world
}

#[test]
fn a_standby_cluster_follows_the_remote_one_and_is_never_writable() {
    let mut world = standby_cluster();
    let leader = world.leader().unwrap();
    let config = world.nodes[&leader].db.config.clone();
    let remote = config.upstream.unwrap();
    assert_eq!((remote.host.as_str(), remote.port, remote.slot.as_deref()), ("far.away", 5433, Some("here")));
    assert_eq!(config.recovery["restore_command"], "fetch %f %p");
    let pod = world.objects[&(Kind::Pod, leader.clone())].clone();
    assert!(pod.annotations["status"].contains("\"role\":\"standby_leader\""), "{pod:?}");
    assert_eq!(pod.labels["role"], "primary");
    // Not even with a promotion behind our back: the fence gives no permit.
    assert!(world.nodes[&leader].db.permit.is_none_or(|permit| permit.0 == 0));
    // Its leader is lost: another follows the remote cluster.
    world.node(&leader).agent_up = false;
    world.crash(&leader);
    world.run_until("another standby leader", 30_000, |w| {
        w.leader().is_some_and(|l| l != leader && upstream(w, &l).as_deref() == Some(""))
    });
    world.run(10_000);
    assert!(world.primaries.iter().all(|(_, writable)| writable.is_empty()), "{:?}", world.primaries);
}

#[test]
fn removing_the_section_promotes_the_cluster_and_adding_it_demotes_it() {
    let mut world = standby_cluster();
    let leader = world.leader().unwrap();
    let configure = |world: &mut World, text: &str| {
        world.store(Kind::Lock, "x-config", |o| {
            o.annotations.insert("config".into(), text.into());
        });
    };
    configure(&mut world, CONFIG);
    world.run_until("promoted", 10_000, |w| w.writable() == [leader.clone()]);
    assert_eq!(world.nodes[&leader].db.data.as_ref().unwrap().timeline, 8);
    world.remote.as_mut().unwrap().timeline = 9;
    configure(&mut world, STANDBY);
    world.run_until("demoted", 20_000, |w| {
        w.writable().is_empty() && w.nodes[&leader].db.running && upstream(w, &leader).as_deref() == Some("")
    });
    assert_eq!(world.leader(), Some(leader.clone()), "the lock stays where it was");
    // Once more under the same lock: the number of that promotion, too, is written where it outlives the lock object.
    configure(&mut world, CONFIG);
    world.run_until("promoted again", 10_000, |w| w.writable() == [leader.clone()]);
    let number = |object: &str| world.annotation(object, "matriarch.dev/timeline");
    assert_eq!((number("x-leader").as_deref(), number("x-sync")), (Some("10"), number("x-leader")));
}

#[test]
fn a_standby_cluster_starts_without_its_remote_one_when_that_comes_up() {
    let mut world = World::new(&["x-0"], STANDBY);
    world.run(20_000);
    assert!(world.nodes["x-0"].db.data.is_none() && world.writable().is_empty());
    world.remote = Some(Data::new());
    world.run_until("complete", 20_000, |w| upstream(w, "x-0").as_deref() == Some("") && w.nodes["x-0"].db.running);
}

#[test]
fn a_promoted_cluster_reserves_a_timeline_that_the_remote_one_has_not_reached() {
    let mut world = standby_cluster();
    let leader = world.leader().unwrap();
    // The remote cluster has had failovers of its own since the lock was taken.
    world.remote.as_mut().unwrap().timeline = 11;
    for name in ["x-0", "x-1"] {
        world.node(name).db.data.as_mut().unwrap().timeline = 11;
    }
    world.run(5_000);
    world.store(Kind::Lock, "x-config", |o| {
        o.annotations.insert("config".into(), CONFIG.into());
    });
    world.run_until("promoted", 10_000, |w| w.writable() == [leader.clone()]);
    assert_eq!(world.annotation("x-leader", "matriarch.dev/timeline").as_deref(), Some("12"));
    assert_eq!(world.nodes[&leader].db.data.as_ref().unwrap().timeline, 12);
}

#[test]
fn a_standby_leader_whose_log_has_parted_is_rewound_and_one_whose_remote_is_away_goes_on() {
    let mut world = standby_cluster();
    let leader = world.leader().unwrap();
    let stuck =
        |w: &World| w.nodes[&leader].verdicts.iter().filter(|(_, rule, _)| rule == "standby-cluster.stuck").count();
    // Away: it is asked now and then, and nothing is stopped.
    let remote = world.remote.take();
    world.node(&leader).db.deprived = true;
    world.run(60_000);
    assert!((1..=3).contains(&stuck(&world)), "{}", stuck(&world));
    assert!(world.nodes[&leader].db.running);
    assert!(!world.nodes[&leader].verdicts.iter().any(|(_, rule, _)| rule == "standby-cluster.rewind"));
    // Back, on another way.
    world.node(&leader).db.data.as_mut().unwrap().timeline = 8;
    world.remote = remote;
    world.run_until("rewound", 60_000, |w| {
        let db = &w.nodes[&leader].db;
        db.running
            && db.data.as_ref().is_some_and(|data| data.timeline == 7)
            && upstream(w, &leader).as_deref() == Some("")
    });
    assert_eq!(world.leader(), Some(leader.clone()));
    assert!(world.writable().is_empty());
}
