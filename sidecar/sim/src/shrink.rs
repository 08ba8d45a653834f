//! Makes a failing plan small: fewer faults, fewer members, a calmer world, as long as the same promise is broken.

use crate::plan::{Plan, When};
use crate::world::run;

/// Longest search.
const RUNS: usize = 600;

struct Search<'a> {
    runs: usize,
    fails: &'a dyn Fn(&Plan) -> bool,
}

impl Search<'_> {
    fn still(&mut self, plan: &Plan) -> bool {
        self.runs += 1;
        self.runs <= RUNS && (self.fails)(plan)
    }
}

/// The smallest plan found that breaks the same promise.
pub fn shrink(plan: &Plan) -> Plan {
    let Some(violation) = run(plan).violation else { return plan.clone() };
    let same = move |plan: &Plan| run(plan).violation.is_some_and(|v| v.invariant == violation.invariant);
    shrink_while(plan, &same)
}

/// The smallest plan found for which the predicate holds.
pub fn shrink_while(plan: &Plan, fails: &dyn Fn(&Plan) -> bool) -> Plan {
    let mut search = Search { runs: 0, fails };
    let mut best = plan.clone();
    loop {
        let before = best.clone();
        fewer_ops(&mut best, &mut search);
        calmer(&mut best, &mut search);
        shorter(&mut best, &mut search);
        if best == before || search.runs > RUNS {
            return best;
        }
    }
}

/// Delta debugging: halves, quarters, … single ones are left out.
fn fewer_ops(best: &mut Plan, search: &mut Search<'_>) {
    let mut chunk = best.ops.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < best.ops.len() {
            let mut tried = best.clone();
            tried.ops.drain(at..(at + chunk).min(tried.ops.len()));
            if search.still(&tried) {
                *best = tried;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 {
            return;
        }
        chunk = chunk.div_ceil(2);
    }
}

fn calmer(best: &mut Plan, search: &mut Search<'_>) {
    type Change = fn(&mut Plan);
    let changes: [Change; 8] = [
        |p| p.config.drift_ppm.fill(0),
        |p| p.config.core.clear(),
        |p| p.config.endpoints = false,
        |p| p.config.api_us = 1_000,
        |p| p.config.peer_us = 200,
        |p| p.config.flush_us = 500,
        |p| p.config.watch_us = 1_000,
        |p| {
            let last = p.ops.iter().map(|op| if let When::At(ms) = op.when { ms + op.lasts_ms } else { 0 }).max();
            p.config.chaos_ms = p.config.chaos_ms.min(last.unwrap_or(0).max(10_000));
        },
    ];
    for change in changes {
        let mut tried = best.clone();
        change(&mut tried);
        if tried != *best && search.still(&tried) {
            *best = tried;
        }
    }
}

fn shorter(best: &mut Plan, search: &mut Search<'_>) {
    for index in 0..best.ops.len() {
        for shorter in [1_000, 5_000] {
            if best.ops[index].lasts_ms > shorter {
                let mut tried = best.clone();
                tried.ops[index].lasts_ms = shorter;
                if search.still(&tried) {
                    *best = tried;
                    break;
                }
            }
        }
    }
}
