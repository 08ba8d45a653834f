//! The life of a cluster, as the core lives it: bootstrap, failures, switchover, outages. Two writable primaries fail any test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::{Event, Kind, Request};
use world::{ASYNC, QUORUM, World, settled};

fn bootstrapped(config: &str) -> (World, String) {
    let mut world = World::new(&["x-0", "x-1", "x-2"], config);
    world.run_until("bootstrap", 10_000, settled);
    if config == QUORUM {
        world.run_until("steady quorum", 10_000, |w| {
            w.annotation("x-sync", "quorum").as_deref() == Some("1") && {
                let leader = w.leader().unwrap();
                w.node(&leader).db.config.sync_names.starts_with("ANY 1")
                    && w.annotation("x-sync", "sync_standby").is_some_and(|s| s.split(',').count() == 2)
            }
        });
    }
    world.run(3_000);
    let leader = world.leader().unwrap();
    (world, leader)
}

#[test]
fn three_members_bootstrap_and_agree() {
    for config in [ASYNC, QUORUM] {
        let (world, _) = bootstrapped(config);
        assert_eq!(world.annotation("x-config", "initialize").as_deref(), Some(world::SYSTEM));
    }
}

#[test]
fn an_idle_cluster_writes_one_renewal_per_loop() {
    let (mut world, _) = bootstrapped(QUORUM);
    let version = |w: &World| w.objects.values().map(|o| o.resource_version.parse::<u64>().unwrap()).max().unwrap();
    let before = version(&world);
    world.run(60_000);
    let writes = version(&world) - before;
    assert!((28..=32).contains(&writes), "{writes} writes in a minute");
}

#[test]
fn a_crashed_postmaster_is_started_in_place() {
    let (mut world, leader) = bootstrapped(QUORUM);
    world.crash(&leader);
    let ms = world.run_until("back in place", 5_000, |w| w.writable() == [leader.clone()]);
    assert!(ms < 300, "{ms} ms");
    assert_eq!(world.node(&leader).db.data.as_ref().unwrap().timeline, 1);
}

#[test]
fn a_dead_agent_is_fenced_before_another_leads() {
    for config in [ASYNC, QUORUM] {
        let (mut world, leader) = bootstrapped(config);
        world.node(&leader).agent_up = false;
        let old = leader.clone();
        let ms = world.run_until("a new leader", 14_000, |w| w.writable().first().is_some_and(|p| *p != old));
        assert!(ms < 12_000, "{ms} ms");
        // The agent comes back to life and finds another leader: its member rejoins.
        world.node(&leader).agent_up = true;
        world.run_until("rejoined", 20_000, settled);
    }
}

#[test]
fn a_switchover_goes_to_the_candidate() {
    let (mut world, leader) = bootstrapped(QUORUM);
    let candidate = world.nodes.keys().find(|n| **n != leader).unwrap().clone();
    let request =
        Request::Switchover { leader: Some(leader.clone()), candidate: Some(candidate.clone()), scheduled_at: None };
    world.push(&leader, 0, Event::Request { id: 7, request });
    let ms = world.run_until("candidate leads", 5_000, |w| w.writable() == [candidate.clone()]);
    assert!(ms < 400, "{ms} ms");
    world.run_until("old leader follows", 10_000, settled);
    world.run(3_000);
    assert!(format!("{:?}", world.replies[&7]).contains("Successfully switched over"), "{:?}", world.replies);
    assert_eq!(world.annotation("x-failover", "member"), None, "the request is cleared");
}

#[test]
fn a_switchover_to_nobody_is_refused_with_the_reason() {
    let (mut world, leader) = bootstrapped(ASYNC);
    let request =
        Request::Switchover { leader: Some(leader.clone()), candidate: Some("x-9".into()), scheduled_at: None };
    world.push(&leader, 0, Event::Request { id: 7, request });
    world.run(100);
    assert!(format!("{:?}", world.replies[&7]).contains("candidate does not exists"));
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn a_terminating_leader_hands_over() {
    for config in [ASYNC, QUORUM] {
        let (mut world, leader) = bootstrapped(config);
        world.push(&leader, 0, Event::Terminating);
        let old = leader.clone();
        let ms = world.run_until("a new leader", 5_000, |w| w.writable().first().is_some_and(|p| *p != old));
        assert!(ms < 500, "{ms} ms");
        assert!(world.node(&leader).finished);
    }
}

/// SIGTERM was lost, or a new agent begins in a pod that ends: what the store says of the pod is enough.
#[test]
fn a_deleted_leader_hands_over_though_its_supervisor_was_not_told() {
    for starts in [false, true] {
        let (mut world, leader) = bootstrapped(QUORUM);
        world.node(&leader).agent_up = !starts;
        world.store(Kind::Pod, &leader, |pod| pod.deleting = true);
        if starts {
            world.run(100);
            world.restart_agent(&leader);
            world.node(&leader).agent_up = true;
        }
        let old = leader.clone();
        let ms = world.run_until("a new leader", 5_000, |w| w.writable().first().is_some_and(|p| *p != old));
        assert!(ms < 1_000, "{ms} ms");
        world.run(20_000);
        assert!(!world.nodes[&leader].db.running && !world.nodes[&leader].finished);
        assert_eq!(world.nodes[&leader].verdicts.last().unwrap().1, "terminating.wait");
        world.push(&leader, 0, Event::Terminating);
        world.run(100);
        assert!(world.nodes[&leader].finished, "nothing is left to wait for");
    }
}

#[test]
fn the_primary_goes_on_while_the_api_server_is_away_and_all_agree() {
    let (mut world, leader) = bootstrapped(QUORUM);
    world.api_down();
    for _ in 0..30 {
        world.run(1_000);
        assert_eq!(world.writable(), std::slice::from_ref(&leader));
    }
    world.api_up = true;
    world.run(20_000);
    assert_eq!(world.writable(), [leader]);
}

#[test]
fn the_primary_is_fenced_when_a_member_is_missing_in_an_outage() {
    let (mut world, leader) = bootstrapped(QUORUM);
    let other = world.nodes.keys().find(|n| **n != leader).unwrap().clone();
    world.node(&other).agent_up = false;
    world.api_down();
    world.run(11_000);
    assert!(world.writable().is_empty());
    world.api_up = true;
    world.run_until("a leader again", 20_000, |w| w.writable().len() == 1);
}

#[test]
fn a_candidate_without_votes_never_leads_in_quorum() {
    let (mut world, leader) = bootstrapped(QUORUM);
    let others: Vec<String> = world.nodes.keys().filter(|n| **n != leader).cloned().collect();
    world.node(&leader).agent_up = false;
    world.node(&others[0]).agent_up = false;
    world.run(30_000);
    assert!(world.writable().is_empty());
    world.node(&others[0]).agent_up = true;
    world.run_until("two of three elect", 20_000, |w| w.writable().len() == 1);
}

#[test]
fn all_members_stopped_at_once_come_back() {
    for config in [ASYNC, QUORUM] {
        let (mut world, _) = bootstrapped(config);
        for name in ["x-0", "x-1", "x-2"] {
            world.crash(name);
        }
        world.run_until("all back", 30_000, settled);
    }
}

#[test]
fn a_wiped_lock_object_does_not_move_the_lead() {
    let (mut world, leader) = bootstrapped(QUORUM);
    let object = world.objects.remove(&(Kind::Lock, "x-leader".into())).unwrap();
    for name in ["x-0", "x-1", "x-2"] {
        world.push(name, 1, Event::Store(matriarch_ha::event::StoreEvent::Deleted(Kind::Lock, object.clone())));
    }
    world.run(30_000);
    assert_eq!(world.leader(), Some(leader.clone()));
    let anew = &world.objects[&(Kind::Lock, "x-leader".into())];
    assert_eq!(anew.owners, object.owners, "it must not outlive its cluster");
    assert_eq!(world.writable(), [leader]);
}

/// Settings stay in force, the object comes back as it was, and only one member ever makes a cluster.
#[test]
fn a_refused_write_of_sync_is_tried_again_at_leisure() {
    let (mut world, _, _) = world::cluster(world::QUORUM);
    // The cluster is being deleted: its objects and the rights to make them go before its pods.
    world.forbidden.insert("x-sync".to_owned(), 0);
    let object = world.objects.remove(&(Kind::Lock, "x-sync".into())).unwrap();
    for name in ["x-0", "x-1", "x-2"] {
        world.push(name, 1, Event::Store(matriarch_ha::event::StoreEvent::Deleted(Kind::Lock, object.clone())));
    }
    world.run(2_000);
    let tries = world.forbidden["x-sync"];
    assert!((1..=12).contains(&tries), "{tries} writes in two seconds");
}

/// Who claims `-sync` may have won the lock: its holder hears of that later where its clock stood still.
#[test]
fn a_leader_takes_the_votes_back_only_when_a_renewal_shows_that_it_leads() {
    let (mut world, leader, other) = world::cluster(world::QUORUM);
    world.forbidden.insert("x-leader".to_owned(), 0);
    world.annotate("x-sync", &[("leader", Some(&other))]);
    world.run(4_000);
    assert_eq!(world.annotation("x-sync", "leader"), Some(other));
    world.forbidden.clear();
    world.run_until("it is the leader's", 6_000, |w| w.annotation("x-sync", "leader").as_ref() == Some(&leader));
    assert_eq!(world.writable(), [leader]);
}

#[test]
fn a_refused_write_of_failover_is_tried_again_at_leisure() {
    let (mut world, leader, _) = world::cluster(world::QUORUM);
    world.forbidden.insert("x-failover".to_owned(), 0);
    // Who is asked for leads already: to be cleared.
    world
        .store(Kind::Lock, "x-failover", |object| drop(object.annotations.insert("member".to_owned(), leader.clone())));
    world.run(2_000);
    let tries = world.forbidden["x-failover"];
    assert!((1..=12).contains(&tries), "{tries} writes in two seconds");
    world.forbidden.clear();
    let cleared = |w: &mut World| w.annotation("x-failover", "member").is_none();
    world.run_until("it is cleared as soon as it may be", 500, cleared);
}

#[test]
fn a_refused_write_of_history_is_tried_again_at_leisure() {
    let (mut world, _, _) = world::cluster(world::QUORUM);
    world.forbidden.insert("x-config".to_owned(), 0);
    // Of another cluster, which had the name before: there is no history on timeline 1.
    let of_another = r#"[[1, 1000, "no recovery target specified", "2026-01-01T00:00:00+00:00", "x-9"]]"#;
    world.store(Kind::Lock, "x-config", |o| drop(o.annotations.insert("history".to_owned(), of_another.to_owned())));
    world.run(2_000);
    let tries = world.forbidden["x-config"];
    assert!((1..=12).contains(&tries), "{tries} writes in two seconds");
}

#[test]
fn a_wiped_config_is_written_again() {
    let (mut world, leader) = bootstrapped(QUORUM);
    let config = world.annotation("x-config", "config").unwrap();
    let id = world.annotation("x-config", "initialize");
    let object = world.objects.remove(&(Kind::Lock, "x-config".into())).unwrap();
    for name in ["x-0", "x-1", "x-2"] {
        world.push(name, 1, Event::Store(matriarch_ha::event::StoreEvent::Deleted(Kind::Lock, object.clone())));
    }
    let whole =
        |w: &mut World| w.annotation("x-config", "config").is_some() && w.annotation("x-config", "initialize") == id;
    world.run_until("the object is there again", 5_000, whole);
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parsed(&world.annotation("x-config", "config").unwrap()), parsed(&config));
    // Only the annotation, by a mistaken edit.
    world.store(Kind::Lock, "x-config", |object| drop(object.annotations.remove("config")));
    world.run_until("the annotation is there again", 5_000, |w| w.annotation("x-config", "config").is_some());
    assert_eq!(world.writable(), [leader]);
}

#[test]
fn a_standby_without_a_receiver_keeps_the_timeline_it_has_seen() {
    let (mut world, leader) = bootstrapped(QUORUM);
    // Two timelines on, no standby has made a restartpoint: pg_control still says 1 once nothing streams.
    world.node(&leader).agent_up = false;
    world.run_until("a new leader", 14_000, |w| w.writable().first().is_some_and(|p| *p != leader));
    world.node(&leader).agent_up = true;
    world.run_until("rejoined", 20_000, settled);
    let both = |w: &mut World| w.annotation("x-sync", "sync_standby").is_some_and(|s| s.split(',').count() == 2);
    world.run_until("both vote again", 10_000, both);
    world.run(3_000);
    let second = world.leader().unwrap();
    let candidate = world.nodes.keys().find(|n| **n != second).unwrap().clone();
    world.forgetful = Some(candidate.clone());
    let request =
        Request::Switchover { leader: Some(second.clone()), candidate: Some(candidate.clone()), scheduled_at: None };
    world.push(&second, 0, Event::Request { id: 7, request });
    let ms = world.run_until("candidate leads", 5_000, |w| w.writable() == [candidate.clone()]);
    assert!(ms < 400, "{ms} ms");
}

#[test]
fn after_an_election_the_losers_follow_and_stay() {
    let (mut world, _) = bootstrapped(QUORUM);
    for name in ["x-0", "x-1", "x-2"] {
        world.crash(name);
        world.node(name).agent_up = false;
    }
    world.run(11_000);
    for name in ["x-0", "x-1", "x-2"] {
        world.node(name).agent_up = true;
    }
    world.run_until("all back", 30_000, settled);
    world.run(5_000);
    let before: usize = world.nodes.values().map(|n| n.verdicts.len()).sum();
    world.run(20_000);
    let after: usize = world.nodes.values().map(|n| n.verdicts.len()).sum();
    assert!(after - before < 3, "verdicts go on changing in a quiet cluster");
}

#[test]
fn a_terminating_leader_ends_though_it_cannot_release_the_lock() {
    let (mut world, leader) = bootstrapped(ASYNC);
    world.api_down();
    world.push(&leader, 0, Event::Terminating);
    let ms = world.run_until("it has ended", 10_000, |w| w.node(&leader).finished);
    assert!(ms < 5_000, "{ms} ms");
    assert!(!world.node(&leader).db.running);
}

#[test]
fn a_leader_whose_pod_was_replaced_hands_over() {
    let (mut world, leader) = bootstrapped(QUORUM);
    world.store(Kind::Pod, &leader, |pod| pod.uid = "another".into());
    let old = leader.clone();
    let ms = world.run_until("a new leader", 5_000, |w| w.writable().first().is_some_and(|p| *p != old));
    assert!(ms < 500, "{ms} ms");
    assert!(world.node(&leader).finished);
}

#[test]
fn a_failsafe_promise_lasts_as_long_as_the_leader_counts_on_it() {
    let (mut world, leader) = bootstrapped(QUORUM);
    let other = world.nodes.keys().find(|n| **n != leader).unwrap().clone();
    // The ttl was raised, and this member has not heard of it.
    let leader_uid = format!("uid-{leader}");
    let asked = world.now;
    let promised = |w: &mut World| {
        let now = w.now;
        w.node(&other).core.snapshot(now).promised_until
    };
    let request = |ttl_ms| Request::Failsafe { leader: leader.clone(), leader_uid: leader_uid.clone(), ttl_ms };
    world.push(&other, 0, Event::Request { id: 1, request: request(30_000) });
    world.run(10);
    assert!(promised(&mut world) >= Some(asked.plus_ms(30_000)));
    world.push(&other, 0, Event::Request { id: 2, request: request(1_000) });
    world.run(10);
    assert!(promised(&mut world) >= Some(asked.plus_ms(30_000)), "no promise is shortened");
}
