//! `matriarch-sim`: seeds on all cores, one seed with its trace, a stored plan again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use matriarch_sim::plan::Plan;
use matriarch_sim::{Outcome, Stats, coverage, run, run_traced, shrink, swarm};

/// Most of what a seed costs is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        /// With this mistake made on purpose.
        #[cfg(feature = "mutants")]
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Breaks rules, models and fences on purpose, one at a time: the promise that is named has to notice.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Seeds for each.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// Where the plans are kept that show the mistakes.
        #[arg(long, default_value = "sidecar/sim/killers")]
        keep: PathBuf,
        /// The table.
        #[arg(long, default_value = "docs/mutants.md")]
        table: PathBuf,
        /// Only these.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Only those whose kept plan shows nothing any more.
        #[arg(long)]
        stale: bool,
        /// Looks for nothing: runs the kept plans, with the mistake and without it.
        #[arg(long)]
        replay: bool,
        /// Threads; all cores if absent.
        #[arg(long)]
        threads: Option<usize>,
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
        #[cfg(not(feature = "mutants"))]
        Command::Replay { plan, lines } => Ok(one(&read(&plan)?, lines)),
        #[cfg(feature = "mutants")]
        Command::Replay { plan, lines, mutant } => {
            let plan = read(&plan)?;
            Ok(matriarch_sim::mutants::with_named(mutant.as_deref(), || one(&plan, lines)))
        }
        #[cfg(feature = "mutants")]
        Command::Mutants { seeds, keep, table, only, stale, replay, threads } => {
            use matriarch_sim::mutants;
            let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            if !replay {
                mutants::hunt(seeds, &keep, &only, stale, threads)?;
                std::fs::write(&table, mutants::table(&keep)?)?;
            }
            let mut failures = mutants::replay(&keep)?;
            if std::fs::read_to_string(&table)? != mutants::table(&keep)? {
                failures.push(format!("{} is not what the kept plans say", table.display()));
            }
            for failure in &failures {
                println!("FAILED {failure}");
            }
            Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// A plan, or a file that has one in it.
fn read(path: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut value: serde_json::Value = serde_json::from_str(&text)?;
    let plan = value.get_mut("plan").map(serde_json::Value::take);
    let plan = plan.unwrap_or(value);
    Ok(serde_json::from_value(plan)?)
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

/// A run with fewer commits shows little.
const COMMITS: u64 = 50;
/// So many runs of a hundred have them, and a change of the leader.
const TELLING: u64 = 60;
/// Fewer seeds prove nothing either way.
const ENOUGH: u64 = 200;

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
    if stats.acks < COMMITS || stats.failovers == 0 {
        sum.vacuous += 1;
    }
    sum.total.acks += stats.acks;
    sum.total.failovers += stats.failovers;
    sum.total.handled += stats.handled;
    sum.total.events += stats.events;
    sum.total.time += stats.time;
    sum.total.async_lost += stats.async_lost;
    // In whatever order the threads come.
    sum.total.hash = sum.total.hash.wrapping_add(stats.hash.rotate_left((seed % 64) as u32));
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
        "{} seeds in {seconds:.1} s ({rate:.0} a second): {} acknowledged commits, {} failovers, {} hours of virtual time, {} calls of a core, \
         hash {:016x}",
        sum.seeds,
        sum.total.acks,
        sum.total.failovers,
        sum.total.time / 3_600_000_000,
        sum.total.handled,
        sum.total.hash,
    );
    let telling = 100 - sum.vacuous * 100 / sum.seeds.max(1);
    println!(
        "{telling} % of the seeds have at least {COMMITS} commits and a change of the leader ({TELLING} % are needed); {} promotions in async \
         lost commits",
        sum.total.async_lost
    );
    let vacuous = sum.seeds >= ENOUGH && telling < TELLING;
    if vacuous {
        println!("FAILED: too little happens in these runs");
    }
    println!("so many seeds fired each rule:");
    let (rules, uncovered) = coverage::judge(&sum.total.rules, sum.seeds);
    for line in rules {
        println!("{line}");
    }
    for what in &uncovered {
        println!("FAILED: {what}");
    }
    for seed in &sum.differed {
        println!("NOT DETERMINISTIC: seed {seed}");
    }
    for (seed, what) in &sum.failed {
        println!("FAILED seed {seed}: {what}");
    }
    if sum.failed.is_empty() && sum.differed.is_empty() && uncovered.is_empty() && !vacuous {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
