//! What the user's callbacks are told, and who may not lead.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Kind, Request, RestartOrder, TaskError};
use world::World;

const CONFIG: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3}"#;

fn told(world: &mut World, name: &str) -> Vec<String> {
    let all = std::mem::take(&mut world.callbacks);
    let (of, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(member, _, _)| member == name);
    world.callbacks = rest;
    of.into_iter().map(|(_, action, role)| format!("{action} {role}")).collect()
}

#[test]
fn callbacks_are_told_of_starts_stops_reloads_and_roles_once_each() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.run_until("made", 20_000, |w| w.annotation("x-config", "initialize").is_some_and(|i| !i.is_empty()));
    world.run(3_000);
    assert_eq!(told(&mut world, "x-0"), ["on_start primary"], "nothing of the bootstrap");
    world.add("x-1");
    world.run(8_000);
    // It follows when it has seen the leader renew.
    assert_eq!(told(&mut world, "x-1"), ["on_start replica", "on_reload replica"]);
    world.run(60_000);
    assert_eq!(world.callbacks, []);
    // A reload of parameters.
    world.store(Kind::Lock, "x-config", |o| {
        let text = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"postgresql":{"parameters":{"work_mem":"8MB"}}}"#;
        o.annotations.insert("config".into(), text.into());
    });
    world.run(5_000);
    assert_eq!(told(&mut world, "x-0"), ["on_reload primary"]);
    assert_eq!(told(&mut world, "x-1"), ["on_reload replica"]);
    // A switchover: one changes its role by a promotion, the other is stopped and comes back as another.
    world.store(Kind::Lock, "x-failover", |o| {
        o.annotations.insert("leader".into(), "x-0".into());
        o.annotations.insert("member".into(), "x-1".into());
    });
    world.run_until("switched", 20_000, |w| w.writable() == ["x-1"] && w.nodes["x-0"].db.running);
    world.run(5_000);
    let one = told(&mut world, "x-1");
    assert_eq!(one.first().map(String::as_str), Some("on_role_change primary"), "{one:?}");
    assert!(!one.iter().any(|call| call.starts_with("on_start")), "{one:?}");
    let zero = told(&mut world, "x-0");
    assert_eq!(zero[..2], ["on_stop primary", "on_role_change replica"], "{zero:?}");
    // A crash is no stop; what comes up again is a start.
    world.crash("x-1");
    world.run_until("up again", 20_000, |w| w.writable() == ["x-1"]);
    world.run(2_000);
    let one = told(&mut world, "x-1");
    assert_eq!(one.iter().filter(|call| !call.starts_with("on_reload")).collect::<Vec<_>>(), ["on_start primary"]);
}

#[test]
fn a_restart_that_was_asked_for_is_one_callback() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.run_until("made", 20_000, |w| w.annotation("x-config", "initialize").is_some_and(|i| !i.is_empty()));
    world.run(3_000);
    told(&mut world, "x-0");
    world.push("x-0", 1, Event::Request { id: 7, request: Request::Restart(RestartOrder::default()) });
    world.run(5_000);
    let calls = told(&mut world, "x-0");
    assert_eq!(calls.iter().filter(|call| !call.starts_with("on_reload")).collect::<Vec<_>>(), ["on_restart primary"]);
}

#[test]
fn who_may_not_lead_gives_the_lock_back_and_lets_others_go_first() {
    let mut world = World::new(&["x-0"], CONFIG);
    world.run_until("bootstrap", 20_000, |w| w.writable() == ["x-0"]);
    world.add("x-1");
    world.add("x-2");
    world.run(8_000);
    for name in ["x-1", "x-2"] {
        let why = "postgresql.pre_promote: check ended with code 1".into();
        world.failing.push((name.into(), "Promote", TaskError::Forbidden(why)));
    }
    world.node("x-0").agent_up = false;
    world.crash("x-0");
    let barred = |w: &World, name: &str| w.nodes[name].verdicts.iter().any(|(_, rule, _)| rule == "leader.barred");
    world.run_until("one is forbidden", 30_000, |w| barred(w, "x-1") || barred(w, "x-2"));
    let (first, other) = if barred(&world, "x-1") { ("x-1", "x-2") } else { ("x-2", "x-1") };
    world.failing.retain(|(name, _, _)| name != other);
    world.run_until("the other leads", 9_000, |w| w.writable() == [other]);
    // It was never stopped for that.
    assert!(!world.node(first).verdicts.iter().any(|(_, rule, _)| rule == "follower.demote"), "{first}");
    assert!(world.nodes[first].db.running);
}
