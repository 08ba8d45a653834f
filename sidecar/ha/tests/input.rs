//! Whatever others write into the store: nobody panics, nothing that cannot be read changes anything, and the leader leads on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::config::{Dynamic, effective, notes, sound};
use matriarch_ha::event::{Event, Kind};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use world::World;

const CONFIG: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3}"#;
const KEYS: [&str; 30] = [
    "ttl",
    "loop_wait",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "synchronous_mode",
    "pause",
    "synchronous_node_count",
    "standby_cluster",
    "host",
    "port",
    "slots",
    "ignore_slots",
    "member_slots_ttl",
    "postgresql",
    "parameters",
    "parameters_replica",
    "max_connections",
    "wal_level",
    "pg_hba",
    "pg_ident",
    "recovery_conf",
    "type",
    "database",
    "create_replica_methods",
    "tags",
    "pending_restart_reason",
    "old_value",
    "api_url",
    "timeline",
];

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["on", "quorum", "5min", "-1", "99999999999999999999", "replica", "a'b\\c\n", ""])
            .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let key = prop_oneof![4 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|all| Value::Object(all.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// JSON, broken JSON, and no JSON at all.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => anything().prop_map(|value| value.to_string()),
        1 => (anything(), 0..40_usize).prop_map(|(value, at)| value.to_string().chars().take(at).collect()),
        1 => "\\PC{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is configured: what is in force is sound, and is so again.
    #[test]
    fn configurations_of_any_shape_are_made_sound(dynamic in anything(), local in anything(), former in anything()) {
        let (former, _) = sound(&former, &Value::Null);
        let (once, _) = sound(&effective(&dynamic, &local), &former);
        let (twice, problems) = sound(&once, &Value::Null);
        prop_assert_eq!(&once, &twice);
        prop_assert!(problems.is_empty(), "{:?}", problems);
        let config = Dynamic::parse(&once);
        prop_assert!(config.ttl_ms >= 5_000 && config.loop_wait_ms * 3 <= config.ttl_ms && config.retry_timeout_ms * 2 <= config.ttl_ms);
        let _ = (notes(&once), config.of_role("replica"));
    }
}

fn play(inputs: &[(&str, &str, String)]) -> World {
    let mut world = World::new(&["x-0", "x-1"], CONFIG);
    world.run_until("made", 30_000, |w| w.writable() == ["x-0"] && w.nodes["x-1"].db.running);
    world.run(5_000);
    for (object, key, text) in inputs {
        let kind = if *key == "status" { Kind::Pod } else { Kind::Lock };
        world.store(kind, object, |o| drop(o.annotations.insert((*key).to_owned(), text.clone())));
        world.run(700);
        assert!(world.writable().len() <= 1, "{:?} after {object} {key} {text}", world.writable());
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every annotation that others may write, one after another.
    #[test]
    fn annotations_of_any_shape_panic_nobody(
        texts in prop::collection::vec((prop::sample::select(vec![
            ("x-config", "config"), ("x-config", "history"), ("x-failover", "leader"), ("x-failover", "member"),
            ("x-failover", "scheduled_at"), ("x-sync", "leader"), ("x-sync", "sync_standby"), ("x-sync", "quorum"),
            ("x-leader", "ttl"), ("x-leader", "optime"), ("x-leader", "slots"), ("x-leader", "failsafe"),
            ("x-leader", "renewTime"), ("x-0", "status"), ("x-1", "status"),
        ]), text()), 1..8),
    ) {
        let inputs: Vec<_> = texts.iter().map(|((object, key), text)| (*object, *key, text.clone())).collect();
        play(&inputs);
    }

    /// What is no configuration changes none.
    #[test]
    fn what_is_no_configuration_changes_nothing(text in "\\PC{0,30}", value in anything()) {
        for bad in [text, value.to_string()] {
            if serde_json::from_str::<Value>(&bad).is_ok_and(|value| value.is_object()) {
                continue;
            }
            let world = play(&[("x-config", "config", bad)]);
            for node in world.nodes.values() {
                prop_assert_eq!(node.core.snapshot(world.now).config.ttl_ms, 10_000);
            }
            prop_assert_eq!(world.writable(), vec!["x-0".to_owned()]);
        }
    }
}

#[test]
fn a_bad_value_is_told_until_it_is_mended() {
    let mut world = play(&[(
        "x-config",
        "config",
        r#"{"ttl":"soon","loop_wait":2,"retry_timeout":3,"pause":"perhaps","postgresql":{"parameters":{"max_connections":"many"}}}"#.to_owned(),
    )]);
    let problems = |world: &World| {
        let status: Value =
            serde_json::from_str(&world.objects[&(Kind::Pod, "x-1".to_owned())].annotations["status"]).unwrap();
        status["matriarch"]["config_problems"].clone()
    };
    world.run(2_000);
    assert_eq!(world.nodes["x-1"].core.snapshot(world.now).config.ttl_ms, 10_000);
    assert!(problems(&world)[0].as_str().unwrap().starts_with("ttl: \"soon\" cannot be used"), "{}", problems(&world));
    let status = &world.objects[&(Kind::Pod, "x-1".to_owned())].annotations["status"];
    let status: Value = serde_json::from_str(status).unwrap();
    assert!(
        status["matriarch"]["invalid_parameters"]["max_connections"].as_str().unwrap().contains("at least 25"),
        "{status}"
    );
    for bad in ["[", "[1]"] {
        world.store(Kind::Lock, "x-config", |o| drop(o.annotations.insert("config".into(), bad.into())));
        world.run(2_000);
        let told = problems(&world)
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p.as_str().unwrap().contains("no JSON object"))
            .count();
        assert_eq!(told, 1);
    }
    world.store(Kind::Lock, "x-config", |o| drop(o.annotations.insert("config".into(), CONFIG.into())));
    world.run(2_000);
    assert_eq!(problems(&world), Value::Null);
}

#[test]
fn what_was_in_force_before_the_agent_began_counts_where_the_store_has_none() {
    let mut world = play(&[]);
    let cached =
        json!({"ttl": 20, "loop_wait": 2, "retry_timeout": 3, "postgresql": {"parameters": {"work_mem": "9MB"}}});
    // The store has one: what is cached is older.
    world.push("x-0", 1, Event::Cached(Box::new(cached.clone())));
    world.run(1_000);
    assert_eq!(world.annotation("x-config", "config").as_deref(), Some(CONFIG));
    // It has none any more, and all agents are new.
    world.store(Kind::Lock, "x-config", |o| drop(o.annotations.remove("config")));
    for name in ["x-0", "x-1"] {
        // Another agent of the same pod finds its server stopped.
        let mut db = std::mem::take(&mut world.node(name).db);
        (db.running, db.primary, db.seq) = (false, false, 0);
        world.add(name);
        world.node(name).db = db;
        world.push(name, 1, Event::Cached(Box::new(cached.clone())));
    }
    world.run(30_000);
    let stored: Value = serde_json::from_str(&world.annotation("x-config", "config").unwrap()).unwrap();
    assert_eq!((stored, world.writable()), (cached, vec!["x-0".to_owned()]));
    assert_eq!(world.nodes["x-1"].core.snapshot(world.now).config.parameters["work_mem"], "9MB");
}

#[test]
fn a_primary_waits_with_more_connections_for_its_standbys() {
    let config = |connections: u32| {
        json!({"ttl": 10, "loop_wait": 2, "retry_timeout": 3, "postgresql": {"parameters": {"max_connections": connections}}}).to_string()
    };
    let mut world = play(&[("x-config", "config", config(200))]);
    let limits = |world: &World| world.nodes["x-0"].db.config.limits.clone();
    world.run(3_000);
    assert!(limits(&world).is_empty());
    let waits = r#"{"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}}}"#;
    world.store(Kind::Pod, "x-1", |o| drop(o.annotations.insert("status".into(), waits.into())));
    world.run(50);
    assert_eq!(limits(&world).get("max_connections"), Some(&100));
}
