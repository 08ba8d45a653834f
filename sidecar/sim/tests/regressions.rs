//! What simulation has found, as plans that broke a promise once: none may break it again.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may panic: that is how it fails

use std::path::{Path, PathBuf};

use matriarch_sim::plan::Plan;
use matriarch_sim::{run, run_traced, swarm};

fn plans() -> Vec<(PathBuf, Plan)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut plans: Vec<(PathBuf, Plan)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()))
        .collect();
    plans.sort_by(|a, b| a.0.cmp(&b.0));
    plans
}

#[test]
fn no_plan_breaks_its_promise_again() {
    let plans = plans();
    assert!(!plans.is_empty());
    for (path, plan) in plans {
        let (outcome, trace) = run_traced(&plan);
        if let Some(violation) = outcome.violation {
            for line in trace.iter().rev().take(40).rev() {
                println!("{line}");
            }
            panic!("{}: {violation:?}", path.display());
        }
    }
}

#[test]
fn a_seed_is_a_run_and_nothing_else() {
    for seed in 1..30 {
        let plan = swarm::plan(seed);
        let stored: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(stored, plan);
        let (first, (traced, _)) = (run(&plan), run_traced(&stored));
        assert_eq!(first.stats.hash, traced.stats.hash, "seed {seed}");
    }
}
