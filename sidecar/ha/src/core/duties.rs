//! Standing duties, whatever the verdict: renewals, permits, questions to the server, and what a leader owes its cluster
//! (slots, synchronous set, address, failsafe).

use super::Core;
use crate::effect::{Change, Effect, ServerConfig};
use crate::event::Now;
use crate::history::{self, Line};
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::types::{Boot, Timeline};

/// After which a SELECT counts as unanswered, milliseconds.
const QUERY_TIMEOUT_MS: u64 = 1_000;
/// Between two looks at a history file, milliseconds.
const HISTORY_MS: u64 = 2_000;
/// Pace of questions while a server starts, milliseconds.
pub(super) const STARTING_QUERY_MS: u64 = 50;
/// Between two tries to write a wiped configuration, milliseconds.
const CONFIG_RETRY_MS: u64 = 1_000;
/// A checkpoint that is not done after this is asked for again, milliseconds.
const CHECKPOINT_MS: u64 = 30_000;

impl Core {
    pub(super) fn duties(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let boot = now.boot;
        self.ask_server(boot, effects);
        self.keep_configured(boot, effects);
        self.failsafe_round(boot, effects);
        self.prepare_to_lead(boot, effects);
        if !self.ending() && self.task.is_none() {
            self.keep_slots(boot, effects);
        }
        let follows = self.server.status.as_ref().is_some_and(|s| s.in_recovery && s.streaming) && self.task.is_none();
        if follows && self.restartpoint_at.is_some_and(|at| at <= boot) {
            self.restartpoint_at = None;
            let id = self.id();
            effects.push(Effect::Change { id, change: Change::Checkpoint });
        }
        // The promotion waits for it.
        let recovers = self.server.status.as_ref().is_some_and(|s| s.in_recovery);
        if recovers && self.sync.since.is_none() && self.holder(boot) == Holder::Me {
            self.query_soon(boot);
        }
        let leading = self.leading(boot);
        if !(leading || self.leading_standbys(boot)) || self.ending() || self.handing_over || self.task.is_some() {
            return;
        }
        if leading {
            self.keep_sync(boot, effects);
        }
        self.keep_address(boot, effects);
        self.keep_config(boot, effects);
        self.finish_failover(boot, effects);
        self.keep_history(boot, effects);
        self.keep_control(boot, effects);
    }

    /// After a promotion pg_control tells the old timeline until a checkpoint, and pg_rewind, which believes it, waits for that.
    fn keep_control(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let behind = self
            .server
            .status
            .as_ref()
            .is_some_and(|s| s.checkpoint_timeline != Timeline(0) && s.checkpoint_timeline < s.timeline);
        if behind && self.address_written() && now >= self.checkpoint_again_at {
            self.checkpoint_again_at = now.plus_ms(CHECKPOINT_MS);
            let id = self.id();
            effects.push(Effect::Change { id, change: Change::Checkpoint });
        }
    }

    /// The holder renews every `loop_wait`, and sooner after a failure. A member without its supervisor does not: whether
    /// PostgreSQL lives is not known then.
    pub(super) fn renew(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let boot = now.boot;
        // Only its holder makes a lost lock object anew.
        let stays = !self.ending() && self.pods.get(&self.id.name).is_some();
        let wiped = stays
            && matches!(self.holder(boot), Holder::Absent { .. })
            && self.lease.deadline().is_some_and(|d| boot < d);
        let primary = self.server.status.as_ref().is_some_and(|s| !s.in_recovery);
        let holds = self.holder(boot) == Holder::Me || (primary && mutants::on(Mutant::RenewOthersLock));
        if (!holds && !wiped) || !self.server.attached || !self.server.installed {
            return;
        }
        let confirmed = self.lease.confirmed().is_some_and(|c| c >= self.lock_sent);
        let due = boot >= self.lock_sent.plus_ms(self.config.loop_wait_ms);
        // That the fence is lifted is told before it is; that it is back, as soon as the supervisor has said so.
        let told = self.lease.record().is_some_and(|r| r.fence_ms.is_some());
        if due || !confirmed || wiped || told != self.fence_to_tell(true) || self.lacks_timeline(boot) {
            self.write_lock(now, true, effects);
        }
    }

    /// Tells the supervisor what the lease allows.
    pub(super) fn permit(&mut self, effects: &mut Vec<Effect>) {
        if !self.server.attached {
            return;
        }
        // No promotion passes the fence in a standby cluster; a primary that is on its way down keeps what it has.
        let writable = self.server.latched || self.config.standby_cluster.is_none();
        let (wanted, lifted) = match (self.lease.deadline().filter(|_| writable), self.lease.lifted()) {
            (Some(_), Some(long)) if self.may_lift_fence() => (Some(Some(long)), true),
            (Some(deadline), _) => (Some(Some(deadline)), false),
            // What still stops cannot be writable, and the permit that it has runs out by itself.
            (None, _) if self.released_early => (None, false),
            // Our tenure ended: what is left of the permit is taken back.
            (None, _) => (self.permitted.is_some().then_some(Some(Boot(0))), false),
        };
        if let Some(deadline) = wanted
            && self.permitted != Some(deadline)
        {
            self.permit_seq += 1;
            if lifted {
                self.armed = false;
                self.arming = None;
                if !self.lifted {
                    self.lifting.get_or_insert(self.permit_seq);
                }
            } else {
                self.lifted = false;
                self.lifting = None;
                if !self.armed {
                    self.arming.get_or_insert(self.permit_seq);
                }
            }
            self.permitted = Some(deadline);
            effects.push(Effect::Permit { seq: self.permit_seq, deadline });
        }
    }

    /// The lock must say that our fence may be lifted: while it is to be, and until the supervisor has said that it is not.
    pub(super) fn fence_to_tell(&self, renewal: bool) -> bool {
        let told = self.lease.record().is_some_and(|r| r.fence_ms.is_some());
        if renewal {
            self.may_lift_fence() || (told && !self.armed)
        } else {
            // A primary that runs under a permit that we know nothing of.
            self.server.latched && !self.armed
        }
    }

    /// A pause that was asked for is not in force as long as our primary's fence is not lifted: should the agent end now, it would close.
    pub(super) fn pausing(&self) -> bool {
        self.config.pause && self.server.latched && self.lease.deadline().is_some() && !self.lifted
    }

    fn ask_server(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        if !self.server.running || !self.server.attached {
            return;
        }
        if let Some((_, sent)) = self.query {
            if now.ms_since(sent) < 2 * QUERY_TIMEOUT_MS {
                return;
            }
            self.query = None;
        }
        let starting = self.server.status.is_none();
        let pace = if starting { STARTING_QUERY_MS } else { self.config.loop_wait_ms };
        let pause = if starting { STARTING_QUERY_MS } else { 0 };
        if now.ms_since(self.queried_at) >= pace || (self.query_now && now.ms_since(self.queried_at) >= pause) {
            let id = self.id();
            self.query = Some((id, now));
            self.query_now = false;
            effects.push(Effect::Query { id, timeout_ms: QUERY_TIMEOUT_MS });
        }
    }

    /// A running server's files say what the configuration says.
    pub(super) fn keep_configured(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        if self.server.status.is_none() || self.task.is_some() || !self.server.attached {
            return;
        }
        // An election ends the stream, also of a standby whose upstream we do not know.
        let known = if self.stream_hold.is_some() { Some(None) } else { self.server.upstream.clone() };
        let Some(upstream) = known else {
            // Attached to a running server. A primary has no upstream; whom a standby follows, the rules say.
            if self.server.status.as_ref().is_some_and(|s| !s.in_recovery) {
                self.server.upstream = Some(None);
            }
            return;
        };
        let wanted = ServerConfig { upstream, ..self.server_config() };
        if self.applied.as_ref() != Some(&wanted) {
            self.configure(now, wanted, effects);
        }
    }

    /// A configuration that was wiped is written again as it was.
    fn keep_config(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let wiped = self.config_document.is_some() && self.locks.fresh() && !self.config_is_stored();
        if wiped && now.ms_since(self.config_sent) >= CONFIG_RETRY_MS {
            self.write_config(now, &[], effects);
        }
    }

    /// After a promotion the `history` key gets the line of the timeline that ended.
    fn keep_history(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let timeline = self.server.status.as_ref().map(|s| s.timeline).unwrap_or_default();
        if timeline.0 == 1 && !self.history.lines().is_empty() {
            self.write_config(now, &[("history", Some("[]".to_owned()))], effects);
        }
        let due = now.ms_since(self.history_asked_at) >= HISTORY_MS;
        let lacks = self.history.lacks(timeline) && self.history_read_of != timeline;
        if lacks && due && self.address_written() {
            let id = self.id();
            self.history_asked = Some(id);
            self.history_asked_at = now;
            effects.push(Effect::History { id, timeline });
        }
    }

    /// The history file was read.
    pub(super) fn history_read(
        &mut self,
        now: Now,
        id: u64,
        result: Result<Vec<Line>, String>,
        effects: &mut Vec<Effect>,
    ) {
        if self.history_asked.take_if(|asked| *asked == id).is_none() || !self.leading(now.boot) {
            return;
        }
        match result {
            Ok(mut lines) => {
                if let Some(last) = lines.last_mut() {
                    last.at.get_or_insert_with(|| now.wall.to_string());
                }
                let lines = self.history.merged(lines, &self.id.name, self.config.max_history);
                if lines == self.history.lines() {
                    // A promotion may leave numbers out: then nothing tells that the last line is its own, but that there is no other.
                    self.history_read_of = self.server.status.as_ref().map(|s| s.timeline).unwrap_or_default();
                    return;
                }
                self.write_config(now.boot, &[("history", Some(history::text(&lines)))], effects);
            }
            Err(why) => self.server.last_error = Some(why),
        }
    }

    /// A request that we have fulfilled is cleared.
    fn finish_failover(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let failover = crate::store::record::Failover::parse(self.locks.get(&self.id.failover_object));
        if let Some(failover) = failover
            && failover.leader.as_deref() != Some(self.id.name.as_str())
            && failover.member.as_deref().is_none_or(|m| m == self.id.name)
        {
            self.clear_failover(now, None, effects);
        }
    }
}
