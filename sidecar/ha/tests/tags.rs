//! Tags in the life of a cluster: who never leads, who leads first, who is never waited for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Request};
use serde_json::{Value, json};
use world::{ASYNC, QUORUM, World};

/// The first member leads; the others have these tags.
fn cluster(config: &str, tags: [Value; 2]) -> World {
    let mut world = World::new(&["x-0"], config);
    world.run_until("bootstrap", 10_000, |w| w.writable() == ["x-0"]);
    world.add_tagged("x-1", &tags[0]);
    world.add_tagged("x-2", &tags[1]);
    world.run(8_000);
    world
}

fn successor(world: &mut World) -> String {
    world.node("x-0").agent_up = false;
    world.run_until("a new leader", 20_000, |w| w.writable().first().is_some_and(|p| p != "x-0"));
    world.writable()[0].clone()
}

#[test]
fn a_nofailover_member_votes_and_never_leads() {
    for config in [ASYNC, QUORUM] {
        for tag in [json!({"nofailover": true}), json!({"failover_priority": 0})] {
            let mut world = cluster(config, [tag, json!({})]);
            assert_eq!(successor(&mut world), "x-2", "{config}");
        }
    }
    // Alone with it, nobody leads.
    let mut world = cluster(ASYNC, [json!({"nofailover": true}), json!({})]);
    world.node("x-2").agent_up = false;
    world.node("x-0").agent_up = false;
    world.run(40_000);
    assert!(world.writable().is_empty());
    assert!(
        world.node("x-1").verdicts.last().unwrap().1.contains("nofailover"),
        "{:?}",
        world.node("x-1").verdicts.last()
    );
}

#[test]
fn the_higher_priority_leads_of_those_equally_far() {
    for config in [ASYNC, QUORUM] {
        let mut world = cluster(config, [json!({"failover_priority": 1}), json!({"failover_priority": 7})]);
        assert_eq!(successor(&mut world), "x-2", "{config}");
        let mut world = cluster(config, [json!({"failover_priority": 7}), json!({"failover_priority": 1})]);
        assert_eq!(successor(&mut world), "x-1", "{config}");
    }
}

#[test]
fn the_higher_priority_leads_also_after_an_orderly_stop() {
    // Both have all of it, and x-1 hears of it first.
    for config in [ASYNC, QUORUM] {
        let mut world = cluster(config, [json!({"failover_priority": 1}), json!({"failover_priority": 7})]);
        world.push("x-0", 0, Event::Terminating);
        let ms = world.run_until("another leads", 5_000, |w| w.writable().first().is_some_and(|p| p != "x-0"));
        assert_eq!((world.writable(), ms < 1_000), (vec!["x-2".to_owned()], true), "{config}: {ms} ms");
    }
    // Nobody waits for one that is away, and whom a person chose goes first.
    let mut world = cluster(QUORUM, [json!({"failover_priority": 1}), json!({"failover_priority": 7})]);
    world.node("x-2").agent_up = false;
    world.push("x-0", 0, Event::Terminating);
    let ms = world.run_until("another leads", 8_000, |w| w.writable() == ["x-1"]);
    assert!(ms < 3_000, "{ms} ms");
    let mut world = cluster(QUORUM, [json!({"failover_priority": 1}), json!({"failover_priority": 7})]);
    let chosen =
        Request::Switchover { leader: Some("x-0".to_owned()), candidate: Some("x-1".to_owned()), scheduled_at: None };
    world.request("x-0", 7, chosen);
    let ms = world.run_until("the chosen one leads", 8_000, |w| w.writable() == ["x-1"]);
    assert!(ms < 1_000, "{ms} ms");
}

#[test]
fn a_nosync_member_is_in_no_synchronous_set() {
    let mut world = cluster(QUORUM, [json!({"nosync": true}), json!({})]);
    assert_eq!(world.annotation("x-sync", "sync_standby").as_deref(), Some("x-2"));
    assert_eq!(world.node("x-0").db.config.sync_names, r#"ANY 1 ("x-2")"#);
}

#[test]
fn tags_are_published() {
    let world = cluster(ASYNC, [json!({"nosync": true, "clonefrom": false, "zone": "a"}), json!({})]);
    let pod = &world.objects[&(matriarch_ha::event::Kind::Pod, "x-1".into())];
    let status: Value = serde_json::from_str(&pod.annotations["status"]).unwrap();
    assert_eq!(status["tags"], json!({"nosync": true, "zone": "a"}));
}
