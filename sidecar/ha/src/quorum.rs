//! Synchronous replication: which step leads from the present state of `-sync` and `synchronous_standby_names` to the wanted one.
//!
//! One algebra for all modes. `-sync` has voters V and a number q: who wants to lead gathers q votes of V and the leader besides its
//! own ([`elected`]). A commit is acknowledged by the leader and n of the synchronous set S. [`safe`] says that the two always share
//! a member, so that the winner has the commit. Quorum mode has V = S and q = |V| − n; priority mode V = S, n = |S|, q = 0: each
//! listed standby has everything, needs nobody's vote, and must have every commit until the moment it is promoted itself. With V
//! empty only the leader can lead, whatever S is.
//!
//! Every state on the way is safe, also from one mode to another. What was acknowledged under an earlier S is covered because V and q
//! become weaker only when all who may then lead have flushed what the leader had when the present S came into force.
//!
//! No write is trusted before its outcome is known. A written setting may be loaded at any moment, so `-sync` is left alone until
//! the file says what is in force. A write of `-sync` that was given up on may land at any moment, so the setting is left alone
//! until a later write by CAS is confirmed: then the earlier one has landed before it, or never will.
//! `sidecar/ha/tests/exhaustive` walks through every interruption.

use std::collections::BTreeSet;

use crate::config::SyncMode;
use crate::mutants::{self, Mutant};
use crate::store::record::SyncState;
pub use crate::sync_names::SyncNames;
use crate::types::Lsn;

/// What the leader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication<'a> {
    /// Our name.
    pub leader: &'a str,
    /// The `/sync` state.
    pub sync: &'a SyncState,
    /// The stored state is our own last write, so that no earlier one of ours can land any more.
    pub settled: bool,
    /// The setting in force.
    pub in_force: &'a SyncNames,
    /// What the configuration file says; none: not known.
    pub written: Option<&'a SyncNames>,
    /// Our flush position when it came into force.
    pub in_force_since: Lsn,
    /// Members that stream now and may become synchronous, with what they have flushed; the best first.
    pub streaming: &'a [(String, Lsn)],
    /// Which mode is wanted.
    pub mode: SyncMode,
    /// How many standbys shall have each commit.
    pub count: usize,
    /// No commit is acknowledged without a standby.
    pub strict: bool,
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

type Set<'a> = BTreeSet<&'a str>;

/// Every set of members that can make one of them the leader shares a member with every set that can acknowledge a commit.
pub fn safe(voters: &Set<'_>, q: usize, names: &SyncNames) -> bool {
    // Without the leader's own vote nobody wins.
    if q >= voters.len() {
        return true;
    }
    if names.n == 0 || names.is_star() {
        return false;
    }
    let outside = voters.iter().filter(|v| !names.names.iter().any(|n| n == *v)).count();
    let met = (q + 1).saturating_sub(outside);
    names.names.len() < names.n + met + usize::from(mutants::on(Mutant::SafeOffByOne))
}

/// The smallest q with which these voters are safe.
fn least(voters: &Set<'_>, names: &SyncNames) -> usize {
    (0..voters.len()).find(|q| safe(voters, *q, names)).unwrap_or(voters.len())
}

impl Replication<'_> {
    fn write(&self, voters: &Set<'_>, quorum: usize) -> Step {
        Step::Sync(SyncState {
            leader: Some(self.leader.to_owned()),
            voters: voters.iter().map(|v| (*v).to_owned()).collect(),
            quorum,
        })
    }

    /// The setting that is wanted in the end.
    fn wanted(&self) -> SyncNames {
        let mut names: Vec<String> = self.streaming.iter().map(|(name, _)| name.clone()).collect();
        let first = self.mode == SyncMode::Priority;
        match self.mode {
            SyncMode::Off => names.clear(),
            SyncMode::Priority => names.truncate(self.count),
            SyncMode::Quorum => {}
        }
        names.sort();
        if names.is_empty() {
            return if self.strict && self.mode != SyncMode::Off {
                SyncNames::star(first)
            } else {
                SyncNames::default()
            };
        }
        if first { SyncNames::all_of(names) } else { SyncNames { first, n: self.count.min(names.len()), names } }
    }
}

/// One step towards the wanted mode.
pub fn next_step(r: &Replication<'_>) -> Step {
    if r.written != Some(r.in_force) {
        return Step::Names(r.in_force.clone());
    }
    match step_towards(r) {
        // The same once more: what is under way on the version before it is void then.
        Step::Names(_) if !r.settled => Step::Sync(r.sync.clone()),
        step => step,
    }
}

fn step_towards(r: &Replication<'_>) -> Step {
    // Not ours yet: only we lead, until standbys are known to have what we have.
    if r.sync.leader.as_deref() != Some(r.leader) {
        return r.write(&Set::new(), 0);
    }
    let voters: Set = r.sync.voters.iter().map(String::as_str).collect();
    let q = r.sync.quorum.min(voters.len());
    if !safe(&voters, q, r.in_force) {
        return r.write(&voters, least(&voters, r.in_force));
    }
    let wanted = r.wanted();
    let target: Set = wanted.names.iter().map(String::as_str).filter(|name| *name != "*").collect();
    // Quorum: new standbys vote before commits may rest on them. Each new voter raises q, so that no fewer old ones are asked.
    if r.mode == SyncMode::Quorum {
        let with_new: Set = voters.union(&target).copied().collect();
        if with_new != voters {
            let raised = (q + with_new.len() - voters.len()).max(least(&with_new, r.in_force));
            let raised = if mutants::on(Mutant::VotersNotRaised) { q } else { raised };
            return r.write(&with_new, raised.min(with_new.len()));
        }
    }
    if wanted != *r.in_force && mutants::on(Mutant::SyncBeforeNames) {
        return r.write(&target, 0);
    }
    // Then commits rest on the wanted set, once V and q are safe with it too.
    if wanted != *r.in_force {
        if safe(&voters, q, &wanted) || mutants::on(Mutant::NamesBeforeSync) {
            return Step::Names(wanted);
        }
        let stay: Set = match r.mode {
            SyncMode::Quorum => voters.clone(),
            _ => voters.intersection(&target).copied().collect(),
        };
        let q = q.max(least(&stay, r.in_force)).max(least(&stay, &wanted)).min(stay.len());
        return r.write(&stay, q);
    }
    // Last, V and q become what the wanted set allows, once those who may lead then have what was acknowledged under the former set.
    let quorum = match r.mode {
        SyncMode::Quorum if !wanted.is_star() => target.len() - wanted.n.min(target.len()),
        _ => 0,
    };
    if voters == target && q == quorum {
        return Step::Steady;
    }
    let has_all = |name: &str| {
        // Who could lead without anybody's vote until now still can.
        mutants::on(Mutant::VotersBeforeFlush)
            || (r.mode == SyncMode::Priority && q == 0 && voters.contains(name))
            || r.streaming.iter().any(|(n, flush)| n == name && *flush >= r.in_force_since)
    };
    let behind: Vec<&str> = target.iter().copied().filter(|name| !has_all(name)).collect();
    if behind.is_empty() {
        return r.write(&target, quorum);
    }
    let confirmed: Set = target.iter().copied().filter(|name| has_all(name)).collect();
    if r.mode == SyncMode::Priority && q == 0 && confirmed.len() > voters.len() && voters.is_subset(&confirmed) {
        return r.write(&confirmed, 0);
    }
    Step::Wait(format!("{} not yet at {}", behind.join(", "), r.in_force_since))
}

/// May a candidate take over? `votes` are the members that answered, ended their stream, and are not ahead of it.
pub fn elected(sync: &SyncState, candidate: &str, votes: &BTreeSet<String>) -> bool {
    let others = votes.iter().filter(|v| *v != candidate && electorate(sync, v)).count();
    let others = if mutants::on(Mutant::QuorumOffByOne) { others + 1 } else { others };
    let inside = electorate(sync, candidate) || mutants::on(Mutant::OutsiderLeads);
    if inside { others >= sync.quorum } else { others > sync.quorum }
}

/// Its vote counts.
pub fn electorate(sync: &SyncState, name: &str) -> bool {
    sync.leader.as_deref() == Some(name) || sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name))
}

/// The setting under which a state is safe: as many of its voters must have a commit as the next election may miss.
pub fn in_force(state: &SyncState, mode: SyncMode, strict: bool) -> SyncNames {
    let names = SyncNames {
        first: mode == SyncMode::Priority,
        n: state.voters.len().saturating_sub(state.quorum),
        names: state.voters.clone(),
    };
    match names.n {
        0 if strict && mode != SyncMode::Off => SyncNames::star(mode == SyncMode::Priority),
        0 => SyncNames::default(),
        _ => names,
    }
}

/// The state with which the winner of an election begins, before it is promoted, and the setting that is in force from its first
/// commit on. In quorum mode the old leader votes, the winner does not, and `n` keeps the rule of safety. Otherwise only the winner
/// can lead at first, so that its commits need wait for nobody (in strict mode: for anybody).
pub fn takeover(sync: &SyncState, winner: &str, mode: SyncMode, strict: bool) -> (SyncState, SyncNames) {
    let mut voters: BTreeSet<String> = BTreeSet::new();
    if mode == SyncMode::Quorum {
        // A winner from outside had one vote more than needed; the rule holds with the same numbers.
        let old = sync.leader.clone().filter(|_| !mutants::on(Mutant::TakeoverWithoutLeader));
        voters.extend(sync.voters.iter().cloned().chain(old));
        voters.remove(winner);
    }
    let voters: Vec<String> = voters.into_iter().collect();
    let quorum = sync.quorum.min(voters.len());
    let state = SyncState { leader: Some(winner.to_owned()), voters, quorum };
    let names = in_force(&state, mode, strict);
    (state, names)
}

/// The state that is written before a promotion, or before a start as primary of which nobody remembers the setting, and that setting:
/// our own as it is, else a takeover.
pub fn claim(sync: &SyncState, me: &str, mode: SyncMode, strict: bool) -> (SyncState, SyncNames) {
    if sync.leader.as_deref() == Some(me) {
        (sync.clone(), in_force(sync, mode, strict))
    } else {
        takeover(sync, me, mode, strict)
    }
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
