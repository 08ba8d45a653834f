//! Schedules of synchronous replication: the tail of a switchover, sets that change, settings that are not loaded, catching up.

use matriarch_sim::plan::{ANYBODY, Config, Durability, Fault, Probe};

use crate::play::{after, at, config, play};

#[test]
fn s12_a_switchover_takes_the_last_commits_along() {
    let ops = [
        at(3_000, Fault::StreamStuck(1), 4_000),
        at(3_500, Fault::Switchover(1), 0),
        at(12_000, Fault::Switchover(2), 0),
        after(Probe::StopSent, 2, Fault::StreamStuck(2), 3_000),
    ];
    play(&Config { transactions: 6_000, ..config(Durability::Quorum) }, &ops, |stats, _| stats.failovers >= 1);
}

#[test]
fn s13_a_synchronous_set_that_shrinks_is_safe_at_every_step() {
    let ops = [
        at(2_000, Fault::NodeCrash(2), 25_000),
        after(Probe::SyncApplied, 1, Fault::ApiLoseAnswers(1000), 1_500),
        after(Probe::SyncApplied, 1, Fault::AgentKill(ANYBODY), 0),
        at(9_000, Fault::NodeCrash(0), 15_000),
    ];
    for durability in [Durability::Priority, Durability::Quorum] {
        play(&config(durability), &ops, |stats, _| stats.acks > 100);
    }
}

#[test]
fn s14_a_setting_that_is_written_and_not_loaded_elects_nobody() {
    for nth in 1..4 {
        let ops = [
            at(2_000, Fault::VolumeLost(2), 0),
            after(Probe::NamesLoaded, nth, Fault::NodeCrash(0), 15_000),
            after(Probe::NamesLoaded, nth, Fault::NodeCrash(1), 10_000),
        ];
        play(&Config { transactions: 6_000, ..config(Durability::Quorum) }, &ops, |_, trace| {
            trace.contains("x-0: NodeCrash") && trace.contains("x-1: NodeCrash")
        });
    }
}

#[test]
fn s15_a_standby_that_catches_up_does_not_vote() {
    let ops = [
        at(2_000, Fault::VolumeLost(2), 0),
        at(2_000, Fault::DiskSlow(2, 1_500), 20_000),
        at(6_000, Fault::Cut(1), 15_000),
        at(9_000, Fault::NodeCrash(0), 15_000),
    ];
    play(&Config { transactions: 6_000, ..config(Durability::Quorum) }, &ops, |stats, trace| {
        stats.acks > 100 && trace.contains("x-2 task BaseBackup")
    });
}

#[test]
fn s16_the_most_advanced_member_that_cannot_lead_holds_nobody_up() {
    let ops = [
        at(2_000, Fault::CutPeers(0, 1), 30_000),
        at(2_000, Fault::CutPeers(0, 2), 30_000),
        at(4_000, Fault::PodKill(0), 0),
        at(4_000, Fault::CutApi(0), 26_000),
    ];
    play(&Config { chaos_ms: 40_000, ..config(Durability::Quorum) }, &ops, |stats, _| stats.failovers >= 1);
}
