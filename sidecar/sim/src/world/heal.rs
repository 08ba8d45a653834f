//! After the faults: a part of the members, or all, is whole again, and has to show that it works. Caches, requests in flight,
//! latches and half-done work stay as they are.

use matriarch_ha::decide::Rule;

use super::{Phase, S, World};
use crate::check::{Expected, Violation};
use crate::plan::Durability;

/// Fresh commits that a healed cluster has to take.
const FRESH: u64 = 10;

/// Votes count for 2.5 s; looked at once a second.
const VOTES_LIVE: u64 = 3 * S;

/// How far a healed part has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    expected: Option<Expected>,
    acks: u64,
    led_since: Option<u64>,
    /// Promotions until then.
    led_forks: u64,
    forks: u64,
    /// A standby could not become consistent.
    never_ready: bool,
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
        for node in &mut self.nodes {
            node.wipes = 0;
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
        let backoff = config.more.get("primary_race_backoff").and_then(serde_json::Value::as_u64).unwrap_or(0);
        (config.ttl + 2 * config.loop_wait + config.retry_timeout + 20 + paused + backoff) * S
    }

    /// And to a whole cluster: copies are made, one after a failed rewind.
    fn whole_limit(&self) -> u64 {
        // A standby that cannot become consistent is copied anew after ten minutes, and a copy that did not help is made
        // again no sooner.
        let never_ready = if self.heal.never_ready { 600 * S } else { 0 };
        self.leader_limit() + 120 * S + never_ready
    }

    pub(super) fn heal_second(&mut self) {
        let starts = |n: &super::Node| n.server.pm == super::Pm::Recovering && n.disk.written.lsn < n.disk.consistent;
        let copied = |n: &super::Node| n.agent.rule == "follower.copied-lately";
        self.heal.never_ready |= self.nodes.iter().any(|n| starts(n) || copied(n));
        let since = self.now - self.phase_since;
        let members: Vec<usize> = if self.phase == Phase::CoreHealed {
            self.plan.config.core.clone()
        } else {
            (0..self.current.len()).collect()
        };
        if self.heal.expected == Some(Expected::MustNotLead) && since <= VOTES_LIVE && self.held_among(&members) {
            self.line(|_| "==== elected by votes that were given before".to_owned());
            self.heal.expected = Some(Expected::Either);
        }
        if self.heal.expected == Some(Expected::MustNotLead) {
            if self.stats.failovers > self.heal.forks {
                self.fail_with("L1", "a part of the members leads that must not: it may lack commits");
            }
            if since > self.leader_limit() {
                self.healed();
            }
            return;
        }
        if self.leader().is_some() && self.heal.led_since.is_none() {
            self.heal.led_since = Some(self.now);
            self.heal.led_forks = self.stats.failovers;
        }
        let why = self.unsettled_among(&members);
        // In strict mode one alone acknowledges nothing.
        let strict = self.plan.config.strict && self.check.durability != Durability::Async;
        let fresh = (strict && members.len() == 1) || self.stats.acks >= self.heal.acks + FRESH;
        if why.is_empty() && fresh && self.all_have_all(&members) {
            self.check_calm(&members, self.heal.led_forks);
            return self.healed();
        }
        if self.heal.led_since.is_none() && since > self.leader_limit() {
            if let Some(why) = self.rightly_waits(&members) {
                self.line(|_| format!("==== nobody leads: {why}"));
                return self.healed();
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

    /// This part is done: the whole comes next, then silence, then the end.
    fn healed(&mut self) {
        match self.phase {
            Phase::CoreHealed => {
                self.enter(Phase::Healed);
                self.begin_heal();
            }
            // An order for later may be due any time.
            Phase::Healed
                if self.plan.config.quiet_ms > 0
                    && self.leader().is_some()
                    && !self.nodes.iter().any(|n| n.ordered) =>
            {
                self.enter(Phase::Quiet);
            }
            _ => self.enter(Phase::Done),
        }
    }

    /// Why nobody may lead though these members are whole: what the rules say has to be what the oracle knows.
    fn rightly_waits(&self, members: &[usize]) -> Option<&'static str> {
        let says = |node: &usize, rule: Rule| self.nodes[*node].agent.rule == rule.id();
        let any = |rule| self.current.iter().any(|node| says(node, rule));
        if self.check.paused && any(Rule::PausedHolder) {
            return Some("the holder of a pause is gone with its fence lifted: a person decides");
        }
        if self.check.durability == Durability::Async && any(Rule::Lagging) {
            return Some("it lacks more than people said may be lost");
        }
        // Without promises to clients all that can be had is waited for, also a copy that may not lead by itself.
        if self.check.durability == Durability::Async && any(Rule::NotInTopology) {
            return Some("the best copy is one that the last leader did not know of: a person decides");
        }
        // Those that the last leader knew of are gone, and might lead without this copy.
        let stranger = |node: &usize| !self.nodes[*node].disk.intact() || says(node, Rule::NotInTopology);
        if self.current.iter().all(stranger) {
            return Some("the only copy is one that the last leader did not know of");
        }
        // A volume was lost whose member alone may lead by what is stored: a write of it that came late says so.
        if self.phase == Phase::Healed && !self.electable(members) {
            return Some("those who are left may lack commits");
        }
        (self.heal.expected == Some(Expected::Either)).then_some("only a part of the members is there")
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
