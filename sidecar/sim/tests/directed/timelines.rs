//! Schedules of timelines and copies: the same timeline twice, rewinds, sources that die, orders to throw away.

use matriarch_sim::plan::{ANYBODY, Config, Durability, Fault, Op, Probe, When};

use crate::play::{after, at, config, play};

#[test]
fn s17_two_promotions_never_make_the_same_timeline() {
    let ops = [at(2_000, Fault::NodeCrash(ANYBODY), 60_000), after(Probe::PromoteSent, 1, Fault::Cut(ANYBODY), 25_000)];
    for durability in [Durability::Async, Durability::Quorum] {
        let config = Config { chaos_ms: 60_000, failsafe: false, ..config(durability) };
        play(&config, &ops, |stats, _| stats.failovers >= 1);
    }
}

#[test]
fn s18_a_rewind_waits_for_the_checkpoint_of_a_fresh_primary() {
    let ops = [
        at(2_000, Fault::CutPeers(0, 1), 15_000),
        at(2_000, Fault::CutPeers(0, 2), 15_000),
        at(3_000, Fault::PodKill(0), 0),
        at(3_000, Fault::CutApi(0), 15_000),
        after(Probe::PromoteSent, 1, Fault::DiskSlow(ANYBODY, 2_500), 20_000),
    ];
    play(&Config { chaos_ms: 50_000, ..config(Durability::Async) }, &ops, |stats, _| stats.failovers >= 1);
}

#[test]
fn s19_a_source_that_dies_half_way_leaves_nothing_that_starts() {
    for delay_us in [100_000, 600_000, 2_000_000] {
        let die = When::After { probe: Probe::WipeSent, nth: 1, delay_us };
        let ops = [
            at(2_000, Fault::CutPeers(0, 1), 12_000),
            at(2_000, Fault::CutPeers(0, 2), 12_000),
            at(2_000, Fault::CutApi(0), 12_000),
            Op { when: die.clone(), what: Fault::NodeCrash(1), lasts_ms: 12_000 },
            Op { when: die, what: Fault::NodeCrash(2), lasts_ms: 8_000 },
        ];
        let config = Config { failsafe: false, chaos_ms: 50_000, ..config(Durability::Quorum) };
        play(&config, &ops, |stats, _| stats.failovers >= 1);
    }
}

#[test]
fn s20_what_is_thrown_away_is_elsewhere_at_that_moment() {
    let ops = [
        at(2_000, Fault::Reinitialize(2), 0),
        at(2_050, Fault::Reinitialize(2), 0),
        after(Probe::WipeSent, 1, Fault::NodeCrash(0), 10_000),
        after(Probe::WipeSent, 1, Fault::VolumeLost(1), 0),
    ];
    for durability in [Durability::Async, Durability::Quorum] {
        play(&config(durability), &ops, |stats, _| stats.acks > 50);
    }
}
