//! Our own configuration, read again while we run.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Kind, Local};
use matriarch_ha::tags::Tags;
use serde_json::json;
use world::World;

#[test]
fn a_reload_changes_parameters_tags_and_addresses_and_nothing_else() {
    let mut world = World::new(&["x-0", "x-1"], r#"{"ttl":10,"loop_wait":2,"retry_timeout":3}"#);
    world.run_until("made", 30_000, |w| w.writable() == ["x-0"] && w.nodes["x-1"].db.running);
    world.run(10_000);
    let started = world.nodes["x-1"].starts;
    let local = Local {
        section: json!({"parameters": {"work_mem": "8MB", "max_connections": 7}}),
        tags: Tags::parse(&json!({"nofailover": true})),
        conn_url: "postgres://elsewhere:5432/postgres".into(),
        proxy_url: Some("postgres://pooler:6432/postgres".into()),
        api_url: "https://x-1.x:8008/patroni".into(),
    };
    world.callbacks.clear();
    world.push("x-1", 1, Event::Local(Box::new(local)));
    world.run(5_000);
    let reloads: Vec<_> = world.callbacks.iter().map(|(member, action, _)| (member.as_str(), *action)).collect();
    assert_eq!(reloads, [("x-1", "on_reload")]);
    let snapshot = world.nodes["x-1"].core.snapshot(world.now);
    assert_eq!(snapshot.config.parameters["work_mem"], "8MB");
    assert!(!snapshot.config.parameters.contains_key("max_connections"), "that is the cluster's");
    let text = &world.objects[&(Kind::Pod, "x-1".to_owned())].annotations["status"];
    let pod: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(pod["conn_url"], "postgres://elsewhere:5432/postgres");
    assert_eq!(pod["proxy_url"], "postgres://pooler:6432/postgres");
    assert_eq!(pod["tags"]["nofailover"], true);
    assert_eq!((world.nodes["x-1"].starts, world.writable()), (started, vec!["x-0".to_owned()]));
}
