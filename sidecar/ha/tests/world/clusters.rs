//! The clusters that most files of tests begin with: three members, the leader with the lock, two standbys that stream.

use serde_json::{Value, json};

use super::{World, settled};

/// With failsafe mode.
pub const ASYNC: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"failsafe_mode":true}"#;
/// The same with quorum commit.
pub const QUORUM: &str =
    r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"failsafe_mode":true,"synchronous_mode":"quorum"}"#;

/// [`ASYNC`] and more.
pub fn config(more: Value) -> String {
    let mut all = json!({"ttl": 10, "loop_wait": 2, "retry_timeout": 3, "failsafe_mode": true});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all.to_string()
}

/// At rest, with the names of the leader and of a standby.
pub fn cluster(config: &str) -> (World, String, String) {
    let mut world = World::new(&["x-0", "x-1", "x-2"], config);
    world.run_until("bootstrap", 10_000, settled);
    world.run(6_000);
    let leader = world.leader().unwrap();
    let other = world.nodes.keys().find(|n| **n != leader).unwrap().clone();
    (world, leader, other)
}
