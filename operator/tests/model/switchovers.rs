//! What the operator makes of its requests for a switchover: done, failed or pending, by what it sees and not by the clock.

use matriarch_operator::next_step::Step;
use serde_json::json;

use crate::operator::reconcile;
use crate::world::World;
use crate::{agents, running, settle};

/// As [`settle`], a second at a time: how many seconds it took, and how many switchovers were asked for.
fn seconds_until_stable(w: &mut World) -> (i64, usize) {
    let begin = w.now;
    let mut asked = 0;
    while w.now < begin + 600 {
        w.collect();
        w.controller();
        let pods: Vec<String> = w.pods.keys().cloned().collect();
        for pod in &pods {
            w.kubelet(pod);
        }
        agents::round(w);
        w.now += 1;
        let plan = reconcile(w, None);
        asked += usize::from(matches!(plan.step, Step::Switchover { .. }));
        if plan.step == Step::Stable {
            return (w.now - begin, asked);
        }
    }
    panic!("not stable after ten minutes: {:?}", w.cluster.status);
}

#[test]
fn after_a_switchover_that_is_done_the_next_is_asked_for_at_once() {
    let mut w = running(3);
    w.lock("orders-2");
    settle(&mut w, false);
    w.cluster.spec.instances = 2;
    let (first, asked) = seconds_until_stable(&mut w);
    assert_eq!((w.serving().as_deref(), asked), (Some("orders-0"), 1));
    w.cluster.spec.image = "postgres:19".to_owned();
    let (second, asked) = seconds_until_stable(&mut w);
    assert_eq!((w.serving().as_deref(), asked), (Some("orders-1"), 1));
    assert!(first + second < 30, "{first} s and {second} s");
}

#[test]
fn a_refused_switchover_is_asked_for_again_a_few_seconds_later() {
    for why in [Some("the candidate is behind"), None] {
        let mut w = running(3);
        let node = w.pods[&w.serving().unwrap()].node.clone().unwrap();
        w.nodes.insert(node, true);
        let asks = |w: &mut World| matches!(reconcile(w, None).step, Step::Switchover { .. });
        assert!(asks(&mut w), "{:?}", w.cluster.status);
        assert!(!asks(&mut w), "nobody has acted on it");
        agents::refuse(&mut w, why);
        let begin = w.now;
        while !asks(&mut w) && w.now < begin + 60 {
            w.now += 1;
        }
        assert_eq!(w.now - begin, 10, "{why:?}");
    }
}

#[test]
fn a_drain_while_members_are_removed_moves_the_leader_once() {
    let mut w = running(3);
    w.lock("orders-2");
    settle(&mut w, false);
    let node = w.pods["orders-0"].node.clone().unwrap();
    w.nodes.insert(node, true);
    w.cluster.spec.instances = 1;
    let mut asked = 0;
    for _ in 0..60 {
        w.now += 1;
        asked += usize::from(matches!(reconcile(&mut w, None).step, Step::Switchover { .. }));
        agents::round(&mut w);
        if w.now % 10 == 0 {
            w.controller();
        }
    }
    assert_eq!((asked, w.serving().as_deref()), (1, Some("orders-0")));
}

#[test]
fn a_switchover_by_field_that_was_taken_back_has_failed_at_once() {
    for why in [Some("the candidate is behind"), None] {
        let mut w = running(3);
        w.cluster.spec.switchover = Some(serde_json::from_value(json!({"id": "a", "to": "orders-2"})).unwrap());
        assert!(matches!(reconcile(&mut w, None).step, Step::Switchover { .. }));
        agents::refuse(&mut w, why);
        reconcile(&mut w, None);
        let said = w.cluster.status.as_ref().unwrap().switchover.clone().unwrap();
        let expected = why.unwrap_or("orders-0 leads on");
        assert!(said.finished_at.is_some() && said.message.as_ref().unwrap().contains(expected), "{said:?}");
    }
}
