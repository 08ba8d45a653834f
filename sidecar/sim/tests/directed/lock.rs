//! Schedules of the lock: answers that are lost or late, views that lag, clocks, a changed ttl, a deleted object.

use matriarch_sim::plan::{ANYBODY, Config, Durability, Fault, Probe};

use crate::play::{after, at, config, play};

#[test]
fn s01_an_answer_that_is_lost_demotes_nobody() {
    for durability in [Durability::Async, Durability::Quorum] {
        let ops = [after(Probe::RenewalSent, 3, Fault::ApiLoseAnswers(1000), 1_500)];
        play(&config(durability), &ops, |stats, _| stats.failovers == 0 && stats.acks > 300);
    }
}

#[test]
fn s02_an_agent_stopped_between_renewal_and_permit_is_fenced_by_the_old_one() {
    let ops = [after(Probe::RenewalApplied, 3, Fault::AgentStop(ANYBODY), 12_000)];
    play(&config(Durability::Quorum), &ops, |stats, trace| stats.failovers == 1 && trace.contains("fence: SIGQUIT"));
}

#[test]
fn s03_letters_of_a_dead_leader_change_nothing() {
    let ops = [at(2_000, Fault::ApiLate(ANYBODY, 1000), 15_000), at(3_000, Fault::PodFreeze(ANYBODY), 20_000)];
    play(&config(Durability::Quorum), &ops, |stats, _| stats.failovers >= 1);
}

#[test]
fn s04_a_view_that_lags_behind_the_election_takes_no_lock() {
    let ops = [
        at(1_000, Fault::WatchLag(1, 3_000), 25_000),
        at(1_000, Fault::WatchLag(2, 500), 25_000),
        at(3_000, Fault::NodeCrash(ANYBODY), 20_000),
        after(Probe::AcquireApplied, 1, Fault::AgentKill(ANYBODY), 0),
    ];
    for durability in [Durability::Async, Durability::Quorum] {
        play(&config(durability), &ops, |stats, _| stats.failovers >= 1);
    }
}

#[test]
fn s05_the_fastest_observer_waits_for_the_slowest_holder() {
    let drift_ppm = vec![-1000, 1000, 1000];
    let ops = [at(2_000, Fault::CutApi(0), 55_000), at(2_000, Fault::CutPeers(0, 1), 55_000)];
    let config =
        Config { drift_ppm, watch_us: 1, ttl: 30, failsafe: false, chaos_ms: 70_000, ..config(Durability::Async) };
    play(&config, &ops, |stats, _| stats.failovers >= 1);
}

#[test]
fn s06_a_ttl_that_changes_surprises_no_holder() {
    let config = Config { ttl: 30, chaos_ms: 60_000, ..config(Durability::Quorum) };
    let ops = [
        at(2_000, Fault::Ttl(5), 12_000),
        at(2_010, Fault::ApiLoseAnswers(500), 5_000),
        at(6_000, Fault::AgentKill(ANYBODY), 0),
        at(9_000, Fault::AgentStop(ANYBODY), 15_000),
    ];
    play(&config, &ops, |stats, trace| stats.acks > 100 && trace.contains("end of AgentStop"));
}

#[test]
fn s07_a_lock_that_was_deleted_is_not_free() {
    let ops = [at(2_000, Fault::WatchMute(0), 6_000), at(3_000, Fault::LockDeleted, 0)];
    for durability in [Durability::Async, Durability::Quorum] {
        play(&config(durability), &ops, |stats, _| stats.failovers <= 1);
    }
}
