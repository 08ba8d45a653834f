//! Replication slots in the life of a cluster: everywhere where a failover may need them, and dropped only when nobody does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::Kind;
use matriarch_ha::slots::{SlotKind, SlotStatus};
use matriarch_ha::types::Lsn;
use world::World;

fn cluster(config: &str) -> World {
    let mut world = World::new(&["x-0"], config);
    world.run_until("bootstrap", 20_000, |w| w.writable() == ["x-0"]);
    world.add("x-1");
    world.add("x-2");
    world.run_until("all run", 20_000, |w| w.nodes.values().all(|n| n.db.running));
    world.run(10_000);
    world
}

fn slots(world: &World, name: &str) -> Vec<String> {
    let mut names: Vec<String> = world.nodes[name].db.slots.iter().map(|slot| slot.name.clone()).collect();
    names.sort();
    names
}

#[test]
fn every_member_has_slots_for_all_others() {
    let mut world = cluster(r#"{"ttl":10,"loop_wait":2,"slots":{"backup":{"type":"physical"}}}"#);
    assert_eq!(slots(&world, "x-0"), ["backup", "x_1", "x_2"]);
    // The leader says where its own position is, so that others keep WAL for it.
    let positions = world.annotation("x-leader", "slots").unwrap();
    assert!(positions.contains("\"x_0\":") && positions.contains("\"backup\":"), "{positions}");
    // And which ones are members', for a leader that runs Patroni.
    assert_eq!(world.annotation("x-leader", "retain_slots").as_deref(), Some(r#"["x_0","x_1","x_2"]"#));
    assert_eq!(slots(&world, "x-1"), ["backup", "x_0", "x_2"]);
    assert_eq!(slots(&world, "x-2"), ["backup", "x_0", "x_1"]);
    // Somebody else's is dropped when it is not in use, and never before.
    let slot = |name: &str, active| SlotStatus {
        name: name.into(),
        kind: SlotKind::Physical,
        active,
        lsn: Lsn(9),
        failover: false,
    };
    world.node("x-0").db.slots.extend([slot("busy", true), slot("idle", false)]);
    world.run(5_000);
    assert_eq!(slots(&world, "x-0"), ["backup", "busy", "x_1", "x_2"]);
    world.node("x-0").db.slots.iter_mut().for_each(|slot| slot.active = false);
    world.run(5_000);
    assert_eq!(slots(&world, "x-0"), ["backup", "x_1", "x_2"]);
}

#[test]
fn without_member_slots_ttl_only_those_who_stream_here_have_one() {
    let world = cluster(r#"{"ttl":10,"loop_wait":2,"member_slots_ttl":0}"#);
    assert_eq!(slots(&world, "x-0"), ["x_1", "x_2"]);
    assert_eq!(slots(&world, "x-1"), Vec::<String>::new());
}

#[test]
fn in_pause_no_slot_is_dropped() {
    let mut world = cluster(r#"{"ttl":10,"loop_wait":2}"#);
    world.store(Kind::Lock, "x-config", |o| {
        o.annotations.insert("config".into(), r#"{"ttl":10,"loop_wait":2,"pause":true}"#.into());
    });
    world.run(3_000);
    let mine =
        SlotStatus { name: "mine".into(), kind: SlotKind::Physical, active: false, lsn: Lsn(9), failover: false };
    world.node("x-0").db.slots.push(mine);
    world.run(5_000);
    assert!(slots(&world, "x-0").contains(&"mine".to_owned()));
}

#[test]
fn a_permanent_logical_slot_is_copied_to_standbys_and_there_after_a_failover() {
    let config = r#"{"ttl":10,"loop_wait":2,"slots":{"cdc":{"type":"logical","database":"shop","plugin":"pgoutput"}}}"#;
    let mut world = cluster(config);
    for name in ["x-0", "x-1", "x-2"] {
        assert!(slots(&world, name).contains(&"cdc".to_owned()), "{name}: {:?}", slots(&world, name));
        assert_eq!(world.nodes[name].db.config.parameters["hot_standby_feedback"], "on");
    }
    let copies = world.nodes["x-1"].verdicts.iter().filter(|(_, rule, _)| rule == "follower.copy-slots").count();
    assert_eq!(copies, 1, "one restart");
    world.node("x-0").agent_up = false;
    world.crash("x-0");
    world.run_until("a new leader", 30_000, |w| w.writable().first().is_some_and(|name| name != "x-0"));
    world.run(5_000);
    let leader = world.writable()[0].clone();
    assert!(slots(&world, &leader).contains(&"cdc".to_owned()));
    // Taken from the configuration it goes, as nobody uses it.
    world.store(Kind::Lock, "x-config", |o| {
        o.annotations.insert("config".into(), r#"{"ttl":10,"loop_wait":2}"#.into());
    });
    world.run(10_000);
    assert!(!slots(&world, &leader).contains(&"cdc".to_owned()));
}
