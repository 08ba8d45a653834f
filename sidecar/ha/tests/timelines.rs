//! A number is used for one promotion only, also when the lock object that remembers it is gone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Kind, StoreEvent, TaskError};
use world::{ASYNC, World};

const TIMELINE: &str = "matriarch.dev/timeline";

fn timeline(world: &World, member: &str) -> u32 {
    world.nodes[member].db.data.as_ref().unwrap().timeline
}

/// A person deletes an object, and everybody hears of it.
fn delete(world: &mut World, object: &str) {
    let gone = world.objects.remove(&(Kind::Lock, object.into())).unwrap();
    for name in ["x-0", "x-1", "x-2"] {
        world.push(name, 1, Event::Store(StoreEvent::Deleted(Kind::Lock, gone.clone())));
    }
}

/// Agent and server are gone, and the pod that comes in its place says nothing of what it was.
fn gone(world: &mut World, member: &str) {
    world.crash(member);
    world.node(member).agent_up = false;
    world.store(Kind::Pod, member, |pod| drop(pod.annotations.remove("status")));
}

/// The second leader is on timeline 2; the third member has slept through that. Their names.
fn promoted_unheard() -> (World, String, String) {
    let (mut world, first, sleeper) = world::cluster(ASYNC);
    gone(&mut world, &sleeper);
    gone(&mut world, &first);
    world.run_until("another leads", 30_000, |w| w.writable().iter().any(|name| *name != first));
    let second = world.leader().unwrap();
    world.run(6_000);
    assert_eq!((timeline(&world, &second), timeline(&world, &sleeper)), (2, 1));
    (world, second, sleeper)
}

#[test]
fn a_number_outlives_the_lock_object_and_all_who_made_it() {
    // What is left that says it: the claim, or the history.
    for left in ["x-sync", "x-config", "both"] {
        let (mut world, second, sleeper) = promoted_unheard();
        gone(&mut world, &second);
        delete(&mut world, "x-leader");
        if left == "x-config" {
            delete(&mut world, "x-sync");
        }
        if left == "x-sync" {
            world.annotate("x-config", &[("history", None)]);
        }
        world.restart_agent(&sleeper);
        world.node(&sleeper).agent_up = true;
        world.run_until("it leads", 60_000, |w| w.writable() == [sleeper.clone()]);
        assert_eq!(timeline(&world, &sleeper), 3, "left: {left}");
    }
}

#[test]
fn who_makes_a_lost_lock_object_anew_writes_the_number_also_while_its_server_is_down() {
    let (mut world, second, _) = promoted_unheard();
    world.failing.push((second.clone(), "StartPrimary", TaskError::Failed("no".into())));
    world.crash(&second);
    world.run(1_000);
    delete(&mut world, "x-leader");
    world.run_until("the object is back", 3_000, |w| w.annotation("x-leader", "leader").is_some());
    assert_eq!(world.annotation("x-leader", TIMELINE).as_deref(), Some("2"));
}

#[test]
fn a_history_that_a_person_made_up_keeps_nobody_from_leading() {
    for last in [4_294_967_295_u32, 2_000_000] {
        let (mut world, first, _) = world::cluster(ASYNC);
        world.annotate("x-config", &[("history", Some(&format!(r#"[[{last},100,"r"]]"#)))]);
        world.run(100);
        gone(&mut world, &first);
        world.run_until("another leads", 30_000, |w| w.writable().iter().any(|name| *name != first));
        assert_eq!(timeline(&world, &world.leader().unwrap()), 2);
    }
}
