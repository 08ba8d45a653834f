//! Schedules of the fence and of elections: frozen nodes, a clock that stands still, promotions that straddle a permit.

use matriarch_sim::plan::{ANYBODY, Config, Durability, Fault, Probe};

use crate::play::{after, at, config, play};

#[test]
fn s08_a_node_that_freezes_in_a_commit_acknowledges_nothing_later() {
    let ops = [at(4_005, Fault::PodFreeze(ANYBODY), 20_000)];
    let config = Config { transactions: 6_000, flush_us: 20_000, ..config(Durability::Quorum) };
    play(&config, &ops, |stats, _| stats.failovers == 1);
}

#[test]
fn s09_a_hypervisor_that_stops_the_clock_costs_no_acknowledged_commit() {
    let ops = [at(4_000, Fault::ClockStop(ANYBODY), 20_000)];
    play(&config(Durability::Quorum), &ops, |stats, _| stats.failovers >= 1);
}

#[test]
fn s10_a_promotion_that_straddles_its_permit_is_fenced() {
    let ops =
        [at(2_000, Fault::NodeCrash(ANYBODY), 40_000), after(Probe::PromoteSent, 1, Fault::PodFreeze(ANYBODY), 11_000)];
    play(&Config { chaos_ms: 50_000, ..config(Durability::Quorum) }, &ops, |stats, _| stats.failovers >= 1);
}

#[test]
fn s11_answers_of_before_the_expiry_elect_nobody() {
    // The old leader goes on streaming, cut off from the API server, until its permit ends.
    let ops = [at(2_000, Fault::CutApi(0), 20_000), after(Probe::RoundOpened, 1, Fault::AgentStop(1), 3_000)];
    let config = Config { failsafe: false, transactions: 6_000, ..config(Durability::Quorum) };
    play(&config, &ops, |stats, _| stats.failovers >= 1);
}
