//! The leader's synchronous replication: which standbys may be synchronous, and the next step of [`crate::quorum`] towards them.

use super::{Call, Core};
use crate::config::SyncMode;
use crate::effect::Effect;
use crate::event::ServerStatus;
use crate::mutants::{self, Mutant};
use crate::quorum::{Replication, Step, SyncNames, next_step};
use crate::store::record::SyncState;
use crate::types::{Boot, Lsn};

/// A standby that does not stream keeps its place in the synchronous set for so long: it may just be following a new leader.
const SYNC_GRACE_MS: u64 = 1_000;

/// A process of PostgreSQL that runs has loaded a setting so long after a session shows it, milliseconds.
const RELOAD_MS: u64 = 250;

/// Whether every process acts on the setting that a session shows. Commits are acknowledged by walsenders, each by the setting that it has
/// loaded itself: their rows tell which of them count their standbys. That sessions wait at all is told by the checkpointer.
fn acts_on_it(status: &ServerStatus) -> bool {
    let names = SyncNames::parse(&status.sync_names);
    if names.n == 0 {
        return true;
    }
    let listed = |member: &str| names.is_star() || names.names.iter().any(|name| name.eq_ignore_ascii_case(member));
    // A walsender without a position is a backup's; those of a standby count nobody.
    let senders = status.standbys.iter().filter(|row| row.flush > Lsn(0) && !status.in_recovery);
    status.checkpointer_waits && senders.into_iter().all(|row| listed(&row.member) == (row.sync_state != "async"))
}

impl Core {
    /// What the server shows of its setting, in answer to a question sent at `sent`.
    pub(super) fn setting_seen(&mut self, sent: Boot, status: &ServerStatus) {
        if !status.in_recovery {
            // It is what is kept should this server stop: that of an earlier one is none of it any more.
            self.sync_kept = None;
        }
        if self.sync.guc.as_deref() != Some(&status.sync_names) {
            self.sync.guc = Some(status.sync_names.clone());
            self.sync.since = None;
        }
        let loaded = sent >= self.applied_at.plus_ms(RELOAD_MS) && acts_on_it(status);
        let settled = self.applied.is_some() && (loaded || mutants::on(Mutant::ShownIsLoaded));
        if self.sync.since.is_none() && (settled || mutants::on(Mutant::StaleSetting)) {
            self.sync.since = Some(status.flush);
        }
    }

    pub(super) fn keep_sync(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let Some(status) = self.server.status.clone() else { return };
        let in_force = SyncNames::parse(&status.sync_names);
        let state = self.sync_state();
        if self.config.sync_mode == SyncMode::Off && state.leader.is_none() && state.voters.is_empty() {
            self.sync.wanted = Some(SyncNames::default());
            return;
        }
        // Since when the setting is in force has to be known, and that nothing else is about to come into force.
        let current = self.applied.is_some() || mutants::on(Mutant::StaleSetting);
        let since = self.sync.since.filter(|_| current && self.sync.guc.as_deref() == Some(status.sync_names.as_str()));
        let Some(since) = since else { return self.query_soon(now) };
        if self.is_anothers(now, &state) {
            return;
        }
        if self.in_flight(|c| matches!(c, Call::Sync | Call::SyncRead)) || self.change.is_some() {
            return;
        }
        let streaming = self.synchronous_candidates(now, &status, &in_force);
        let written = self.applied.as_ref().map(|config| SyncNames::parse(&config.sync_names));
        let step = next_step(&Replication {
            leader: &self.id.name,
            sync: &state,
            settled: self.sync_settled() || mutants::on(Mutant::SyncInDoubtIgnored),
            in_force: &in_force,
            written: written.as_ref(),
            in_force_since: since,
            streaming: &streaming,
            mode: self.config.sync_mode,
            count: self.config.sync_count,
            strict: self.config.sync_strict,
        });
        match step {
            Step::Steady => {
                self.sync.wanted = Some(in_force);
                if self.config.sync_mode == SyncMode::Off {
                    self.end_sync(now, &streaming, since, effects);
                }
            }
            Step::Wait(_) => {
                self.sync.wanted = Some(in_force);
                self.query_soon(now);
            }
            Step::Sync(state) => {
                self.sync.wanted = Some(in_force);
                self.write_sync(now, &state, effects);
            }
            Step::Names(names) => {
                self.sync.wanted = Some(names);
                self.keep_configured(now, effects);
            }
        }
    }

    /// Another member has claimed `-sync`: it may have won the lock, of which we hear later, as each object has a watch of its own. A
    /// renewal that was sent since tells that the lock is still ours, so that it was a person.
    fn is_anothers(&mut self, now: Boot, state: &SyncState) -> bool {
        let foreign = state.leader.as_ref().is_some_and(|leader| *leader != self.id.name);
        self.sync.anothers = foreign.then(|| self.sync.anothers.unwrap_or(now));
        self.sync.anothers.is_some_and(|since| self.lease.confirmed() < Some(since))
    }

    /// The mode is off and nobody but us could lead: `-sync` goes when all who stream have what was acknowledged in the former mode, and
    /// not before somebody does: until then we alone have it.
    fn end_sync(&mut self, now: Boot, streaming: &[(String, Lsn)], since: Lsn, effects: &mut Vec<Effect>) {
        // Nobody else: one whose pod is just being replaced may come back with less.
        let mut others = self.members.iter().filter(|m| m.name != self.id.name).peekable();
        if streaming.is_empty() && (others.peek().is_none() || others.any(|m| !m.tags.nosync)) {
            return;
        }
        if streaming.iter().all(|(_, flush)| *flush >= since) {
            self.write_sync(now, &SyncState::default(), effects);
        } else {
            self.query_soon(now);
        }
    }

    /// Members that stream and may become synchronous, the best first: those that are, then by priority and position, those that
    /// never lead last.
    fn synchronous_candidates(&self, now: Boot, status: &ServerStatus, in_force: &SyncNames) -> Vec<(String, Lsn)> {
        // A member that streamed a moment ago, or whom we have not had the time to see, keeps its place.
        let lately = |name: &str| {
            let grace = SYNC_GRACE_MS + self.config.loop_wait_ms;
            self.sync.last_seen.get(name).is_some_and(|seen| now.ms_since(*seen) < grace)
        };
        let furthest = status.standbys.iter().map(|s| s.flush).max().unwrap_or_default();
        let lags = |flush: Lsn| {
            self.config.max_lag_on_syncnode.is_some_and(|limit| furthest.0.saturating_sub(flush.0) > limit)
        };
        let mut found = Vec::new();
        for member in self.members.iter().filter(|m| m.name != self.id.name && !m.tags.nosync) {
            let listed = in_force.names.contains(&member.name);
            let row = status.standbys.iter().find(|s| {
                s.member == member.name && (s.state == "streaming" || mutants::on(Mutant::VotersBeforeFlush))
            });
            let flush = match row {
                Some(row) if lags(row.flush) => continue,
                Some(row) => row.flush,
                None if listed && lately(&member.name) && !member.deleting => Lsn(0),
                None => continue,
            };
            let tags = &member.tags;
            let rank = (std::cmp::Reverse((!tags.nofailover, tags.sync_priority, listed, flush)), member.name.clone());
            found.push((rank, flush));
        }
        found.sort();
        found.into_iter().map(|((_, name), flush)| (name, flush)).collect()
    }

    /// Something is under way that only the server can tell of.
    pub(super) fn query_soon(&mut self, now: Boot) {
        if now.ms_since(self.queried_at) >= 100 {
            self.query_now = true;
        }
    }
}
