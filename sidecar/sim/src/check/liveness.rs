//! L1: a healed cluster has a leader soon. L2: everybody streams from it. L3: it takes writes, and everybody gets them.

use matriarch_ha::event::Kind;
use matriarch_ha::quorum::{elected, electorate};
use matriarch_ha::store::record::LockRecord;

use crate::model::wal::Pos;
use crate::plan::Durability;
use crate::world::{Pm, World};

/// Whether a part of the members has to come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    MustLead,
    MustNotLead,
    Either,
}

impl World {
    /// The member that leads: holds the lock, and takes writes or, in a standby cluster, runs without.
    pub(crate) fn leader(&self) -> Option<usize> {
        let object = self.api.get(Kind::Lock, self.leader_object()).ok()?;
        let record = LockRecord::parse(&object);
        let node = self.nodes.iter().position(|n| record.holder_uid.as_deref() == Some(n.uid.as_str()))?;
        let n = &self.nodes[node];
        let stands_by = n.up && n.frozen == 0 && n.server.pm == Pm::Up && !n.server.primary && !n.server.promoting;
        let leads = if self.following { stands_by } else { n.writable() };
        leads.then_some(node)
    }

    /// One of these pods holds the lock.
    pub(crate) fn held_among(&self, members: &[usize]) -> bool {
        let Ok(object) = self.api.get(Kind::Lock, self.leader_object()) else { return false };
        let holder = LockRecord::parse(&object).holder_uid;
        members.iter().any(|m| holder.as_deref() == Some(self.nodes[self.current[*m]].uid.as_str()))
    }

    /// Why the present members are not one whole yet; empty: they are.
    pub(crate) fn unsettled_among(&self, members: &[usize]) -> String {
        let Some(leader) = self.leader() else { return "nobody leads".to_owned() };
        let writable = |n: &usize| *n != leader && self.nodes[*n].writable() && !self.nodes[*n].outside;
        if let Some(zombie) = (0..self.nodes.len()).find(writable) {
            return format!("{} can write, too", self.nodes[zombie].name);
        }
        if let Some(source) = self.source.filter(|_| self.following)
            && !self.streams_from(leader, source)
        {
            let n = &self.nodes[leader];
            return format!("{} does not stream from the source (rule {})", n.name, n.agent.rule);
        }
        for member in members {
            let node = self.current[*member];
            if node == leader {
                continue;
            }
            let n = &self.nodes[node];
            if !self.streams_from(node, leader) {
                return format!("{} does not stream from {} (rule {})", n.name, self.nodes[leader].name, n.agent.rule);
            }
        }
        String::new()
    }

    /// Directly, or by way of others.
    fn streams_from(&self, node: usize, leader: usize) -> bool {
        let mut at = node;
        for _ in 0..self.current.len() {
            let Some(receiver) = &self.nodes[at].server.receiver else { return false };
            at = receiver.upstream;
            if receiver.upstream_server != self.nodes[at].server.incarnation {
                return false;
            }
            if at == leader {
                return true;
            }
        }
        false
    }

    /// A member's tag keeps it from leading.
    fn never_leads(&self, member: usize) -> bool {
        self.config().tags.get(member).is_some_and(|tags| tags["nofailover"] == true)
    }

    /// All of them.
    pub(crate) fn unsettled(&self) -> String {
        let all: Vec<usize> = (0..self.current.len()).collect();
        self.unsettled_among(&all)
    }

    pub(crate) fn settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    /// Everybody has everything that was acknowledged.
    pub(crate) fn all_have_all(&self, members: &[usize]) -> bool {
        let Some(leader) = self.leader() else { return false };
        members.iter().all(|member| {
            let disk = &self.nodes[self.current[*member]].disk;
            let at = Pos { lsn: disk.flushed, ..disk.written };
            self.missing(true, at).is_empty() && at.branch == self.nodes[leader].disk.written.branch
        })
    }

    /// Whether a leader may and can come from these members alone.
    pub(crate) fn expected(&self, core: &[usize]) -> Expected {
        let state = self.sync_state();
        if self.check.durability == Durability::Async || state.leader.is_none() || self.following {
            return Expected::Either;
        }
        if self.check.paused {
            // A holder whose fence was lifted is waited for.
            return Expected::Either;
        }
        let object = self.api.get(Kind::Lock, self.leader_object());
        let record = object.map(|object| LockRecord::parse(&object)).unwrap_or_default();
        // The present holder goes on, or is replaced; both are right.
        if core.iter().any(|m| record.holder_uid.as_deref() == Some(self.nodes[self.current[*m]].uid.as_str())) {
            return Expected::Either;
        }
        // A pod that replaces the holder's asks another member whether the lock is free.
        if let [only] = core
            && record.leader.as_deref() == Some(self.nodes[self.current[*only]].name.as_str())
        {
            return Expected::Either;
        }
        match (self.electable(core), self.electable_some_day(core)) {
            (true, _) => Expected::MustLead,
            (false, true) => Expected::Either,
            (false, false) => Expected::MustNotLead,
        }
    }

    /// One of them could win an election that only they take part in.
    pub(crate) fn electable(&self, core: &[usize]) -> bool {
        self.could_win(core, true)
    }

    /// The same when standbys that are not consistent yet have become so, and a person overrules what failsafe asks for.
    fn electable_some_day(&self, core: &[usize]) -> bool {
        self.could_win(core, false)
    }

    /// What failsafe asks of who leads next: the last leader knew of it, and if an earlier pod of its name was that leader, another
    /// that it knew of has to say that the lock is free.
    fn failsafe_allows(&self, record: &LockRecord, candidate: usize, core: &[usize]) -> bool {
        let n = &self.nodes[self.current[candidate]];
        let known = |member: usize| record.failsafe.contains_key(&self.nodes[self.current[member]].name);
        if !self.config().failsafe || record.failsafe.is_empty() {
            return true;
        }
        let replaces = record.leader.as_deref() == Some(n.name.as_str())
            && record.holder_uid.as_deref().is_some_and(|uid| uid != n.uid)
            && record.failsafe.keys().any(|name| *name != n.name);
        known(candidate) && (!replaces || core.iter().any(|member| *member != candidate && known(*member)))
    }

    fn could_win(&self, core: &[usize], now: bool) -> bool {
        // What is stored decides, also while the configuration asks for something else.
        let state = self.sync_state();
        let record = self.api.get(Kind::Lock, self.leader_object()).map(|o| LockRecord::parse(&o)).unwrap_or_default();
        if state.leader.is_none() {
            return core.iter().any(|member| !self.never_leads(*member));
        }
        let usable = |member: usize| {
            let n = &self.nodes[self.current[member]];
            // PostgreSQL tells no position before its log is consistent.
            let tells = n.disk.written.lsn >= n.disk.consistent || !now;
            (n.disk.intact() && tells).then(|| (self.wal.timeline(n.disk.written.branch), n.disk.written.lsn))
        };
        // In priority mode nobody leads who is not listed, whoever votes for it.
        let priority = self.check.durability == Durability::Priority;
        let may_win = |candidate: usize| {
            if priority && now && !electorate(&state, &self.nodes[self.current[candidate]].name) {
                return false;
            }
            let Some(position) = usable(candidate).filter(|_| !self.never_leads(candidate)) else { return false };
            let votes = core
                .iter()
                .filter(|m| **m != candidate && usable(**m).is_some_and(|other| other <= position))
                .map(|m| self.nodes[self.current[*m]].name.clone())
                .collect();
            let ahead = core.iter().any(|m| !self.never_leads(*m) && usable(*m).is_some_and(|other| other > position));
            !ahead && elected(&state, &self.nodes[self.current[candidate]].name, &votes)
        };
        // Whoever has the whole log of a primary that stopped in order lacks nothing, votes or not.
        let complete = |candidate: usize| {
            record.leader.is_none()
                && !self.never_leads(candidate)
                && record.shutdown.is_some_and(|(timeline, end)| {
                    usable(candidate).is_some_and(|(t, lsn)| t == timeline.0 && lsn > end.0)
                })
        };
        core.iter().any(|candidate| {
            let allowed = !now || self.failsafe_allows(&record, *candidate, core);
            allowed && (may_win(*candidate) || complete(*candidate))
        })
    }
}
