//! New clusters that fail to come up, and members that get their data without a leader.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Kind, TaskError};
use world::{World, settled};

const CONFIG: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3}"#;

fn hopeless() -> TaskError {
    TaskError::Hopeless("no such bucket".into())
}

fn tells(world: &mut World, name: &str, what: &str) -> bool {
    world.node(name).verdicts.iter().any(|(_, rule, why)| rule == "bootstrap.failed" && why.contains(what))
}

#[test]
fn a_bootstrap_that_fails_leaves_the_cluster_as_new_and_says_why() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.failing.push(("x-0".into(), "Initdb", hopeless()));
    world.run_until("told", 20_000, |w| tells(w, "x-0", "no such bucket"));
    world.run_until("given back", 5_000, |w| w.annotation("x-config", "initialize").is_none());
    // Not again at once: whoever looks finds one failure, not hundreds.
    world.run(30_000);
    assert_eq!(world.annotation("x-config", "initialize"), None);
    // Mended, it works.
    world.failing.clear();
    world.run_until("leads", 60_000, |w| w.writable() == ["x-0"]);
}

#[test]
fn another_member_makes_the_cluster_that_the_first_could_not() {
    let mut world = World::new(&["x-0", "x-1"], CONFIG);
    for name in ["x-0", "x-1"] {
        world.failing.push((name.into(), "Initdb", hopeless()));
    }
    world.run_until("one failed", 20_000, |w| tells(w, "x-0", "bucket") || tells(w, "x-1", "bucket"));
    let other = if tells(&mut world, "x-0", "bucket") { "x-1" } else { "x-0" };
    world.failing.retain(|(name, _, _)| name != other);
    world.run_until("the other leads", 20_000, |w| w.writable() == [other]);
}

#[test]
fn a_post_bootstrap_that_fails_stops_the_server_and_keeps_its_data_aside() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.failing.push(("x-0".into(), "PostBootstrap", hopeless()));
    world.run_until("told", 20_000, |w| tells(w, "x-0", "no such bucket"));
    world.run_until("as new", 5_000, |w| {
        let running = w.node("x-0").db.running;
        !running && w.node("x-0").db.data.is_none() && w.annotation("x-config", "initialize").is_none()
    });
    assert_eq!(world.leader(), None);
    assert_eq!(world.annotation("x-leader", "acquireTime"), None);
    world.failing.clear();
    world.run_until("leads", 80_000, |w| w.writable() == ["x-0"] && w.annotation("x-config", "initialize").is_some());
}

/// A bucket that is away for a moment is no reason to give up: only what says that it is hopeless is.
#[test]
fn a_bootstrap_is_tried_again_after_a_passing_failure() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.failing.push(("x-0".into(), "Initdb", TaskError::Failed("the supervisor cannot be reached".into())));
    world.run(10_000);
    assert!(world.annotation("x-config", "initialize").is_some());
    world.failing.clear();
    world.run_until("leads", 10_000, |w| w.writable() == ["x-0"]);
}

#[test]
fn a_new_member_is_restored_without_a_leader_where_a_method_needs_none() {
    let config = r#"{"ttl":10,"loop_wait":2,"postgresql":{"create_replica_methods":["wal"],"wal":{"no_leader":true}}}"#;
    for (config, restored) in [(config, true), (CONFIG, false)] {
        let mut world = World::new(&["x-0"], config);
        world.run_until("made", 20_000, |w| w.annotation("x-config", "initialize").as_deref() == Some(world::SYSTEM));
        world.node("x-0").agent_up = false;
        world.crash("x-0");
        world.run(15_000); // the lock expires
        world.add("x-1");
        world.run(15_000); // x-1 counts from when it first saw it
        assert_eq!(world.node("x-1").db.data.is_some(), restored);
    }
}

#[test]
fn a_copy_is_taken_from_a_member_that_offers_itself() {
    let mut world = World::new(&["x-0", "x-1"], CONFIG);
    world.run_until("both run", 20_000, |w| w.nodes.values().all(|n| n.db.running) && w.writable().len() == 1);
    world.run(3_000);
    let leader = world.leader().unwrap();
    let other = if leader == "x-0" { "x-1" } else { "x-0" };
    // As the member will say once it has the tag.
    let text = world.objects[&(matriarch_ha::event::Kind::Pod, other.into())].annotations["status"].clone();
    let mut status: serde_json::Value = serde_json::from_str(&text).unwrap();
    status["tags"] = serde_json::json!({"clonefrom": true});
    world.node(other).agent_up = false; // it would write over it
    world.store(matriarch_ha::event::Kind::Pod, other, |o| {
        o.annotations.insert("status".into(), status.to_string());
    });
    world.add("x-2");
    world.run_until("copies", 10_000, |w| w.node("x-2").verdicts.iter().any(|(_, rule, _)| rule == "follower.copy"));
    let why = world.node("x-2").verdicts.iter().find(|(_, rule, _)| rule == "follower.copy").unwrap().2.clone();
    assert!(why.contains(&format!("replica '{other}'")), "{why}");
}

#[test]
fn a_pod_is_labelled_while_its_member_has_no_data_yet() {
    let mut world = World::new(&["x-0", "x-1"], CONFIG);
    let label = |world: &World, name: &str| {
        let pod = &world.objects[&(Kind::Pod, name.to_owned())];
        let state: serde_json::Value = serde_json::from_str(pod.annotations.get("status")?).ok()?;
        Some((state["state"].as_str()?.to_owned(), pod.labels.get("phase").cloned()))
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        world.run(20);
        seen.extend(["x-0", "x-1"].iter().filter_map(|name| label(&world, name)));
    }
    world.run_until("bootstrap", 10_000, settled);
    for (state, label) in seen {
        let making = ["initializing new cluster", "creating replica"].contains(&state.as_str());
        if making || state == "running" {
            assert_eq!(label.as_deref(), making.then_some("making"), "{state}");
        }
    }
    world.run(5_000);
    for name in ["x-0", "x-1"] {
        assert_eq!(label(&world, name), Some(("running".to_owned(), None)));
    }
}
