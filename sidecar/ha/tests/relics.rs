//! What an agent finds that is older than it looks: a lock record, a cache that no watch renews, the permit of an agent before it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::effect::Reply;
use matriarch_ha::event::{Kind, Request};
use matriarch_ha::lease;
use world::{ASYNC, QUORUM, World, settled};

const PLAIN: &str = r#"{"ttl":10,"loop_wait":2,"retry_timeout":3}"#;
const LONG: &str = r#"{"ttl":30,"loop_wait":2,"retry_timeout":3}"#;

fn cluster(config: &str) -> (World, String, String, String) {
    let (world, leader, one) = world::cluster(config);
    let other = world.nodes.keys().find(|n| **n != leader && **n != one).unwrap().clone();
    (world, leader, one, other)
}

/// The voter has ended its stream from a leader that goes on all the same: its clock stands still.
fn voted() -> (World, String, String) {
    let (mut world, leader, voter, candidate) = cluster(QUORUM);
    world.lawless = true;
    world.node(&leader).agent_up = false;
    world.node(&leader).db.permit = None;
    world.node(&candidate).agent_up = false;
    world.run(11_000);
    world.request(&voter, 77, Request::Election { candidate });
    world.run_until("the vote", 2_000, |w| w.replies.contains_key(&77));
    let Some(Reply::Position(vote)) = world.replies.get(&77) else { panic!("{:?}", world.replies.get(&77)) };
    assert!(vote.stream_ended && vote.free, "{vote:?}");
    assert!(world.writable().contains(&leader));
    (world, leader, voter)
}

fn receives_nothing(world: &mut World, voter: &str, ms: u64) {
    let end = world.node(voter).db.data.as_ref().unwrap().lsn;
    for _ in 0..ms {
        world.run(1);
        assert_eq!(world.nodes[voter].db.config.upstream, None, "{:?}", world.nodes[voter].verdicts.last());
    }
    assert_eq!(world.node(voter).db.data.as_ref().unwrap().lsn, end);
}

#[test]
fn a_vote_outlives_the_agent_that_gave_it() {
    let (mut world, leader, voter) = voted();
    world.restart_agent(&voter);
    receives_nothing(&mut world, &voter, 9_000);
    let rule = world.node(&voter).verdicts.last().unwrap().1.clone();
    assert_eq!(rule, "follower.unconfirmed");
    // It gives a sign of life: nobody else has the lock.
    world.node(&leader).agent_up = true;
    world.run_until("streams from whom leads", 30_000, |w| {
        let leader = w.leader();
        leader.is_some() && w.node(&voter).db.config.upstream.as_ref().map(|u| u.member.clone()) == leader
    });
}

#[test]
fn a_vote_outlives_the_server_that_gave_it() {
    let (mut world, _, voter) = voted();
    world.crash(&voter);
    world.run(1);
    world.restart_agent(&voter);
    world.run_until("it runs", 3_000, |w| w.node(&voter).db.running);
    receives_nothing(&mut world, &voter, 6_000);
}

#[test]
fn a_standby_whose_agent_starts_anew_streams_on() {
    let (mut world, _, other, _) = cluster(QUORUM);
    world.restart_agent(&other);
    for _ in 0..8_000 {
        world.run(1);
        assert!(world.node(&other).db.config.upstream.is_some());
    }
    world.crash(&other);
    world.restart_agent(&other);
    // One renewal is waited for.
    let streams = |w: &mut World| w.node(&other).db.running && w.node(&other).db.config.upstream.is_some();
    world.run_until("streams again", 2_500, streams);
}

/// Quorum was switched on and in force, which a candidate did not hear of; the one who has the commits is silent.
#[test]
fn one_that_has_not_heard_of_the_quorum_is_not_promoted_without_it() {
    let (mut world, leader, deaf, voter) = cluster(PLAIN);
    let renewed = world.annotation("x-leader", "renewTime");
    world.run_until("a renewal", 3_000, |w| w.annotation("x-leader", "renewTime") != renewed);
    world.run(10);
    world.node(&deaf).watching.remove(&Kind::Lock);
    world.annotate("x-config", &[("config", Some(QUORUM))]);
    world.run_until("quorum", 1_500, |w| w.annotation("x-sync", "quorum").is_some_and(|q| q == "1"));
    world.node(&leader).agent_up = false;
    world.unheard.insert(voter.clone());
    world.cut(&voter);
    world.run(30_000);
    assert!(world.writable().is_empty(), "{:?}", world.node(&deaf).verdicts);
    assert_eq!(world.annotation("x-sync", "leader"), Some(leader), "nobody else had the votes");
    world.unheard.clear();
    world.cut_off.clear();
    world.run_until("a leader with the votes", 30_000, |w| !w.writable().is_empty());
    assert_eq!(world.annotation("x-sync", "leader"), world.leader());
}

#[test]
fn a_shortened_ttl_covers_what_an_agent_before_was_given() {
    let (mut world, leader, _, _) = cluster(LONG);
    world.annotate("x-config", &[("config", Some(PLAIN))]);
    world.restart_agent(&leader);
    let permit = world.node(&leader).db.permit.unwrap();
    let before = world.annotation("x-leader", "renewTime");
    world.run_until("a renewal", 3_000, |w| w.annotation("x-leader", "renewTime") != before);
    let ttl_ms = world.annotation("x-leader", "ttl").unwrap().parse::<u64>().unwrap() * 1000;
    assert!(lease::deadline(world.now, ttl_ms) >= permit, "others count {ttl_ms} ms");
    world.run(30_000);
    assert_eq!(world.annotation("x-leader", "ttl").as_deref(), Some("10"));
}

#[test]
fn failsafe_asks_whom_a_write_without_answer_may_have_named() {
    let mut world = World::new(&["x-0", "x-1"], ASYNC);
    world.run_until("bootstrap", 10_000, settled);
    world.run(6_000);
    let leader = world.leader().unwrap();
    world.add("x-2");
    world.unheard.insert("x-2".into());
    world.node(&leader).watching.remove(&Kind::Lock);
    world.unanswered.insert(leader.clone());
    let named = |w: &mut World| w.annotation("x-leader", "failsafe").is_some_and(|f| f.contains("x-2"));
    world.run_until("the topology is stored", 5_000, named);
    world.cut(&leader);
    // x-1 agrees. x-2 is in the topology, and would lead when its ttl is over.
    world.lawless = true;
    world.run_until("the old leader is fenced", 12_000, |w| !w.writable().contains(&leader));
}
