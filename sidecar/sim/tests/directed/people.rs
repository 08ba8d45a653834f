//! Schedules of pause, failsafe, silent watches and cold starts.

use std::cell::Cell;

use matriarch_sim::plan::{Config, Durability, Fault, Probe};

use crate::play::{after, at, config, play};

#[test]
fn s21_after_a_pause_nobody_overtakes_a_leader_that_may_write() {
    let ops = [
        at(2_000, Fault::Pause, 15_000),
        at(5_000, Fault::CutApi(0), 25_000),
        at(5_000, Fault::CutPeers(0, 1), 25_000),
    ];
    play(&Config { chaos_ms: 40_000, ..config(Durability::Quorum) }, &ops, |stats, _| stats.failovers == 0);
}

#[test]
fn s22_failsafe_asks_everybody_whom_a_lost_write_may_have_named() {
    // One of these renewals is the first that names the member which came back, and its answer is lost in the cut.
    let (kept, moved) = (Cell::new(0), Cell::new(0));
    for nth in 1..=4 {
        let ops = [
            at(2_000, Fault::PodDelete(2), 0),
            after(Probe::RenewalApplied, nth, Fault::CutApi(0), 30_000),
            after(Probe::RenewalApplied, nth, Fault::CutPeers(0, 2), 30_000),
        ];
        for durability in [Durability::Async, Durability::Quorum] {
            play(&Config { chaos_ms: 45_000, ..config(durability) }, &ops, |stats, _| {
                let count = if stats.failovers == 0 { &kept } else { &moved };
                count.set(count.get() + 1);
                true
            });
        }
    }
    assert!(kept.get() > 0 && moved.get() > 0, "asked without it {}, and with it {}", kept.get(), moved.get());
}

#[test]
fn s23_a_promise_that_was_forgotten_extends_nothing() {
    let ops = [
        at(2_000, Fault::ApiDown, 30_000),
        after(Probe::FailsafeSent, 2, Fault::AgentKill(1), 0),
        after(Probe::FailsafeSent, 2, Fault::CutOneWay(2, 0), 9_000),
        after(Probe::FailsafeSent, 9, Fault::AgentKill(2), 0),
    ];
    for durability in [Durability::Async, Durability::Quorum] {
        play(&Config { chaos_ms: 45_000, ..config(durability) }, &ops, |_, trace| trace.contains("x-0 leader.fenced"));
    }
}

#[test]
fn s24_a_watch_that_says_nothing_leads_nobody_back() {
    let ops = [
        at(2_000, Fault::WatchMute(1), 12_000),
        at(3_000, Fault::Switchover(2), 0),
        at(4_000, Fault::AgentStop(1), 9_000),
        at(14_500, Fault::WatchesEnd, 0),
    ];
    for durability in [Durability::Async, Durability::Quorum] {
        play(&config(durability), &ops, |stats, _| stats.failovers >= 1);
    }
}

#[test]
fn s25_a_cold_start_waits_for_the_votes_and_forgets_what_is_overdue() {
    let ops = [
        at(2_000, Fault::SwitchoverLater(1, 5), 0),
        at(3_000, Fault::NodeCrash(0), 50_000),
        at(3_300, Fault::NodeCrash(1), 12_000),
        at(3_300, Fault::NodeCrash(2), 14_000),
    ];
    for durability in [Durability::Async, Durability::Quorum] {
        play(&Config { chaos_ms: 60_000, ..config(durability) }, &ops, |stats, _| stats.acks > 20);
    }
}
