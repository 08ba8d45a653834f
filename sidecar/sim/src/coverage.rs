//! Which rules the seeds have fired, and why some never fire here: each of those names the test that fires it instead.

use std::collections::BTreeMap;

use matriarch_ha::decide::Rule;

/// Fewer seeds say nothing about rare rules.
pub const ENOUGH: u64 = 5_000;

/// A rule that no plan leads to.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere {
    /// Which.
    pub rule: Rule,
    /// Why no plan leads to it.
    pub why: &'static str,
    /// The file of the test that fires it, from the root of the repository.
    pub file: &'static str,
    /// The test, or the scenario.
    pub test: &'static str,
}

const fn elsewhere(rule: Rule, why: &'static str, file: &'static str, test: &'static str) -> Elsewhere {
    Elsewhere { rule, why, file, test }
}

const SNAPSHOTS: &str = "sidecar/ha/tests/exhaustive/decide.rs";
const ALL_SNAPSHOTS: &str = "every_snapshot_has_one_verdict_that_keeps_the_promises";
const BOOTSTRAP: &str = "sidecar/ha/tests/bootstrap.rs";

/// Rules that no plan leads to. A run fails when one of them is fired by more than one in [`ENOUGH`] seeds after all, and a run of so
/// many when another is not.
pub const ELSEWHERE: &[Elsewhere] = &[
    elsewhere(Rule::NoPostgres, "every simulated image has PostgreSQL", SNAPSHOTS, ALL_SNAPSHOTS),
    elsewhere(Rule::WrongSystem, "no plan gives a member another cluster's volume", SNAPSHOTS, ALL_SNAPSHOTS),
    elsewhere(
        Rule::LeaderBarred,
        "no plan has a pre_promote or a watchdog that says no",
        "sidecar/ha/tests/callbacks.rs",
        "who_may_not_lead_gives_the_lock_back_and_lets_others_go_first",
    ),
    elsewhere(
        Rule::Barred,
        "no plan has a pre_promote or a watchdog that says no",
        "sidecar/ha/tests/callbacks.rs",
        "who_may_not_lead_gives_the_lock_back_and_lets_others_go_first",
    ),
    elsewhere(
        Rule::Adopt,
        "Patroni is not modelled",
        "sidecar/ha/tests/mixed.rs",
        "the_primary_that_patroni_had_the_lock_for_goes_on_under_our_agent",
    ),
    elsewhere(
        Rule::Unstartable,
        "no plan keeps a directory from starting ten times in a row",
        "sidecar/ha/tests/copies.rs",
        "a_standby_that_cannot_be_started_is_copied_while_the_leader_vouches_for_its_data",
    ),
    elsewhere(
        Rule::Restore,
        "no plan has a replica method that needs no leader",
        BOOTSTRAP,
        "a_new_member_is_restored_without_a_leader_where_a_method_needs_none",
    ),
    elsewhere(
        Rule::PrimaryAgain,
        "no plan deletes the lock object of a paused leader whose agent is down",
        "sidecar/ha/tests/pause.rs",
        "a_standby_promoted_by_hand_takes_the_lock",
    ),
    elsewhere(
        Rule::OldTimeline,
        "check_timeline is off in all plans",
        "sidecar/ha/tests/handover.rs",
        "members_on_an_old_timeline_do_not_lead_where_that_is_asked_for",
    ),
    elsewhere(
        Rule::BootstrapRecovery,
        "clusters are made by initdb, not from a backup",
        "e2e/src/bare/list.rs",
        "pitr",
    ),
    elsewhere(
        Rule::BootstrapFailed,
        "nothing fails before the cluster stands",
        BOOTSTRAP,
        "a_bootstrap_that_fails_leaves_the_cluster_as_new_and_says_why",
    ),
    elsewhere(Rule::TakeOverBootstrap, "nothing fails before the cluster stands", SNAPSHOTS, ALL_SNAPSHOTS),
];

/// How many of so many seeds fired each rule (by id): lines for people, and what is wrong.
pub fn judge(fired: &BTreeMap<&'static str, u64>, seeds: u64) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for rule in Rule::ALL {
        let count = fired.get(rule.id()).copied().unwrap_or(0);
        let elsewhere = ELSEWHERE.iter().find(|e| e.rule == *rule);
        let why = elsewhere.map_or(String::new(), |e| format!("  {}: {} ({})", e.why, e.test, e.file));
        lines.push(format!("  {:28} {count:6}{why}", rule.id()));
        match (count, elsewhere) {
            (0, None) if seeds >= ENOUGH => {
                wrong.push(format!("no seed fires {}, and no reason is given (coverage.rs)", rule.id()));
            }
            // Now and then many faults together come by what no plan aims at.
            (_, Some(_)) if count > seeds / ENOUGH => {
                wrong.push(format!(
                    "{} is fired by {count} seeds, although coverage.rs says that no plan leads to it",
                    rule.id()
                ));
            }
            _ => {}
        }
    }
    (lines, wrong)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_rule_that_never_fires_needs_a_reason_and_one_that_fires_has_none() {
        let all: BTreeMap<&str, u64> = Rule::ALL.iter().map(|rule| (rule.id(), 3)).collect();
        let named: BTreeMap<&str, u64> = all
            .iter()
            .map(|(id, n)| (*id, *n))
            .filter(|(id, _)| !ELSEWHERE.iter().any(|e| e.rule.id() == *id))
            .collect();
        assert_eq!(judge(&named, ENOUGH).1, Vec::<String>::new());
        assert_eq!(judge(&all, 1).1.len(), ELSEWHERE.len(), "fired after all");
        let none = BTreeMap::new();
        assert_eq!(judge(&none, ENOUGH).1.len(), Rule::ALL.len() - ELSEWHERE.len(), "never fired");
        assert_eq!(judge(&none, ENOUGH - 1).1, Vec::<String>::new(), "too few seeds");
    }

    #[test]
    fn the_tests_that_are_named_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for Elsewhere { rule, file, test, .. } in ELSEWHERE {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let there = text.contains(&format!("fn {test}(")) || text.contains(&format!("\"{test}\""));
            assert!(there, "{}: there is no {test} in {file}", rule.id());
        }
    }
}
