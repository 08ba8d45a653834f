//! How a schedule is played: its plan a few times with other delays, and what must have come of it.

use matriarch_sim::plan::{Config, Durability, Fault, Op, Plan, Probe, When};
use matriarch_sim::{Stats, run_traced};

/// So often each, with other latencies.
const TIMES: usize = 3;

/// Seeds with which the first member leads at first, as the schedules say.
fn seeds(config: &Config) -> impl Iterator<Item = u64> {
    let calm = Config { chaos_ms: 1, ..config.clone() };
    let first = move |seed: &u64| {
        let (_, trace) = run_traced(&Plan { seed: *seed, config: calm.clone(), ops: Vec::new() });
        trace.iter().any(|line| line.contains("x-0 leader.lead"))
    };
    (1..).filter(first).take(TIMES)
}

pub fn at(ms: u64, what: Fault, lasts_ms: u64) -> Op {
    Op { when: When::At(ms), what, lasts_ms }
}

pub fn after(probe: Probe, nth: u32, what: Fault, lasts_ms: u64) -> Op {
    Op { when: When::After { probe, nth, delay_us: 0 }, what, lasts_ms }
}

pub fn config(durability: Durability) -> Config {
    Config { transactions: 1_200, ..Config::calm(3, durability) }
}

/// Runs them all; `holds` says of each what must have happened, besides that every promise was kept.
pub fn play(config: &Config, ops: &[Op], holds: impl Fn(&Stats, &str) -> bool) {
    for seed in seeds(config) {
        let plan = Plan { seed, config: config.clone(), ops: ops.to_vec() };
        let (outcome, trace) = run_traced(&plan);
        let fine = outcome.violation.is_none() && holds(&outcome.stats, &trace.join("\n"));
        if !fine {
            for line in trace.iter().rev().take(60).rev() {
                println!("{line}");
            }
            panic!(
                "seed {seed}: {:?}, {} failovers, {:?}",
                outcome.violation, outcome.stats.failovers, outcome.stats.rules
            );
        }
    }
}
