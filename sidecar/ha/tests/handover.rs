//! Switchovers and failovers that a person orders: scheduled, taken back, with and without a leader.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::Request;
use matriarch_ha::types::Wall;
use world::{ASYNC, QUORUM, World, cluster, settled};

fn switch(leader: Option<&str>, candidate: Option<&str>, scheduled_at: Option<Wall>) -> Request {
    Request::Switchover { leader: leader.map(str::to_owned), candidate: candidate.map(str::to_owned), scheduled_at }
}

fn in_s(world: &World, seconds: i64) -> Wall {
    Wall(world.wall().0 + seconds * 1_000_000)
}

#[test]
fn a_scheduled_switchover_is_done_when_it_is_due() {
    for config in [ASYNC, QUORUM] {
        let (mut world, leader, other) = cluster(config);
        let at = in_s(&world, 30);
        world.request(&other, 7, switch(Some(&leader), Some(&other), Some(at)));
        world.run(1_000);
        assert_eq!(world.reply(7), Some((202, "Switchover scheduled".into())));
        world.run(28_000);
        assert_eq!(world.writable(), [leader.clone()], "not before its time");
        let ms = world.run_until("candidate leads", 3_000, |w| w.writable() == [other.clone()]);
        assert!(ms < 1_600, "{ms} ms");
        world.run_until("old leader follows", 10_000, settled);
        world.run(3_000);
        assert_eq!(world.annotation("x-failover", "member"), None, "the request is cleared");
    }
}

#[test]
fn a_scheduled_switchover_can_be_taken_back() {
    let (mut world, leader, other) = cluster(ASYNC);
    world.request(&other, 6, Request::CancelSwitchover);
    world.run(100);
    assert_eq!(world.reply(6), Some((404, "no switchover is scheduled".into())));
    let at = in_s(&world, 10);
    world.request(&other, 7, switch(Some(&leader), None, Some(at)));
    world.run(1_000);
    world.request(&other, 8, Request::CancelSwitchover);
    world.run(20_000);
    assert_eq!(world.reply(8), Some((200, "scheduled switchover deleted".into())));
    assert_eq!(world.writable(), [leader]);
}

#[test]
fn a_switchover_that_was_missed_is_cleared_with_the_reason() {
    let (mut world, leader, other) = cluster(ASYNC);
    let late = in_s(&world, -60).to_string();
    world.annotate("x-failover", &[("leader", Some(&leader)), ("member", Some(&other)), ("scheduled_at", Some(&late))]);
    world.run(5_000);
    assert_eq!(world.writable(), [leader]);
    assert_eq!(world.annotation("x-failover", "member"), None);
    assert!(world.annotation("x-failover", "matriarch.dev/result").unwrap().contains("missed"));
}

#[test]
fn a_schedule_for_a_leader_that_leads_no_more_is_cleared() {
    let (mut world, leader, other) = cluster(ASYNC);
    let at = in_s(&world, 3_600);
    world.request(&other, 7, switch(Some(&leader), Some(&leader.replace(&leader, "x-9")), Some(at)));
    world.run(1_000);
    world.node(&leader).agent_up = false;
    world.run_until("a new leader", 14_000, |w| w.writable().first().is_some_and(|p| *p != leader));
    world.run(3_000);
    assert_eq!(world.annotation("x-failover", "scheduled_at"), None);
}

#[test]
fn a_failover_by_hand_chooses_though_others_are_ahead() {
    let (mut world, leader, other) = cluster(ASYNC);
    let third = world.nodes.keys().find(|n| **n != leader && **n != other).unwrap().clone();
    // The chosen one is far behind: it would never lead by itself.
    world.node(&other).db.config.upstream = None;
    world.node(&other).db.stuck = true;
    world.node(&other).db.data.as_mut().unwrap().lsn -= 1_000;
    world.node(&third).agent_up = false;
    world.run(2_000);
    world.node(&leader).agent_up = false;
    world.run(500);
    world.annotate("x-failover", &[("member", Some(&other))]);
    world.node(&third).agent_up = true;
    let ms = world.run_until("the chosen one leads", 14_000, |w| w.writable().first() == Some(&other));
    assert!(ms < 13_000, "{ms} ms");
}

#[test]
fn without_a_choice_the_one_ahead_leads() {
    let (mut world, leader, other) = cluster(ASYNC);
    let third = world.nodes.keys().find(|n| **n != leader && **n != other).unwrap().clone();
    world.node(&other).db.stuck = true;
    world.node(&other).db.data.as_mut().unwrap().lsn -= 1_000;
    world.node(&leader).agent_up = false;
    world.run_until("the one ahead leads", 14_000, |w| w.writable().first() == Some(&third));
}

#[test]
fn a_failover_names_its_candidate_or_is_refused() {
    let (mut world, leader, other) = cluster(ASYNC);
    world.request(&other, 5, switch(None, None, None));
    world.request(&other, 6, switch(None, Some("x-9"), None));
    world.run(200);
    assert_eq!(world.reply(5).unwrap().0, 400);
    assert_eq!(world.reply(6), Some((412, "candidate does not exists".into())));
    world.request(&other, 7, switch(None, Some(&other), None));
    world.run_until("candidate leads", 3_000, |w| w.writable() == [other.clone()]);
    world.run(3_000);
    assert_eq!(world.reply(7), Some((200, format!("Successfully failed over to \"{other}\""))));
    world.run_until("old leader follows", 10_000, settled);
    assert_ne!(world.leader(), Some(leader));
}

#[test]
fn members_on_an_old_timeline_do_not_lead_where_that_is_asked_for() {
    let config =
        r#"{"ttl":10,"loop_wait":2,"retry_timeout":3,"check_timeline":true,"maximum_lag_on_failover":1000000000}"#;
    let (mut world, leader, _) = cluster(config);
    world.annotate("x-config", &[("history", Some(r#"[[1,5,"x"],[2,6,"y"]]"#))]);
    world.node(&leader).agent_up = false;
    world.run(30_000);
    assert!(world.writable().is_empty(), "all are on timeline 1, the cluster is on 3");
}

#[test]
fn candidates_that_do_not_answer_are_found_out_before_anything_is_written() {
    let (mut world, leader, other) = cluster(ASYNC);
    let third = world.nodes.keys().find(|n| **n != leader && **n != other).unwrap().clone();
    world.unheard.insert(other.clone());
    world.request(&leader, 1, switch(Some(&leader), Some(&other), None));
    world.request(&third, 2, switch(None, Some(&other), None));
    world.run(3_000);
    let refused = |action: &str| Some((412, format!("{action} is not possible: no good candidates have been found")));
    assert_eq!(world.reply(1), refused("switchover"));
    assert_eq!(world.reply(2), refused("failover"));
    assert_eq!(world.annotation("x-failover", "member"), None, "nothing was written");
    assert_eq!(world.writable(), [leader.clone()]);
    // One good candidate is enough.
    world.request(&leader, 3, switch(Some(&leader), None, None));
    world.run_until("answered", 10_000, |w| w.reply(3).is_some());
    let (code, text) = world.reply(3).unwrap();
    assert!(code == 200 && text.starts_with("Successfully switched over to"), "{code} {text}");
}
