//! After the faults: a part of the members, or all, is whole again, and has to show that it works. Caches, requests in flight,
//! latches and half-done work stay as they are.

use matriarch_ha::decide::Rule;

use super::{Phase, S, World};
use crate::check::{Expected, Violation};
use crate::model::wal::Pos;
use crate::plan::Durability;

/// Fresh commits that a healed cluster has to take.
const FRESH: u64 = 10;

/// `primary_start_timeout`, seconds, where it is not configured.
const START_TIMEOUT: u64 = 300;

/// For so long others wait without votes for a member that starts, seconds.
const STARTING: u64 = 30;

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
    /// The same where there is a cluster outside: it may be the one with the lock.
    lacked: bool,
    /// What the cluster outside had committed then; and where it was once it had more.
    source_commits: u64,
    mark: Option<Pos>,
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
        self.heal = Progress {
            acks: self.stats.acks,
            forks: self.stats.failovers,
            source_commits: self.stats.source_commits,
            ..Progress::default()
        };
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
        // Promoted while it lacked WAL of the cluster outside, it is waited for as any primary that starts.
        let start = config.more.get("primary_start_timeout").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let start = if start == 0 { START_TIMEOUT } else { start };
        let lacks = if self.heal.lacked { start } else { 0 };
        // Where the lock was deleted, one that starts is waited for, also if it lacks WAL that comes only from a leader.
        let lacks = lacks + if self.heal.never_ready { STARTING } else { 0 };
        (config.ttl + 2 * config.loop_wait + config.retry_timeout + 20 + paused + backoff + lacks) * S
    }

    /// And to a whole cluster: copies are made, one after a failed rewind.
    fn whole_limit(&self) -> u64 {
        // A standby that cannot become consistent is copied anew after ten minutes, and a copy that did not help is made
        // again no sooner.
        let never_ready = if self.heal.never_ready { 600 * S } else { 0 };
        self.leader_limit() + 120 * S + never_ready
    }

    fn lacks_wal(&self, node: usize) -> bool {
        let n = &self.nodes[node];
        n.server.pm == super::Pm::Recovering && n.disk.written.lsn < n.disk.consistent
    }

    pub(super) fn heal_second(&mut self) {
        let copied = |n: &super::Node| n.agent.rule == "follower.copied-lately";
        let lacks = (0..self.nodes.len()).any(|node| self.lacks_wal(node));
        self.heal.never_ready |= lacks || self.nodes.iter().any(copied);
        self.heal.lacked |= lacks && self.source.is_some();
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
        let fresh = if self.following {
            self.has_followed(&members)
        } else {
            (strict && members.len() == 1) || self.stats.acks >= self.heal.acks + FRESH
        };
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

    /// What the cluster outside has written since is here.
    fn has_followed(&mut self, members: &[usize]) -> bool {
        let Some(source) = self.source else { return false };
        if self.heal.mark.is_none() && self.stats.source_commits >= self.heal.source_commits + FRESH {
            let disk = &self.nodes[source].disk;
            self.heal.mark = Some(Pos { lsn: disk.flushed, ..disk.written });
        }
        let Some(mark) = self.heal.mark else { return false };
        members.iter().all(|member| {
            let disk = &self.nodes[self.current[*member]].disk;
            self.wal.contains(Pos { lsn: disk.flushed, ..disk.written }, mark)
        })
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
        // Only the cluster outside has the WAL that each copy lacks, and it is followed no more.
        let lacks = |member: &usize| {
            let disk = &self.nodes[self.current[*member]].disk;
            !disk.intact() || disk.written.lsn < disk.consistent
        };
        let able: Vec<usize> = members.iter().copied().filter(|member| !lacks(member)).collect();
        if self.source.is_some() && (able.is_empty() || !self.electable(&able)) {
            return Some("promoted without the WAL that it lacks: a person lets it follow again");
        }
        if self.check.durability == Durability::Async && able.is_empty() {
            return Some("the volume is lost that had the WAL which each copy lacks");
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
