//! What makes a mistake likely to show: a few faults more in the plans of the hunt for it. Chance alone brings such situations too
//! seldom.

#![allow(clippy::cast_possible_truncation)] // every draw is small

use matriarch_ha::mutants::Mutant;

use crate::draw::{Draws, For};
use crate::plan::{ANYBODY, Config, Durability, Fault, Op, Plan, Probe, When};

/// The plan of the seed, aimed at the mistake; none: it needs no aim.
pub(crate) fn plan(mutant: Mutant, seed: u64) -> Option<Plan> {
    let mut draws = Draws::new(seed);
    let mut below = |n: u64| draws.below(For::SwarmOp, 0, n);
    let at = |ms: u64, what: Fault, lasts_ms: u64| Op { when: When::At(ms), what, lasts_ms };
    let after = |probe: Probe, delay_us: u64, what: Fault, lasts_ms: u64| Op {
        when: When::After { probe, nth: 1, delay_us },
        what,
        lasts_ms,
    };
    let quorum = Config { transactions: 6_000, chaos_ms: 40_000, ..Config::calm(3, Durability::Quorum) };
    let (config, ops) = match mutant {
        // A former leader whose clock stands still believes in its permit, and goes on when it wakes while votes are asked for.
        Mutant::VoteWithoutEndedStream | Mutant::OldPositionVotes => {
            let wakes = 8_000 + below(6_000);
            (
                Config { failsafe: false, ..quorum },
                vec![
                    at(3_000, Fault::ClockStop(ANYBODY), wakes),
                    after(Probe::RoundOpened, 0, Fault::AgentSlow(ANYBODY, below(400)), 3_000),
                ],
            )
        }
        // It goes on while a voter starts anew, and the winner takes its time.
        Mutant::UnconfirmedStreams => {
            let (wakes, killed) = (8_500 + below(4_000), 5_000 + below(400_000));
            let (voter, slow) = (below(3) as usize, 300 + below(900));
            (
                Config { failsafe: false, ..quorum },
                vec![
                    at(2_900, Fault::CutApi(ANYBODY), 30_000),
                    at(3_000, Fault::ClockStop(ANYBODY), wakes),
                    after(Probe::RoundOpened, 0, Fault::AgentSlow(ANYBODY, slow), 4_000),
                    after(Probe::RoundOpened, killed, Fault::PodKill(voter), 0),
                ],
            )
        }
        // A write of `/sync` that is late lands between a race and the promotion.
        Mutant::SyncMovedIgnored => {
            let late = 2_000 + below(12_000);
            (
                Config { transactions: 1_200, ..quorum },
                vec![
                    at(1_000 + below(2_000), Fault::ApiLate(ANYBODY, 700), late),
                    at(1_500 + below(2_000), Fault::PostmasterKill(below(3) as usize), 0),
                    at(2_000 + below(3_000), Fault::VolumeLost(below(3) as usize), 0),
                    at(4_000 + below(3_000), Fault::NodeCrash(ANYBODY), 15_000),
                    after(Probe::AcquireApplied, 0, Fault::AgentSlow(ANYBODY, below(800)), 4_000),
                ],
            )
        }
        // A ttl is shortened, and the agent that knew of the longer one is gone.
        Mutant::PermitNotInherited => {
            let (killed, nth) = (2_500 + below(1_500), 2 + below(3) as u32);
            let config = Config { ttl: 30, failsafe: false, chaos_ms: 60_000, ..Config::calm(3, Durability::Async) };
            let stopped = When::After { probe: Probe::RenewalApplied, nth, delay_us: 0 };
            (
                config,
                vec![
                    at(2_000, Fault::Ttl(5), 50_000),
                    at(killed, Fault::AgentKill(ANYBODY), 0),
                    Op { when: stopped, what: Fault::AgentStop(ANYBODY), lasts_ms: 40_000 },
                ],
            )
        }
        // A cluster is promoted, and its new primary and one that follows it are lost to the third, which leads as well.
        Mutant::ClusterTimelineNotReserved => {
            let config = Config { source: true, failsafe: false, ..Config::calm(3, Durability::Async) };
            let (third, other) = (below(3) as usize, below(3) as usize);
            let soon = 500_000 + below(1_500_000);
            (
                Config { chaos_ms: 40_000, transactions: 1_200, ..config },
                vec![
                    at(3_000, Fault::PromoteCluster, 0),
                    after(Probe::PromoteSent, soon, Fault::CutApi(ANYBODY), 25_000),
                    after(Probe::PromoteSent, soon, Fault::CutApi(other), 25_000),
                    after(Probe::PromoteSent, soon, Fault::CutPeers(ANYBODY, third), 25_000),
                    after(Probe::PromoteSent, soon, Fault::CutPeers(other, third), 25_000),
                ],
            )
        }
        _ => return None,
    };
    Some(Plan { seed, config, ops })
}
