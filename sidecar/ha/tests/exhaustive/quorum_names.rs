//! The planner's own functions on members that are numbers and sets that are bits; each distinct question is asked once.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use matriarch_ha::config::SyncMode;
use matriarch_ha::quorum::{self, Replication, Step, SyncNames};
use matriarch_ha::store::record::SyncState;
use matriarch_ha::types::Lsn;

/// No member.
pub const NOBODY: u8 = 9;

/// `/sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sync {
    pub leader: u8,
    pub voters: u8,
    pub q: u8,
}

/// `synchronous_standby_names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guc {
    pub first: bool,
    pub n: u8,
    pub names: u8,
}

/// A step of the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Steady,
    Wait,
    Sync(Sync),
    Names(Guc),
}

/// What the planner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    pub me: u8,
    pub sync: Sync,
    pub settled: bool,
    pub loaded: Guc,
    pub written: Option<Guc>,
    pub streaming: u8,
    pub behind: u8,
    pub wish: Wish,
}

/// A mode, and how many copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    Off,
    Quorum(u8),
    Priority(u8),
}

impl Wish {
    fn mode(self) -> SyncMode {
        match self {
            Self::Off => SyncMode::Off,
            Self::Quorum(_) => SyncMode::Quorum,
            Self::Priority(_) => SyncMode::Priority,
        }
    }

    fn count(self) -> usize {
        match self {
            Self::Off => 1,
            Self::Quorum(n) | Self::Priority(n) => usize::from(n),
        }
    }
}

pub fn name(member: u8) -> String {
    format!("m{member}")
}

pub fn members(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |m| mask & (1 << m) != 0)
}

pub fn names(mask: u8) -> Vec<String> {
    members(mask).map(name).collect()
}

fn number(name: &str) -> u8 {
    name[1..].parse().unwrap()
}

fn mask<'a>(names: impl IntoIterator<Item = &'a String>) -> u8 {
    names.into_iter().fold(0, |mask, name| mask | 1 << number(name))
}

impl Sync {
    pub const NONE: Self = Self { leader: NOBODY, voters: 0, q: 0 };

    fn state(self) -> SyncState {
        let leader = (self.leader != NOBODY).then(|| name(self.leader));
        SyncState { leader, voters: names(self.voters), quorum: usize::from(self.q) }
    }
}

impl From<&SyncState> for Sync {
    fn from(s: &SyncState) -> Self {
        let leader = s.leader.as_deref().map_or(NOBODY, number);
        Self { leader, voters: mask(&s.voters), q: u8::try_from(s.quorum).unwrap() }
    }
}

impl Guc {
    fn names(self) -> SyncNames {
        SyncNames { first: self.first, n: usize::from(self.n), names: names(self.names) }
    }
}

impl From<&SyncNames> for Guc {
    fn from(s: &SyncNames) -> Self {
        Self { first: s.first, n: u8::try_from(s.n).unwrap(), names: mask(&s.names) }
    }
}

/// Answers that were given already.
#[derive(Default)]
pub struct Memo {
    steps: RefCell<HashMap<Ask, Plan>>,
    elected: RefCell<HashMap<(Sync, u8, u8), bool>>,
    safe: RefCell<HashMap<(Sync, Guc), bool>>,
}

impl Memo {
    pub fn next_step(&self, ask: Ask) -> Plan {
        *self.steps.borrow_mut().entry(ask).or_insert_with(|| {
            let streaming: Vec<(String, Lsn)> =
                members(ask.streaming).map(|m| (name(m), Lsn(u64::from(ask.behind & (1 << m) == 0)))).collect();
            let written = ask.written.map(Guc::names);
            let step = quorum::next_step(&Replication {
                leader: &name(ask.me),
                sync: &ask.sync.state(),
                settled: ask.settled,
                in_force: &ask.loaded.names(),
                written: written.as_ref(),
                in_force_since: Lsn(1),
                streaming: &streaming,
                mode: ask.wish.mode(),
                count: ask.wish.count(),
                strict: false,
            });
            match step {
                Step::Steady => Plan::Steady,
                Step::Wait(_) => Plan::Wait,
                Step::Sync(s) => Plan::Sync(Sync::from(&s)),
                Step::Names(n) => Plan::Names(Guc::from(&n)),
            }
        })
    }

    /// S3, of the design, in the planner's own words: its test has the definition.
    pub fn safe(&self, sync: Sync, guc: Guc) -> bool {
        *self.safe.borrow_mut().entry((sync, guc)).or_insert_with(|| {
            let voters = names(sync.voters);
            let voters: BTreeSet<&str> = voters.iter().map(String::as_str).collect();
            quorum::safe(&voters, usize::from(sync.q), &guc.names())
        })
    }

    pub fn elected(&self, sync: Sync, candidate: u8, votes: u8) -> bool {
        *self.elected.borrow_mut().entry((sync, candidate, votes)).or_insert_with(|| {
            let votes: BTreeSet<String> = names(votes).into_iter().collect();
            quorum::elected(&sync.state(), &name(candidate), &votes)
        })
    }
}

pub fn claim(sync: Sync, winner: u8, wish: Wish) -> (Sync, Guc) {
    let (state, names) = quorum::claim(&sync.state(), &name(winner), wish.mode(), false);
    (Sync::from(&state), Guc::from(&names))
}
