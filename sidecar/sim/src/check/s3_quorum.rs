//! S3: those whose votes elect a leader, and those who must have a commit, always have a member in common.

use matriarch_ha::event::Kind;
use matriarch_ha::quorum::SyncNames;
use matriarch_ha::store::record::SyncState;

use crate::plan::Durability;
use crate::world::{S, World, counts};

/// Tries every electing set against every set that can acknowledge a commit without it.
fn always_meet(state: &SyncState, names: &SyncNames) -> bool {
    let leader = state.leader.as_deref().unwrap_or_default();
    let needed = if names.names.is_empty() { 0 } else { names.n };
    let voters: Vec<&str> = state.voters.iter().map(String::as_str).filter(|m| *m != leader).collect();
    // The candidate and its votes; one from outside needs a vote more. With the leader among them nothing can be missing.
    let electing = |set: &u32| set.count_ones() as usize > state.quorum;
    (0..1_u32 << voters.len()).filter(electing).all(|set| {
        let inside = |name: &str| voters.iter().enumerate().any(|(i, voter)| *voter == name && set & 1 << i != 0);
        let others = names.names.iter().filter(|m| *m != leader && !inside(m)).count();
        !names.is_star() && needed > others
    })
}

impl World {
    pub(crate) fn sync_state(&self) -> SyncState {
        SyncState::parse(self.api.get(Kind::Lock, "x-sync").ok().as_deref())
    }

    /// Whoever is promoted has claimed `/sync`: else its commits rest on another's votes.
    pub(crate) fn check_claimed(&mut self, node: usize) {
        if self.check.durability == Durability::Async || self.check.suspended || self.check.failover_by_hand {
            return;
        }
        let n = &self.nodes[node];
        if let Some(leader) = self.sync_state().leader.filter(|leader| *leader != n.name) {
            let what = format!("{} is promoted while the votes are those of {leader}", n.name);
            self.check.fail(self.now, "S3", what);
        }
    }

    /// After every write of `/sync`, and every change of the setting that is loaded.
    pub(crate) fn check_names(&mut self, node: usize) {
        if self.check.durability == Durability::Async {
            return;
        }
        let n = &self.nodes[node];
        let state = self.sync_state();
        if !n.writable() || state.leader.as_deref() != Some(n.name.as_str()) {
            return;
        }
        // What any of its processes acts on, and what a new one would.
        let asked_of_none = SyncNames::default();
        let walsenders = n.server.senders.iter().filter(|s| counts(&s.names, &s.member)).map(|s| &s.names);
        let sessions = if n.server.waits { &n.server.names } else { &asked_of_none };
        let wrong = walsenders.chain([sessions, &n.server.names]).find(|names| !always_meet(&state, names));
        let holds = wrong.is_none();
        let names = wrong.unwrap_or(&n.server.names);
        if holds {
            let known = n.agent.view.as_ref().is_some_and(|view| view.sync_mode != "off");
            if known && !self.following && self.now > self.check.asked_at + 3 * S {
                self.check.suspended = false;
            }
        } else if !self.check.suspended {
            let what = format!(
                "{}: voters {:?} with quorum {}, but commits need {} of {:?}",
                n.name, state.voters, state.quorum, names.n, names.names
            );
            self.check.fail(self.now, "S3", what);
        }
    }
}
