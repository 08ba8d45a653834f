//! Edits of the dynamic configuration over REST.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::effect::Reply;
use matriarch_ha::event::{Kind, Request};
use serde_json::{Map, Value, json};
use world::World;

const CONFIG: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"postgresql":{"parameters":{"work_mem":"4MB"}}}"#;

fn cluster() -> (World, String) {
    let (world, _, other) = world::cluster(CONFIG);
    (world, other)
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value}") };
    map
}

fn stored(world: &World) -> Value {
    serde_json::from_str(&world.annotation("x-config", "config").unwrap()).unwrap()
}

fn version(world: &World) -> String {
    world.objects[&(Kind::Lock, "x-config".to_owned())].resource_version.clone()
}

/// Asks, waits, and returns the reply.
fn ask(world: &mut World, member: &str, id: u64, request: Request) -> Reply {
    world.request(member, id, request);
    world.run_until("answered", 10_000, |w| w.replies.contains_key(&id));
    world.replies[&id].clone()
}

#[test]
fn any_member_merges_an_edit_and_says_what_is_stored_then() {
    let (mut world, other) = cluster();
    let patch =
        json!({"ttl": 20, "pause": true, "postgresql": {"parameters": {"work_mem": null, "log_statement": "ddl"}}});
    let expected = json!({"ttl": 20, "loop_wait": 2, "retry_timeout": 3, "pause": true,
        "postgresql": {"parameters": {"log_statement": "ddl"}}});
    let reply = ask(&mut world, &other, 1, Request::PatchConfig(object(patch.clone())));
    assert_eq!(reply, Reply::Document(expected.clone()));
    assert_eq!(stored(&world), expected);
    // Once more: nothing changes, and nothing is written.
    let before = version(&world);
    assert_eq!(ask(&mut world, &other, 2, Request::PatchConfig(object(patch))), Reply::Document(expected));
    let whole = json!({"ttl": 10, "loop_wait": 2, "retry_timeout": 3});
    assert_eq!(version(&world), before);
    assert_eq!(
        ask(&mut world, &other, 3, Request::ReplaceConfig(object(whole.clone()))),
        Reply::Document(whole.clone())
    );
    assert_eq!(stored(&world), whole);
}

#[test]
fn a_write_of_something_else_in_between_is_no_reason_to_refuse() {
    let (mut world, other) = cluster();
    world.annotate("x-config", &[("history", Some("[]"))]);
    world.request(&other, 1, Request::PatchConfig(object(json!({"ttl": 20}))));
    world.run_until("answered", 10_000, |w| w.replies.contains_key(&1));
    assert!(matches!(world.replies[&1], Reply::Document(_)), "{:?}", world.replies[&1]);
    assert_eq!(stored(&world)["ttl"], 20);
    assert_eq!(world.annotation("x-config", "history").as_deref(), Some("[]"));
}

#[test]
fn two_edits_at_a_time_are_both_kept() {
    let (mut world, other) = cluster();
    world.request(&other, 1, Request::PatchConfig(object(json!({"a": 1}))));
    world.request(&other, 2, Request::PatchConfig(object(json!({"b": 2}))));
    world.run_until("answered", 10_000, |w| w.replies.contains_key(&1) && w.replies.contains_key(&2));
    assert_eq!((&stored(&world)["a"], &stored(&world)["b"]), (&json!(1), &json!(2)));
}

#[test]
fn what_was_wiped_is_not_merged_with_and_can_be_written_whole() {
    let (mut world, other) = cluster();
    // Nobody writes it again.
    for node in world.nodes.values_mut() {
        node.agent_up = false;
    }
    world.node(&other).agent_up = true;
    world.annotate("x-config", &[("config", None)]);
    world.run(100);
    ask(&mut world, &other, 1, Request::PatchConfig(object(json!({"ttl": 20}))));
    let text = "no valid configuration is stored: write a whole one with PUT /config";
    assert_eq!(world.reply(1), Some((503, text.to_owned())));
    let whole = json!({"ttl": 20});
    assert_eq!(ask(&mut world, &other, 2, Request::ReplaceConfig(object(whole.clone()))), Reply::Document(whole));
}

#[test]
fn an_edit_that_cannot_be_written_says_so() {
    let (mut world, other) = cluster();
    world.api_up = false;
    ask(&mut world, &other, 1, Request::PatchConfig(object(json!({"ttl": 20}))));
    ask(&mut world, &other, 2, Request::ReplaceConfig(object(json!({"ttl": 20}))));
    for (id, code) in [(1, 503), (2, 502)] {
        let (found, text) = world.reply(id).unwrap();
        assert_eq!(found, code, "{text}");
        assert!(text.starts_with("whether the configuration was written is not known"), "{text}");
    }
}
