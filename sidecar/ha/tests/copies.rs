//! Standbys that only a new copy helps: they get it by themselves, from a leader that has said that it is the primary, and not again and
//! again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::cloned_ref_to_slice_refs,
    missing_docs
)] // a test may panic: that is how it fails

mod world;

use matriarch_ha::event::TaskError;
use world::{QUORUM, World, cluster, settled};

fn rule(world: &mut World, name: &str) -> String {
    world.node(name).verdicts.last().unwrap().1.clone()
}

#[test]
fn a_standby_that_lacks_wal_is_copied_once_and_then_not_for_ten_minutes() {
    let (mut world, _, other) = cluster(QUORUM);
    // Longer ago than its first copy counts.
    world.run(610_000);
    let before = world.node(&other).copies;
    world.node(&other).db.deprived = true;
    world.run_until("a copy", 60_000, |w| w.node(&other).copies == before + 1);
    // The copy does not help.
    world.node(&other).db.deprived = true;
    world.run(300_000);
    assert_eq!(world.node(&other).copies, before + 1, "one copy in ten minutes");
    assert_eq!(rule(&mut world, &other), "follower.copied-lately");
    assert!(world.node(&other).db.running, "what it has can be read");
    world.run_until("the next copy", 400_000, |w| w.node(&other).copies == before + 2);
    world.node(&other).db.deprived = false;
    world.run_until("it streams", 60_000, settled);
}

#[test]
fn a_standby_that_cannot_be_started_is_copied_while_the_leader_vouches_for_its_data() {
    let (mut world, leader, other) = cluster(QUORUM);
    // Longer ago than its first copy counts.
    world.run(610_000);
    let before = world.node(&other).copies;
    let broken = TaskError::Failed("PostgreSQL ended (exit code 1)".into());
    world.failing.push((other.clone(), "StartStandby", broken));
    // Without a leader that answers nothing is removed.
    world.unheard.insert(leader.clone());
    world.crash(&other);
    world.run(120_000);
    let speaks = rule(&mut world, &other);
    assert_eq!(world.node(&other).copies, before, "{speaks}");
    world.unheard.clear();
    world.run_until("a copy", 90_000, |w| w.node(&other).copies == before + 1);
    assert!(world.node(&other).verdicts.iter().any(|(_, rule, _)| rule == "follower.unstartable"));
    // Nor does it help: not again and again.
    world.run(300_000);
    assert_eq!(world.node(&other).copies, before + 1);
    world.failing.clear();
    world.run_until("it is back", 60_000, settled);
}
