//! `matriarch-sim`: seeds on all cores, one seed with its trace, a stored plan again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use matriarch_sim::plan::Plan;
use matriarch_sim::{Outcome, Stats, run, run_traced, shrink, swarm};

/// Simulates clusters under faults.
#[derive(Parser)]
#[command(name = "matriarch-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds.
    Run {
        /// How many.
        #[arg(long, default_value_t = 5_000)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Threads; all cores if absent.
        #[arg(long)]
        threads: Option<usize>,
        /// Goes on after a violation.
        #[arg(long)]
        all: bool,
        /// Runs one in twenty twice: the second must not differ.
        #[arg(long)]
        twice: bool,
    },
    /// Runs one seed and prints the end of its trace.
    Seed {
        /// Which.
        seed: u64,
        /// So many lines.
        #[arg(long, default_value_t = 60)]
        lines: usize,
        /// Makes a failing plan small first, and stores it there.
        #[arg(long)]
        shrink: Option<PathBuf>,
    },
    /// Runs a stored plan.
    Replay {
        /// The file.
        plan: PathBuf,
        /// So many lines of its trace.
        #[arg(long, default_value_t = 60)]
        lines: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { seeds, from, threads, all, twice } => {
            let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            Ok(many(from, seeds, threads, all, twice))
        }
        Command::Seed { seed, lines, shrink: to } => {
            let mut plan = swarm::plan(seed);
            if let Some(path) = to {
                plan = shrink::shrink(&plan);
                std::fs::write(&path, serde_json::to_string_pretty(&plan)?)?;
                println!("stored as {}", path.display());
            }
            Ok(one(&plan, lines))
        }
        Command::Replay { plan, lines } => {
            let text = std::fs::read_to_string(&plan).with_context(|| format!("cannot read {}", plan.display()))?;
            Ok(one(&serde_json::from_str(&text)?, lines))
        }
    }
}

fn one(plan: &Plan, lines: usize) -> ExitCode {
    let (outcome, trace) = run_traced(plan);
    for line in trace.iter().skip(trace.len().saturating_sub(lines)) {
        println!("{line}");
    }
    println!("{}", serde_json::to_string(&plan.config).unwrap_or_default());
    println!("{:?}", plan.ops);
    println!(
        "acks {} failovers {} handled {} events {}",
        outcome.stats.acks, outcome.stats.failovers, outcome.stats.handled, outcome.stats.events
    );
    match outcome.violation {
        None => {
            println!("every promise was kept");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("{} at {} ms: {}", violation.invariant, violation.at / 1000, violation.what);
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    vacuous: u64,
    total: Stats,
    failed: Vec<(u64, String)>,
    differed: Vec<u64>,
}

fn many(from: u64, seeds: u64, threads: usize, all: bool, twice: bool) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let plan = swarm::plan(seed);
                    let outcome = std::panic::catch_unwind(|| run(&plan));
                    let again = twice && seed.is_multiple_of(20);
                    let same = !again || matches!((&outcome, run(&plan)), (Ok(a), b) if a.stats.hash == b.stats.hash);
                    let Ok(mut sum) = sum.lock() else { return };
                    if !same {
                        sum.differed.push(seed);
                    }
                    count(&mut sum, seed, outcome.ok());
                    if !all && !sum.failed.is_empty() {
                        next.store(from + seeds, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let Ok(mut sum) = sum.into_inner() else { return ExitCode::FAILURE };
    sum.failed.sort();
    report(&sum, begun.elapsed().as_secs_f64())
}

fn count(sum: &mut Sum, seed: u64, outcome: Option<Outcome>) {
    sum.seeds += 1;
    let Some(outcome) = outcome else {
        sum.failed.push((seed, "S0: panic".to_owned()));
        return;
    };
    let stats = outcome.stats;
    if stats.acks < 50 || stats.failovers == 0 {
        sum.vacuous += 1;
    }
    sum.total.acks += stats.acks;
    sum.total.failovers += stats.failovers;
    sum.total.handled += stats.handled;
    sum.total.events += stats.events;
    sum.total.time += stats.time;
    sum.total.async_lost += stats.async_lost;
    for rule in stats.rules.keys() {
        *sum.total.rules.entry(rule).or_default() += 1;
    }
    if let Some(violation) = outcome.violation {
        sum.failed.push((seed, format!("{}: {}", violation.invariant, violation.what)));
    }
}

fn report(sum: &Sum, seconds: f64) -> ExitCode {
    #[allow(clippy::cast_precision_loss)] // for people
    let rate = sum.seeds as f64 / seconds;
    println!(
        "{} seeds in {seconds:.1} s ({rate:.0} a second): {} acknowledged commits, {} failovers, {} hours of virtual time, {} calls of a core",
        sum.seeds,
        sum.total.acks,
        sum.total.failovers,
        sum.total.time / 3_600_000_000,
        sum.total.handled,
    );
    println!(
        "{} seeds without 50 commits and a failover; {} promotions in async lost commits",
        sum.vacuous, sum.total.async_lost
    );
    for rule in matriarch_ha::decide::Rule::ALL {
        let seeds = sum.total.rules.get(rule.id()).copied().unwrap_or(0);
        println!("  {:28} {seeds}", rule.id());
    }
    for seed in &sum.differed {
        println!("NOT DETERMINISTIC: seed {seed}");
    }
    for (seed, what) in &sum.failed {
        println!("FAILED seed {seed}: {what}");
    }
    if sum.failed.is_empty() && sum.differed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
