//! After the faults: a part of the members, or all, is whole again, and has to show that it works. Caches, requests in flight,
//! latches and half-done work stay as they are.

use matriarch_ha::decide::Rule;

use super::{Phase, S, World};
use crate::check::{Expected, Violation};
use crate::plan::Durability;

/// Fresh commits that a healed cluster has to take.
const FRESH: u64 = 10;

/// How far a healed part has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    expected: Option<Expected>,
    acks: u64,
    led_since: Option<u64>,
    forks: u64,
}

impl World {
    pub(super) fn begin_heal(&mut self) {
        self.end_all_faults();
        let core = self.plan.config.core.clone();
        for member in 0..self.current.len() {
            let node = self.current[member];
            if self.phase == Phase::CoreHealed && !core.contains(&member) {
                self.node_crashes(node);
            } else {
                self.node_boots(node);
            }
        }
        self.heal = Progress { acks: self.stats.acks, forks: self.stats.failovers, ..Progress::default() };
        if self.phase == Phase::CoreHealed {
            self.heal.expected = Some(self.expected(&core));
            let expected = self.heal.expected;
            self.line(|_| format!("==== of {core:?}: {expected:?}"));
        }
    }

    /// Longest time to a leader: the lock expires, a lost request is waited for, a server recovers or is promoted.
    fn leader_limit(&self) -> u64 {
        let config = &self.plan.config;
        let paused = if self.check.paused { 3 * config.ttl } else { 0 };
        (config.ttl + 2 * config.loop_wait + config.retry_timeout + 20 + paused) * S
    }

    /// And to a whole cluster: copies are made, one after a failed rewind.
    fn whole_limit(&self) -> u64 {
        self.leader_limit() + 120 * S
    }

    pub(super) fn heal_second(&mut self) {
        let since = self.now - self.phase_since;
        let members: Vec<usize> = if self.phase == Phase::CoreHealed {
            self.plan.config.core.clone()
        } else {
            (0..self.current.len()).collect()
        };
        if self.heal.expected == Some(Expected::MustNotLead) {
            if self.stats.failovers > self.heal.forks {
                self.fail_with("L1", "a part of the members leads that must not: it may lack commits");
            }
            if since > self.leader_limit() {
                self.enter(Phase::Healed);
                self.begin_heal();
            }
            return;
        }
        if self.leader().is_some() {
            self.heal.led_since.get_or_insert(self.now);
        }
        let why = self.unsettled_among(&members);
        // In strict mode one alone acknowledges nothing.
        let strict = self.plan.config.strict && self.check.durability != Durability::Async;
        let fresh = (strict && members.len() == 1) || self.stats.acks >= self.heal.acks + FRESH;
        let whole = why.is_empty() && fresh && self.all_have_all(&members);
        if whole {
            let next = if self.phase == Phase::CoreHealed { Phase::Healed } else { Phase::Done };
            self.enter(next);
            if next == Phase::Healed {
                self.begin_heal();
            }
            return;
        }
        // The holder of a pause that is gone with its fence lifted is waited for until a person decides: so the rule says.
        // So is, in async, a member that lacks more than people said may be lost.
        let lagging = self.check.durability == Durability::Async
            && self.current.iter().any(|node| self.nodes[*node].agent.rule == Rule::Lagging.id());
        let paused = self.check.paused
            && self.current.iter().any(|node| self.nodes[*node].agent.rule == Rule::PausedHolder.id());
        // And a copy that the last leader did not know of yet, when all that it knew are gone: they might lead without it.
        let outside = self
            .current
            .iter()
            .all(|node| !self.nodes[*node].disk.intact() || self.nodes[*node].agent.rule == Rule::NotInTopology.id());
        if (paused || lagging || outside) && self.heal.led_since.is_none() && since > self.leader_limit() {
            return self.enter(Phase::Done);
        }
        let may_wait = self.heal.expected == Some(Expected::Either);
        if self.heal.led_since.is_none() && since > self.leader_limit() {
            if may_wait {
                self.enter(Phase::Healed);
                return self.begin_heal();
            }
            // A volume was lost whose member alone may lead by what is stored: a write of it that came late says so.
            if self.phase == Phase::Healed && !self.electable(&members) {
                return self.enter(Phase::Done);
            }
            let rules = self.rules();
            self.fail_with("L1", &format!("no leader {} s after all was whole again: {rules}", since / S));
        }
        if since > self.whole_limit() {
            let rules = self.rules();
            let (invariant, why) =
                if why.is_empty() { ("L3", "fresh commits are missing") } else { ("L2", why.as_str()) };
            self.fail_with(invariant, &format!("after {} s: {why}: {rules}", since / S));
        }
    }

    fn rules(&self) -> String {
        let rule = |member: &usize| format!("{}: {}", self.nodes[*member].name, self.nodes[*member].agent.rule);
        self.current.iter().map(rule).collect::<Vec<_>>().join(", ")
    }

    fn fail_with(&mut self, invariant: &str, what: &str) {
        let violation = Violation { invariant: invariant.to_owned(), at: self.now, what: what.to_owned() };
        self.check.violation.get_or_insert(violation);
    }
}
