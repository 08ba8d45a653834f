//! The operator against a small model of Kubernetes and of the agents: spec changes, faults, drains, and an operator that
//! dies between any two writes, in random order. Whatever happened, once the faults end the cluster becomes what the
//! spec says, every acknowledged commit is there, and no write on the way broke a promise (`operator.rs`).
//!
//! `MATRIARCH_MODEL_CASES` says how many random histories are tried.

#![allow(clippy::unwrap_used, clippy::panic)] // all of this is a test, which clippy does not see of helpers

mod agents;
mod operator;
mod switchovers;
mod world;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use matriarch_operator::kinds::Kind;
use matriarch_operator::next_step::Step;
use proptest::prelude::*;
use serde_json::json;

use operator::reconcile;
use world::{BAD_IMAGE, World};

/// Something that happens; both numbers are drawn.
type Event = (u8, u8);

/// What a history may contain.
const KINDS: u8 = 25;

fn happens(w: &mut World, (kind, n): Event) {
    let pods: Vec<String> = w.pods.keys().cloned().collect();
    let pod = pods.get(usize::from(n) % pods.len().max(1)).cloned();
    let spec = &mut w.cluster.spec;
    match kind % KINDS {
        0..=3 => drop(reconcile(w, None)),
        4 | 5 => drop(reconcile(w, Some(usize::from(n % 6)))),
        6 => w.controller(),
        7 | 8 => pods.iter().for_each(|p| w.kubelet(p)),
        9 => pod.iter().for_each(|p| w.kubelet(p)),
        10 | 11 => agents::round(w),
        12 => agents::commit(w),
        13 => w.now += i64::from(n) * 3,
        14 => w.collect(),
        15 => spec.instances = i32::from(n % 4) + 1,
        16 => {
            spec.image = if n % 3 == 0 { BAD_IMAGE.to_owned() } else { format!("postgres:{n}") };
        }
        17 => spec.hibernate = n % 2 == 0,
        18 => {
            let member = format!("orders-{}", n % 4);
            spec.fenced = if n % 3 == 0 { vec![member] } else { vec![] };
        }
        19 => {
            let wish = json!({"id": format!("wish-{n}"), "to": format!("orders-{}", n % 4)});
            spec.switchover = Some(serde_json::from_value(wish).unwrap());
        }
        20 => match n % 4 {
            0 => spec.paused = Some(n % 8 == 0),
            1 => {
                let size = 1 + spec.storage.size.trim_end_matches("Gi").parse::<u32>().unwrap();
                spec.storage.size = format!("{size}Gi");
            }
            2 => w.sidecar_image = format!("sidecar:{}", n % 3),
            _ => {
                let value = serde_json::from_value(json!(n)).unwrap();
                spec.postgresql.parameters.insert("max_connections".to_owned(), value);
            }
        },
        // A postmaster that dies, and is started again by its kubelet.
        21 => {
            if let Some(p) = pod.and_then(|p| w.pods.get_mut(&p)) {
                (p.up, p.ready) = (false, false);
            }
        }
        22 => {
            let node = format!("node-{}", n % 4);
            let drained = w.nodes[&node];
            w.nodes.insert(node, !drained && n % 2 == 0);
            w.evict();
        }
        23 => agents::refuse(w, (n % 2 == 0).then_some("the candidate is behind")),
        _ => lose_volume(w, pod),
    }
}

/// A volume is lost: only where the agents' promise (one fault at a time) holds.
fn lose_volume(w: &mut World, pod: Option<String>) {
    let Some(pod) = pod else { return };
    let claim = format!("data-{pod}");
    let copies = w.disks.iter().filter(|(name, lsn)| **lsn >= w.acked && **name != claim).count();
    let all_up = w.pods.values().all(|p| p.up && p.deleting.is_none());
    if copies < 2 || !all_up || w.serving().is_none_or(|l| l == pod) {
        return;
    }
    if let Some(object) = w.objects.get_mut(&(Kind::PersistentVolumeClaim, claim.clone())) {
        object["status"]["phase"] = json!("Lost");
        w.disks.remove(&claim);
        w.lost.insert(claim);
        // The node went with it: the pod is made anew and finds no volume.
        w.pods.remove(&pod);
    }
}

/// Everybody does his part in turn, until nothing changes any more.
fn settle(w: &mut World, drain: bool) -> Step {
    let mut quiet = 0;
    let mut last = Step::Stable;
    for _ in 0..150 {
        w.collect();
        w.controller();
        let pods: Vec<String> = w.pods.keys().cloned().collect();
        for pod in &pods {
            w.kubelet(pod);
        }
        agents::round(w);
        agents::commit(w);
        if drain {
            w.evict();
        }
        w.now += 20;
        let plan = reconcile(w, None);
        quiet =
            if plan.writes.is_empty() && matches!(plan.step, Step::Stable | Step::Hibernated) { quiet + 1 } else { 0 };
        last = plan.step;
        if quiet == 3 {
            break;
        }
    }
    last
}

fn heal(w: &mut World) {
    let spec = &mut w.cluster.spec;
    spec.paused = Some(false);
    spec.fenced.clear();
    if spec.image == BAD_IMAGE {
        "postgres:17".clone_into(&mut spec.image);
    }
    w.nodes.values_mut().for_each(|drained| *drained = false);
}

fn check_settled(w: &World, step: &Step) {
    let said = || serde_json::to_string_pretty(&w.cluster.status).unwrap();
    let spec = &w.cluster.spec;
    if spec.hibernate {
        assert_eq!(*step, Step::Hibernated, "{}", said());
        assert!(w.pods.is_empty());
        return;
    }
    assert_eq!(*step, Step::Stable, "stuck: {}\n{:#?}", said(), w.pods);
    assert_eq!(w.pods.len(), usize::try_from(spec.instances).unwrap(), "{}", said());
    assert!(
        w.pods.values().all(|p| p.ready && p.image == spec.image && p.agent_runs == w.sidecar_image),
        "{:#?}",
        w.pods
    );
    let leader = w.serving().unwrap();
    assert!(w.disk(&leader).unwrap() >= w.acked, "an acknowledged commit is lost");
    let runs = |name: &String| w.pods[name].runs;
    assert!(w.pods.keys().all(|name| runs(name) == w.wanted()), "a setting is not in force: {:#?}", w.pods);
    let lost = w.lost.iter().filter(|c| w.pods.contains_key(c.trim_start_matches("data-"))).count();
    assert_eq!(lost, 0, "a lost volume was not replaced");
    if let Some(wish) = &spec.switchover {
        let status = w.cluster.status.as_ref().unwrap().switchover.as_ref().unwrap();
        assert!(status.id == wish.id && status.finished_at.is_some(), "{status:?}");
    }
}

fn cases() -> u32 {
    std::env::var("MATRIARCH_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_ends_as_the_spec_says(instances in 1..=4_i32, policy in any::<bool>(), events in prop::collection::vec(any::<Event>(), 0..120)) {
        let keep = if policy { "Delete" } else { "Retain" };
        let mut w = World::new(&json!({"instances": instances, "volumePolicy": {"whenScaled": keep}}));
        settle(&mut w, false);
        for event in events {
            happens(&mut w, event);
        }
        heal(&mut w);
        let step = settle(&mut w, false);
        check_settled(&w, &step);
        w.cluster.spec.hibernate = false;
        let step = settle(&mut w, false);
        check_settled(&w, &step);
    }
}

fn running(instances: i32) -> World {
    let mut w = World::new(&json!({"instances": instances}));
    let step = settle(&mut w, false);
    check_settled(&w, &step);
    w
}

#[test]
fn a_drain_moves_the_leader_first_and_ends() {
    for instances in 1..=4 {
        for at in 0..instances {
            let mut w = running(instances);
            if instances > 1 {
                w.lock(&format!("orders-{at}"));
                settle(&mut w, false);
            }
            let leader = w.serving().unwrap();
            let node = w.pods[&leader].node.clone().unwrap();
            let uid = w.pods[&leader].uid.clone();
            w.nodes.insert(node.clone(), true);
            if instances > 1 {
                w.evict();
                assert!(w.pods[&leader].deleting.is_none(), "the leader was evicted before it handed over");
            }
            settle(&mut w, true);
            assert!(
                w.pods.values().all(|p| p.node.as_ref() != Some(&node)),
                "the drain of {node} does not end: {:#?}",
                w.pods
            );
            assert_ne!(w.pods[&leader].uid, uid);
        }
    }
}

#[test]
fn without_the_right_to_see_nodes_a_drain_ends_as_well() {
    let mut w = World::new(&json!({}));
    w.sees_nodes = false;
    settle(&mut w, false);
    let node = w.pods[&w.serving().unwrap()].node.clone().unwrap();
    w.nodes.insert(node.clone(), true);
    settle(&mut w, true);
    assert!(w.pods.values().all(|p| p.node.as_ref() != Some(&node)));
}

#[test]
fn a_bad_image_stops_the_rolling_update_at_its_first_member_and_can_be_corrected() {
    let mut w = running(3);
    w.cluster.spec.image = BAD_IMAGE.to_owned();
    let step = settle(&mut w, false);
    assert!(matches!(step, Step::Wait { reason: "MembersNotReady", .. }), "{step:?}");
    assert_eq!(w.pods.values().filter(|p| p.up).count(), 2, "it went on");
    let status = w.cluster.status.clone().unwrap();
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "UpgradeStuck"));
    assert!(stalled.message.contains("correct the spec, or put it back"), "{}", stalled.message);
    w.cluster.spec.image = "postgres:17".to_owned();
    let step = settle(&mut w, false);
    check_settled(&w, &step);
}

/// Sets `max_connections` and lets everything settle; who leads then, and the pods' uids.
fn connections(w: &mut World, count: i32) -> (String, Vec<String>) {
    w.cluster.spec.postgresql.parameters.insert("max_connections".to_owned(), IntOrString::Int(count));
    let step = settle(w, false);
    check_settled(w, &step);
    (w.serving().unwrap(), w.pods.values().map(|p| p.uid.clone()).collect())
}

#[test]
fn a_lowered_setting_restarts_the_leader_in_place_and_a_raised_one_moves_it() {
    for instances in 1..=4 {
        let mut w = running(instances);
        let pods: Vec<String> = w.pods.values().map(|p| p.uid.clone()).collect();
        let first = w.serving().unwrap();
        assert_eq!(connections(&mut w, 60), (first.clone(), pods.clone()), "lowered");
        let (second, same) = connections(&mut w, 90);
        assert_eq!((second != first, same), (instances > 1, pods.clone()), "raised");
        assert_eq!(connections(&mut w, 80), (second, pods), "lowered again");
    }
}

#[test]
fn where_agents_cannot_be_reached_a_raised_setting_takes_new_pods_and_a_lowered_one_waits() {
    let mut w = running(3);
    w.agents_hidden = true;
    let leader = w.serving().unwrap();
    let before: Vec<String> = w.pods.iter().filter(|(n, _)| **n != leader).map(|(_, p)| p.uid.clone()).collect();
    let (second, after) = connections(&mut w, 130);
    assert_ne!(second, leader);
    assert!(before.iter().all(|uid| !after.contains(uid)), "{before:?} {after:?}");
    w.cluster.spec.postgresql.parameters.insert("max_connections".to_owned(), IntOrString::Int(70));
    let step = settle(&mut w, false);
    assert!(matches!(&step, Step::Restart { pod, .. } if *pod == w.serving().unwrap()), "{step:?}");
    assert!(w.pods.values().all(|p| p.runs == 130 && after.contains(&p.uid)), "{:#?}", w.pods);
    w.agents_hidden = false;
    let step = settle(&mut w, false);
    check_settled(&w, &step);
}

#[test]
fn a_cluster_that_was_made_smaller_in_its_sleep_wakes_with_its_leader() {
    let mut w = running(3);
    w.lock("orders-2");
    settle(&mut w, false);
    w.cluster.spec.hibernate = true;
    assert_eq!(settle(&mut w, false), Step::Hibernated);
    assert!(w.objects.keys().all(|(kind, _)| *kind != Kind::PodDisruptionBudget));
    // The last commits reached the leader and orders-1 only.
    w.disks.insert("data-orders-0".to_owned(), 1);
    w.cluster.spec.instances = 1;
    w.cluster.spec.hibernate = false;
    let step = settle(&mut w, false);
    check_settled(&w, &step);
}

#[test]
fn a_switchover_by_field_acts_once_for_each_id() {
    let mut w = running(3);
    let wish = |w: &mut World, id: &str, to: &str| {
        w.cluster.spec.switchover = Some(serde_json::from_value(json!({"id": id, "to": to})).unwrap());
        settle(w, false);
        let said = w.cluster.status.as_ref().unwrap().switchover.clone().unwrap();
        (format!("{:?}", said.state), said.message.unwrap())
    };
    assert_eq!(wish(&mut w, "a", "orders-2").0, "Done");
    assert_eq!(w.serving().unwrap(), "orders-2");
    w.lock("orders-0");
    settle(&mut w, false);
    assert_eq!(w.serving().unwrap(), "orders-0", "the same id acted twice");
    let (state, why) = wish(&mut w, "b", "orders-3");
    assert_eq!(state, "Failed");
    assert!(why.contains("there is no member orders-3 (there are orders-0, orders-1, orders-2)"), "{why}");
    assert!(wish(&mut w, "c", "orders-0").1.contains("leads already"));
    // An operator that dies right after it asked finds its request again.
    w.cluster.spec.switchover = Some(serde_json::from_value(json!({"id": "d", "to": "orders-1"})).unwrap());
    let plan = reconcile(&mut w, Some(1));
    assert!(matches!(plan.step, Step::Switchover { .. }));
    settle(&mut w, false);
    assert_eq!((w.serving().unwrap().as_str(), wish(&mut w, "d", "orders-1").0.as_str()), ("orders-1", "Done"));
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    for spec in [
        json!({}),
        json!({"instances": 1}),
        json!({"storeMode": "ConfigMaps", "walStorage": {"size": "1Gi"}, "volumePolicy": {"whenDeleted": "Delete"}}),
        json!({"standbyOf": {"host": "elsewhere"}, "fenced": ["orders-2"], "postgresql": {"parameters": {"work_mem": "8MB"}, "pgIdent": ["a b c"]}}),
        json!({"roles": [{"name": "r"}], "databases": [{"name": "d", "owner": "r"}], "services": {"primary": {"type": "LoadBalancer"}}}),
        json!({"pod": {"labels": {"team": "a"}, "env": [{"name": "A", "value": "b"}], "containers": [{"name": "c", "image": "d"}]}, "priorityClassName": "high"}),
    ] {
        let mut w = World::new(&spec);
        settle(&mut w, false);
        let before = w.objects.clone();
        for _ in 0..20 {
            w.now += 60;
            assert_eq!(reconcile(&mut w, None).writes, [], "{spec}");
        }
        assert_eq!(before, w.objects);
    }
}
