//! Quorum replication: which step leads from the present state of voters and `synchronous_standby_names` to the wanted one.
//!
//! The rule of safety (Patroni's): a commit is acknowledged by the leader and `n` of the synchronous set S; a candidate
//! gathers itself and `q` of the voters V, the leader among them. They always share a member if `|V ∪ S| <= q + n`. Every
//! state in between keeps it. A standby counts towards a smaller `q` only after it has everything that may have been
//! acknowledged without it: all that was flushed when the present S came into force.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::store::record::SyncState;
use crate::types::Lsn;

/// `synchronous_standby_names`, as far as we write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNames {
    /// How many of `names` must have a commit.
    pub n: usize,
    /// Members, sorted.
    pub names: Vec<String>,
}

impl SyncNames {
    /// For a reader of the setting: `ANY 1 ("a-0","a-1")`, or empty.
    pub fn guc(&self) -> String {
        if self.n == 0 || self.names.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = self.names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect();
        format!("ANY {} ({})", self.n, quoted.join(","))
    }

    /// From the setting; none when we did not write it.
    pub fn parse(guc: &str) -> Option<Self> {
        if guc.trim().is_empty() {
            return Some(Self::default());
        }
        let rest = guc.trim().strip_prefix("ANY ")?;
        let (n, list) = rest.split_once(" (")?;
        let names = list
            .strip_suffix(')')?
            .split(',')
            .map(|name| name.trim().strip_prefix('"')?.strip_suffix('"').map(|n| n.replace("\"\"", "\"")))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { n: n.trim().parse().ok()?, names })
    }
}

/// What the leader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication<'a> {
    /// Our name.
    pub leader: &'a str,
    /// The `/sync` state.
    pub sync: &'a SyncState,
    /// The setting in force.
    pub in_force: &'a SyncNames,
    /// Our flush position when it came into force.
    pub in_force_since: Lsn,
    /// Members that stream now, with what they have flushed.
    pub streaming: &'a [(String, Lsn)],
    /// How many standbys shall have each commit.
    pub count: usize,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// All is as wanted.
    Steady,
    /// Write `/sync`.
    Sync(SyncState),
    /// Write `synchronous_standby_names`.
    Names(SyncNames),
    /// Nothing to write: these have still to flush what was acknowledged without them.
    Wait(String),
}

/// One step towards: voters = synchronous set = the streaming members, `n` = count, `q` = |V| − n.
pub fn next_step(r: &Replication<'_>) -> Step {
    let voters: BTreeSet<&String> = r.sync.voters.iter().collect();
    let in_force: BTreeSet<&String> = r.in_force.names.iter().collect();
    let wanted: BTreeSet<&String> = r.streaming.iter().map(|(name, _)| name).collect();
    let n = if in_force.is_empty() { 0 } else { r.in_force.n };
    let wanted_n = r.count.min(wanted.len());
    let write = |voters: &BTreeSet<&String>, quorum: usize| {
        Step::Sync(SyncState {
            leader: Some(r.leader.to_owned()),
            voters: voters.iter().map(|v| (*v).clone()).collect(),
            quorum,
        })
    };

    // Not ours yet, or not covering what is in force: the safest statement that is true now.
    let union: BTreeSet<&String> = voters.union(&in_force).copied().collect();
    if r.sync.leader.as_deref() != Some(r.leader) || union.len() > r.sync.quorum + n {
        return write(&union, union.len().saturating_sub(n));
    }
    // New standbys vote before commits may rest on them.
    let with_new: BTreeSet<&String> = voters.union(&wanted).copied().collect();
    if with_new != voters {
        return write(&with_new, with_new.len().saturating_sub(n));
    }
    // Then commits rest on the wanted set. A smaller n needs a larger q first.
    let names = SyncNames { n: wanted_n, names: wanted.iter().map(|w| (*w).clone()).collect() };
    if wanted != in_force || wanted_n != n {
        let needed = voters.len().saturating_sub(wanted_n);
        if r.sync.quorum < needed {
            return write(&voters, needed);
        }
        return Step::Names(names);
    }
    // Last, q shrinks and the gone voters go, once enough standbys have what was acknowledged under the former set.
    let quorum = wanted.len().saturating_sub(wanted_n);
    if voters == wanted && r.sync.quorum == quorum {
        return Step::Steady;
    }
    let behind: Vec<&str> =
        r.streaming.iter().filter(|(_, flush)| *flush < r.in_force_since).map(|(name, _)| name.as_str()).collect();
    if behind.is_empty() {
        write(&wanted, quorum)
    } else {
        Step::Wait(format!("{} not yet at {}", behind.join(", "), r.in_force_since))
    }
}

/// May a candidate take over? `votes` are the members that answered, ended their stream, and are not ahead of it.
pub fn elected(sync: &SyncState, candidate: &str, votes: &BTreeSet<String>) -> bool {
    let electorate =
        |name: &str| sync.leader.as_deref() == Some(name) || sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name));
    let others = votes.iter().filter(|v| *v != candidate && electorate(v)).count();
    if electorate(candidate) { others >= sync.quorum } else { others > sync.quorum }
}

/// The setting under which a state is safe: as many of its voters must have a commit as the next election may miss.
pub fn in_force(state: &SyncState) -> SyncNames {
    SyncNames { n: state.voters.len().saturating_sub(state.quorum), names: state.voters.clone() }
}

/// The state with which the winner of an election begins, before it is promoted: the old leader votes, the winner does not,
/// and `n` keeps the rule of safety.
pub fn takeover(sync: &SyncState, winner: &str) -> (SyncState, SyncNames) {
    let mut voters: BTreeSet<String> = sync.voters.iter().cloned().chain(sync.leader.clone()).collect();
    // A winner from outside had one vote more than needed; the rule holds with the same numbers.
    voters.remove(winner);
    let voters: Vec<String> = voters.into_iter().collect();
    let quorum = sync.quorum.min(voters.len());
    let state = SyncState { leader: Some(winner.to_owned()), voters, quorum };
    let names = in_force(&state);
    (state, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(leader: &str, voters: &[&str], quorum: usize) -> SyncState {
        SyncState { leader: Some(leader.into()), voters: voters.iter().map(|v| (*v).into()).collect(), quorum }
    }

    fn names(n: usize, names: &[&str]) -> SyncNames {
        SyncNames { n, names: names.iter().map(|v| (*v).into()).collect() }
    }

    /// Walks to the steady state; every state on the way keeps the rule of safety.
    fn walk(mut sync: SyncState, mut guc: SyncNames, streaming: &[&str]) -> (SyncState, SyncNames, usize) {
        let streaming: Vec<(String, Lsn)> = streaming.iter().map(|s| ((*s).to_owned(), Lsn(100))).collect();
        for steps in 0..20 {
            let step = next_step(&Replication {
                leader: "a",
                sync: &sync,
                in_force: &guc,
                in_force_since: Lsn(100),
                streaming: &streaming,
                count: 1,
            });
            match step {
                Step::Steady => return (sync, guc, steps),
                Step::Sync(s) => sync = s,
                Step::Names(n) => guc = n,
                Step::Wait(w) => panic!("waits: {w}"),
            }
            let union: BTreeSet<&String> = sync.voters.iter().chain(&guc.names).collect();
            let n = if guc.names.is_empty() { 0 } else { guc.n };
            assert!(union.len() <= sync.quorum + n, "unsafe: {sync:?} {guc:?}");
        }
        panic!("no steady state: {sync:?} {guc:?}");
    }

    #[test]
    fn from_nothing_to_two_standbys_and_back() {
        let (sync, guc, _) = walk(SyncState::default(), names(0, &[]), &["b", "c"]);
        assert_eq!(sync, state("a", &["b", "c"], 1));
        assert_eq!(guc.guc(), r#"ANY 1 ("b","c")"#);
        let (sync, guc, _) = walk(sync, guc, &["b"]);
        assert_eq!((&sync, guc.guc()), (&state("a", &["b"], 0), r#"ANY 1 ("b")"#.to_owned()));
        let (sync, guc, _) = walk(sync, guc, &[]);
        assert_eq!((&sync, guc.guc()), (&state("a", &[], 0), String::new()));
    }

    #[test]
    fn a_new_standby_is_not_trusted_before_it_has_caught_up() {
        let sync = state("a", &["b"], 1);
        let streaming = [("b".to_owned(), Lsn(99))];
        let guc = names(1, &["b"]);
        let step = next_step(&Replication {
            leader: "a",
            sync: &sync,
            in_force: &guc,
            in_force_since: Lsn(100),
            streaming: &streaming,
            count: 1,
        });
        assert!(matches!(step, Step::Wait(_)));
    }

    #[test]
    fn an_election_counts_votes_of_the_electorate_only() {
        let sync = state("a", &["b", "c"], 1);
        let votes = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        assert!(elected(&sync, "b", &votes(&["c"])));
        assert!(!elected(&sync, "b", &votes(&["d"])));
        assert!(!elected(&sync, "b", &votes(&[])));
        assert!(!elected(&sync, "d", &votes(&["c"])));
        assert!(elected(&sync, "d", &votes(&["b", "c"])));
        assert!(!elected(&state("a", &[], 0), "b", &votes(&["c"])), "nobody but the leader has the commits");
        assert!(elected(&state("a", &[], 0), "b", &votes(&["a"])));
    }

    #[test]
    fn a_winner_starts_with_the_old_leader_as_voter() {
        let (sync, guc) = takeover(&state("a", &["b", "c"], 1), "b");
        assert_eq!(sync, state("b", &["a", "c"], 1));
        assert_eq!(guc, names(1, &["a", "c"]));
        let (sync, guc) = takeover(&state("a", &["b"], 0), "b");
        assert_eq!((sync, guc), (state("b", &["a"], 0), names(1, &["a"])));
    }

    #[test]
    fn the_setting_is_read_as_it_is_written() {
        let guc = names(1, &["a-0", "a-1"]);
        assert_eq!(SyncNames::parse(&guc.guc()), Some(guc));
        assert_eq!(SyncNames::parse("FIRST 1 (x)"), None);
    }
}
