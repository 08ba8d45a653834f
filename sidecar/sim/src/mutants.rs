//! The hunt for mistakes made on purpose: seeds until the promise that a mistake names is broken, the plan made small and kept.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use matriarch_ha::mutants::{Mutant, with};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::{Outcome, Violation, aim, run, shrink, swarm};

/// Mistakes that no promise notices, and why.
const SURVIVE: &[(Mutant, &str)] = &[
    (
        Mutant::OldSequence,
        "a second layer: the socket to the supervisor keeps the order, and a new agent counts on from the highest number; a test of the \
         fence shows it",
    ),
    (
        Mutant::TakeoverWithoutLeader,
        "a second layer: the winner has every acknowledged commit, and fewer voters with the same quorum elect nobody wrongly; with the \
         old leader among them commits soon rest on two again",
    ),
    (
        Mutant::SyncMovedIgnored,
        "a late write of `/sync` has to land between a race and the promotion; not shown by 500 seeds",
    ),
    (
        Mutant::FailsafeFromAnswer,
        "promises are longer than the deadline by the margin of 1.5 s, which an answer never takes; not shown by 500 seeds",
    ),
    (
        Mutant::StaleAnswers,
        "a second layer: questions are few, and the connection of an agent ends with it; not shown by 500 seeds",
    ),
    (
        Mutant::RewindAtOnce,
        "a second layer: PostgreSQL itself refuses to stream to a log beyond the switch, and a standby that gets nothing is compared again",
    ),
    (
        Mutant::OwnSyncNotClaimed,
        "a second layer: a late write of a former life, or quorum that is switched on, has to land between what the winner saw of `/sync` \
         and its promotion; not shown by 400 seeds",
    ),
    (
        Mutant::ReplacementAsksNobody,
        "the plans cut a replaced pod off from its peers as well, so that its failsafe ends, and give the new one an empty volume; a test \
         of elections shows it",
    ),
    (
        Mutant::Impatient,
        "the plans wipe the store only of running clusters; a test of elections shows it, and the bare scenario `patronictl-endpoints`",
    ),
    (
        Mutant::PromiseOutlivesRelease,
        "a matter of seconds that no promise measures: the candidate of a switchover after an outage waits, and the old leader leads once \
         more",
    ),
    (Mutant::AnyReleaseEndsPromise, "in the plans nobody empties a lock but its holder, which has stopped by then"),
];

/// So often the delays of a kept plan are drawn until it shows its mistake.
const DRAWN_ANEW: u64 = 60;

/// A plan that shows a mistake.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Killer {
    /// The promise that it breaks.
    pub invariant: String,
    /// How many seeds it took; none: the plan was written by hand.
    pub seeds: Option<u64>,
    /// How often the place of the mistake was come by.
    pub hits: u64,
    /// What is run.
    pub plan: Plan,
}

/// Does something with the mistake of this name.
pub fn with_named<T>(id: Option<&str>, work: impl FnOnce() -> T) -> T {
    with(Mutant::ALL.iter().copied().find(|m| id == Some(m.id())), work).0
}

/// Runs a plan with a mistake; what came of it, and how often its place was come by.
fn broken(mutant: Option<Mutant>, plan: &Plan) -> (Option<Violation>, u64) {
    let quiet = || std::panic::catch_unwind(|| run(plan));
    let (result, hits) = with(mutant, quiet);
    let panicked = || Violation { invariant: "S0".to_owned(), at: 0, what: "panic".to_owned() };
    (result.map_or_else(|_| Some(panicked()), |outcome: Outcome| outcome.violation), hits)
}

/// The mistake is noticed by a promise that it names; which, and how often its place was come by.
fn killed(mutant: Mutant, plan: &Plan) -> Option<(String, u64)> {
    let (violation, hits) = broken(Some(mutant), plan);
    let invariant = violation?.invariant;
    // S1 is S1a, S1b and S1c.
    let family = invariant.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let named = mutant.promises().contains(&family) && hits > 0;
    (named && broken(None, plan).0.is_none()).then_some((invariant, hits))
}

/// Whether a kept plan still shows the mistake. Its faults are the point, not its delays: those may be drawn anew, as a change
/// elsewhere shifts them.
fn shows(mutant: Mutant, plan: &Plan) -> bool {
    (0..DRAWN_ANEW).any(|more| killed(mutant, &Plan { seed: plan.seed.wrapping_add(more), ..plan.clone() }).is_some())
}

fn file(keep: &Path, mutant: Mutant) -> PathBuf {
    keep.join(format!("{}.json", mutant.id()))
}

fn kept(keep: &Path, mutant: Mutant) -> anyhow::Result<Option<Killer>> {
    let path = file(keep, mutant);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?))
}

/// Seeds until one shows the mistake.
fn find(mutant: Mutant, seeds: u64) -> Option<Killer> {
    let planned = |seed| aim::plan(mutant, seed).unwrap_or_else(|| swarm::plan(seed));
    let (seed, plan) =
        (1..=seeds).map(|seed| (seed, planned(seed))).find(|(_, plan)| killed(mutant, plan).is_some())?;
    let plan = shrink::shrink_while(&plan, &|plan| killed(mutant, plan).is_some());
    let (invariant, hits) = killed(mutant, &plan)?;
    Some(Killer { invariant, seeds: Some(seed), hits, plan })
}

/// Looks for a plan for every mistake (or for those that are named, or whose plan shows nothing any more), and keeps them.
pub fn hunt(seeds: u64, keep: &Path, only: &[String], stale: bool, threads: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(keep)?;
    // What panics is told by S0.
    std::panic::set_hook(Box::new(|_| {}));
    let mut wanted = Vec::new();
    for mutant in Mutant::ALL.iter().copied() {
        let named = only.is_empty() || only.iter().any(|id| id == mutant.id());
        let lives = || Ok::<_, anyhow::Error>(kept(keep, mutant)?.is_none_or(|k| !shows(mutant, &k.plan)));
        if named && (!stale || lives()?) {
            wanted.push(mutant);
        }
    }
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = look_for(*mutant, seeds, keep)
                        && let Ok(mut problems) = problems.lock()
                    {
                        problems.push(error);
                    }
                }
            });
        }
    });
    drop(std::panic::take_hook());
    problems.into_inner().unwrap_or_default().into_iter().next().map_or(Ok(()), Err)
}

fn look_for(mutant: Mutant, seeds: u64, keep: &Path) -> anyhow::Result<()> {
    let Some(killer) = find(mutant, seeds) else {
        // One that was written by hand does as well.
        let by_hand = kept(keep, mutant)?.filter(|k| k.seeds.is_none());
        if let Some(((invariant, hits), plan)) = by_hand.and_then(|k| Some((killed(mutant, &k.plan)?, k.plan))) {
            println!("{:28} {invariant:4} a plan by hand", mutant.id());
            let killer = Killer { invariant, seeds: None, hits, plan };
            std::fs::write(file(keep, mutant), serde_json::to_string_pretty(&killer)? + "\n")?;
        } else {
            println!("{:28} lives", mutant.id());
            if file(keep, mutant).exists() {
                std::fs::remove_file(file(keep, mutant))?;
            }
        }
        return Ok(());
    };
    println!(
        "{:28} {:4} seed {:4}, {} ops, {} hits",
        mutant.id(),
        killer.invariant,
        killer.seeds.unwrap_or(0),
        killer.plan.ops.len(),
        killer.hits
    );
    std::fs::write(file(keep, mutant), serde_json::to_string_pretty(&killer)? + "\n")?;
    Ok(())
}

/// Runs the kept plans: with its mistake each breaks a promise, without it none. What is wrong with them.
pub fn replay(keep: &Path) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for mutant in Mutant::ALL.iter().copied() {
        let excused = SURVIVE.iter().any(|(m, _)| *m == mutant);
        match kept(keep, mutant)? {
            Some(_) if excused => wrong.push(format!("{}: it has a plan although it is said to live", mutant.id())),
            None if excused => {}
            None => wrong.push(format!("{}: no plan shows it, and no reason is given", mutant.id())),
            Some(killer) => {
                if let Some(violation) = broken(None, &killer.plan).0 {
                    wrong.push(format!(
                        "{}: {} is broken without it: {}",
                        mutant.id(),
                        violation.invariant,
                        violation.what
                    ));
                } else if !shows(mutant, &killer.plan) {
                    wrong.push(format!("{}: its plan shows it no more (matriarch-sim mutants --stale)", mutant.id()));
                }
            }
        }
    }
    Ok(wrong)
}

/// docs/mutants.md
pub fn table(keep: &Path) -> anyhow::Result<String> {
    let mut text = String::from(
        "<!-- Made by `make mutants`. -->\n# Mistakes made on purpose\n\n\
         Each row is a rule, a fence or a model broken on purpose (`sidecar/ha/src/mutants.rs`). The simulator runs seeds until a promise \
         that the row names is broken, in a run that keeps all promises without the mistake; the plan is made small and kept in \
         `sidecar/sim/killers`, and every test run replays it. A check that has never noticed anything would prove nothing.\n\n\
         | Mistake | What is broken | Promise | Seeds until noticed | Faults in the kept plan |\n|---|---|---|---|---|\n",
    );
    for mutant in Mutant::ALL.iter().copied() {
        let (promise, seeds, ops) = if let Some(k) = kept(keep, mutant)? {
            let seeds = k.seeds.map_or("a plan by hand".to_owned(), |n| n.to_string());
            (k.invariant, seeds, k.plan.ops.len().to_string())
        } else {
            let why = SURVIVE.iter().find(|(m, _)| *m == mutant).map_or("?", |(_, why)| *why);
            (mutant.promises().join(", "), format!("lives: {why}"), "-".to_owned())
        };
        text.push_str(&format!("| {} | {} | {promise} | {seeds} | {ops} |\n", mutant.id(), mutant.what()));
    }
    Ok(text)
}
