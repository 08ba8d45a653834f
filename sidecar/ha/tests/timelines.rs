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

/// Nobody reserves a number further ahead of its server.
const FAR: u32 = matriarch_ha::core::timelines::PLAUSIBLE;

/// The first leader is lost, and another one leads: on which timeline.
fn after_its_loss(world: &mut World, first: &str) -> u32 {
    gone(world, first);
    world.run_until("another leads", 30_000, |w| w.writable().iter().any(|name| name != first));
    timeline(world, &world.leader().unwrap())
}

/// Each of the two that are left has said it once.
fn told_once(world: &World, words: &str) {
    let told: Vec<_> = world.disbelieved.iter().filter(|(_, why)| why.contains(words)).collect();
    let names: std::collections::BTreeSet<_> = told.iter().map(|(name, _)| name).collect();
    assert!(names.len() >= 2 && told.len() == names.len(), "{words}: {:?}", world.disbelieved);
}

#[test]
fn a_history_that_a_person_made_up_keeps_nobody_from_leading() {
    for last in [4_294_967_295_u32, 2_000_000] {
        for check_timeline in [false, true] {
            let config = world::config(serde_json::json!({"check_timeline": check_timeline}));
            let (mut world, first, _) = world::cluster(&config);
            world.annotate("x-config", &[("history", Some(&format!(r#"[[{last},100,"r"]]"#)))]);
            world.run(100);
            told_once(&world, "in the history in x-config is ignored: this server has been on 1");
            assert_eq!(after_its_loss(&mut world, &first), 2);
        }
    }
}

#[test]
fn a_number_that_nobody_can_have_reserved_is_not_obeyed() {
    for number in ["4294967295", "4294967294", "2000000", "10002"] {
        for object in ["x-leader", "x-sync"] {
            let (mut world, first, _) = world::cluster(ASYNC);
            world.annotate(object, &[(TIMELINE, Some(number))]);
            world.run(100);
            told_once(&world, &format!("timeline {number} in the "));
            assert_eq!(after_its_loss(&mut world, &first), 2, "{number} in {object}");
            world.run(6_000);
            assert_eq!(world.annotation(object, TIMELINE).as_deref(), Some("2"), "{number} in {object}");
        }
    }
}

#[test]
fn what_a_pod_says_is_not_obeyed_either_and_hides_nothing() {
    for number in ["4294967295", "1000000000000", "2000000"] {
        let (mut world, second, sleeper) = promoted_unheard();
        let status = world.nodes.keys().find(|name| ![&second, &sleeper].contains(name)).unwrap().clone();
        gone(&mut world, &second);
        for object in ["x-leader", "x-sync"] {
            delete(&mut world, object);
        }
        world.annotate("x-config", &[("history", None)]);
        // Nothing but the pod of the second leader says that there is a timeline 2.
        for (pod, timeline) in [(&second, "2"), (&status, number)] {
            let status = format!(r#"{{"state":"stopped","role":"replica","timeline":{timeline},"matriarch":{{}}}}"#);
            world.store(Kind::Pod, pod, |pod| drop(pod.annotations.insert("status".into(), status)));
        }
        world.restart_agent(&sleeper);
        world.node(&sleeper).agent_up = true;
        world.run_until("it leads", 60_000, |w| w.writable() == [sleeper.clone()]);
        assert_eq!(timeline(&world, &sleeper), 3, "{number}");
        assert!(world.disbelieved.iter().any(|(_, why)| why.contains(&format!("status of pod {status} is ignored"))));
    }
}

#[test]
fn a_number_that_is_overwritten_with_nonsense_is_remembered() {
    let (mut world, second, sleeper) = promoted_unheard();
    gone(&mut world, &second);
    world.restart_agent(&sleeper);
    world.node(&sleeper).agent_up = true;
    // It has looked at the lock, which is not free yet.
    world.run(500);
    world.annotate("x-leader", &[(TIMELINE, Some("4294967295")), ("failsafe", None)]);
    delete(&mut world, "x-sync");
    world.annotate("x-config", &[("history", None)]);
    world.run_until("it leads", 60_000, |w| w.writable() == [sleeper.clone()]);
    assert_eq!(timeline(&world, &sleeper), 3);
}

#[test]
fn a_number_that_becomes_nonsense_before_the_promotion_is_not_obeyed() {
    let (mut world, first, _) = world::cluster(ASYNC);
    gone(&mut world, &first);
    let other = |w: &mut World| w.annotation("x-leader", "leader").is_some_and(|leader| leader != first);
    world.run_until("another has the lock", 30_000, other);
    assert_eq!(world.annotation("x-leader", TIMELINE).as_deref(), Some("2"));
    assert!(world.writable().iter().all(|name| *name == first));
    world.annotate("x-leader", &[(TIMELINE, Some("4294967295"))]);
    world.run_until("another leads", 30_000, |w| w.writable().iter().any(|name| *name != first));
    let made = timeline(&world, &world.leader().unwrap());
    assert!(made == 2 || made == 3, "{made}");
}

#[test]
fn the_last_number_that_is_believed_is_used_and_none_beyond_it() {
    let reserved = |number: u32| {
        let (mut world, first, _) = world::cluster(ASYNC);
        world.annotate("x-sync", &[(TIMELINE, Some(&number.to_string()))]);
        world.run(100);
        (world, first)
    };
    let (mut world, first) = reserved(FAR);
    assert_eq!(after_its_loss(&mut world, &first), FAR + 1);

    let (mut world, first) = reserved(FAR + 1);
    told_once(&world, "When no member, of those that are down too, is on one of them, remove the annotation");
    gone(&mut world, &first);
    let version = |w: &World| w.objects[&(Kind::Lock, "x-leader".into())].resource_version.parse::<u64>().unwrap();
    world.run(30_000);
    let before = version(&world);
    world.run(30_000);
    assert!(world.writable().iter().all(|name| *name == first), "{:?}", world.writable());
    // All versions of all objects: renewals and little else.
    assert!(version(&world) - before < 60, "{before} to {}", version(&world));
}
