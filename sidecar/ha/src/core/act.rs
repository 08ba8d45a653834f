//! Actions become effects, unless they are on their way already.

use std::collections::BTreeMap;

use super::{CALL_TIMEOUT_MS, Call, Core, LeaderProbe};
use crate::config::{SyncMode, limits};
use crate::decide::{Action, Job, Verdict};
use crate::effect::{Change, Effect, Patch, Question, ServerConfig, StoreCall, Task};
use crate::election::{ANSWER_TIMEOUT_MS, Round};
use crate::event::{Kind, Now};
use crate::lease::{Holder, PAUSE_FENCE_MS};
use crate::member::Member;
use crate::mutants::{self, Mutant};
use crate::quorum::claim;
use crate::slots::SlotKind;
use crate::snapshot::{Snapshot, TaskKind, TaskView, position};
use crate::store::record::{BOOTSTRAP, CLAIM, FENCE, HOLDER, LockRecord, RESULT, SHUTDOWN, SyncState, TIMELINE};
use crate::types::{Boot, Lsn, Timeline};

/// Between two questions to a leader that has not said yet that it is the primary, milliseconds.
const ASK_AGAIN_MS: u64 = 100;
/// After giving the lock up, nothing is started here for so long, milliseconds.
const GIVEN_UP_MS: u64 = 5_000;
/// After a failed bootstrap this member leaves the next try to others for so long, milliseconds.
const BOOTSTRAP_AGAIN_MS: u64 = 60_000;
/// Between two looks at a postmaster that is being stopped, and at its standbys, milliseconds.
const LOOK_AGAIN_MS: u64 = 200;
/// A member that sent nothing is passed over for so long, milliseconds.
const SHUN_MS: u64 = 60_000;

impl Core {
    pub(super) fn act(&mut self, now: Now, action: Action, s: &Snapshot, effects: &mut Vec<Effect>) {
        let boot = now.boot;
        match action {
            Action::Inspect => {
                // While PostgreSQL stops nothing tells when there is something new to see.
                let soon = self.task.is_some() && boot.ms_since(self.inspected_at) < LOOK_AGAIN_MS;
                if self.inspect.is_none() && !soon {
                    self.inspected_at = boot;
                    let id = self.id();
                    self.inspect = Some(id);
                    effects.push(Effect::Inspect { id });
                }
            }
            Action::Query => self.query_now = true,
            Action::Acquire => {
                self.won_on = Some(s.sync.clone());
                self.sync_claim = None;
                self.sync_kept = None;
                self.write_lock(now, false, effects);
            }
            Action::Release(at) => {
                if self.server.failures > 0 {
                    // Others go first; should it come back to us, it is tried anew.
                    self.server.failures = 0;
                    self.server.retry_at = boot.plus_ms(GIVEN_UP_MS);
                }
                self.releasing_since.get_or_insert(boot);
                self.release(boot, at, effects);
            }
            Action::Run(job) => self.run(boot, job, s, effects),
            Action::Cancel => {
                if let Some((id, _, view)) = &mut self.task
                    && !view.cancelled
                {
                    view.cancelled = true;
                    effects.push(Effect::CancelTask { id: *id });
                }
            }
            Action::OpenRound => self.open_round(boot, s, effects),
            Action::AskStandbys => self.ask_standbys(boot, s, effects),
            Action::AskLeader => self.ask_leader(boot, s, effects),
            Action::Follow(upstream) => {
                let config = ServerConfig { upstream, ..self.server_config() };
                self.configure(boot, config, effects);
            }
            Action::RaceInitialize => {
                self.server.bootstrap_failed = None;
                let by = format!("{}@{}", self.id.name, self.id.uid);
                self.write_config(boot, &[("initialize", Some(String::new())), (BOOTSTRAP, Some(by))], effects);
            }
            Action::WriteInitialize(system_id) => {
                self.write_config(boot, &[("initialize", Some(system_id)), (BOOTSTRAP, None)], effects);
            }
            Action::CancelBootstrap => {
                self.server.retry_at = boot.plus_ms(BOOTSTRAP_AGAIN_MS);
                if self.holder(boot) == Holder::Me {
                    self.unclaim(boot, effects);
                } else {
                    self.write_config(boot, &[("initialize", None), (BOOTSTRAP, None)], effects);
                }
            }
            Action::WriteSync(state) => self.write_sync(boot, &state, effects),
            Action::Repair(repair) => self.server.repair = repair,
            Action::Shun(member) => self.server.shunned = Some((member, boot.plus_ms(SHUN_MS))),
            Action::BeginCommand => self.commands.begun(),
            Action::HandOver => {
                self.handing_over = true;
                self.server.commanded = true;
            }
            Action::FailoverIsDue => self.failover_is_due(boot, s, effects),
            Action::ClearFailover(why) => self.clear_failover(boot, why, effects),
            Action::Finish => {
                self.finished = true;
                effects.push(Effect::Finish);
            }
        }
    }

    /// Logged once, and again only when it changes.
    pub(super) fn note(&mut self, verdict: &Verdict, effects: &mut Vec<Effect>) -> bool {
        let same =
            self.verdict.as_ref().is_some_and(|(rule, reason)| *rule == verdict.rule && *reason == verdict.reason);
        if !same {
            self.verdict = Some((verdict.rule, verdict.reason.clone()));
            effects.push(Effect::Verdict { rule: verdict.rule.id(), reason: verdict.reason.clone() });
        }
        !same
    }

    /// Takes or renews the lock by CAS. What is confirmed counts from now.
    pub(super) fn write_lock(&mut self, now: Now, renewal: bool, effects: &mut Vec<Effect>) {
        let boot = now.boot;
        if self.lock_write_in_flight() || self.too_early(boot, &self.id.leader_object) {
            return;
        }
        let fence_ms = self.fence_to_tell(renewal).then_some(PAUSE_FENCE_MS);
        let ttl_ms = self.lease.ttl_to_write(boot, self.config.ttl_ms, fence_ms);
        let written = now.wall.to_string();
        let record = self.lease.record().cloned();
        let known = record.clone().unwrap_or_default();
        let acquire_time = if renewal && known.ever_held() { known.acquire_time.clone() } else { written.clone() };
        let transitions = match (&record, renewal) {
            (None, _) => 0,
            (Some(r), true) => r.transitions,
            (Some(r), false) if !r.ever_held() => 0,
            (Some(r), false) => r.transitions + 1,
        };
        let mut annotations: BTreeMap<String, Option<String>> = BTreeMap::from([
            ("leader".to_owned(), Some(self.id.name.clone())),
            (HOLDER.to_owned(), Some(format!("{}@{acquire_time}", self.id.uid))),
            ("ttl".to_owned(), Some((ttl_ms / 1000).to_string())),
            ("renewTime".to_owned(), Some(written)),
            ("acquireTime".to_owned(), Some(acquire_time)),
            ("transitions".to_owned(), Some(transitions.to_string())),
            (SHUTDOWN.to_owned(), None),
        ]);
        if fence_ms.is_some() || known.fence_ms.is_some() {
            annotations.insert(FENCE.to_owned(), fence_ms.map(|ms| (ms / 1000).to_string()));
        }
        if let Some(status) = self.server.status.as_ref().filter(|s| !s.in_recovery || self.standby_leader) {
            annotations.insert("optime".to_owned(), Some(position(status).0.to_string()));
            annotations.insert("slots".to_owned(), self.slot_positions(status));
            annotations.insert("retain_slots".to_owned(), self.retained_slots());
        }
        let timeline = self.timeline_to_write(known.timeline, renewal);
        if timeline != known.timeline {
            annotations.insert(TIMELINE.to_owned(), Some(timeline.to_string()));
        }
        if self.config.failsafe_mode {
            let topology = self.topology(&known);
            self.topology_sent.extend(topology.keys().cloned());
            annotations.insert("failsafe".to_owned(), serde_json::to_string(&topology).ok());
        }
        self.lease.sending(boot, now.wall, ttl_ms, fence_ms);
        self.lock_sent = boot;
        let addresses =
            (self.id.slice.is_none() && !self.id.ip.is_empty() && (self.leading(boot) || self.leading_standbys(boot)))
                .then(|| vec![self.id.ip.clone()]);
        self.lock_call(boot, annotations, addresses, record.is_some(), effects);
    }

    /// All members that failsafe mode would ask: those with an address and an api_url, and ourselves.
    fn topology(&self, known: &LockRecord) -> BTreeMap<String, String> {
        let mut topology: BTreeMap<String, String> =
            self.members.iter().filter_map(|m| Some((m.name.clone(), m.api_url()?.to_owned()))).collect();
        topology.insert(self.id.name.clone(), self.id.api_url.clone());
        if !self.pods.listed() {
            topology.extend(known.failsafe.clone());
        }
        topology
    }

    fn lock_call(
        &mut self,
        now: Boot,
        annotations: BTreeMap<String, Option<String>>,
        addresses: Option<Vec<String>>,
        exists: bool,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.id();
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), Call::Lock));
        let name = self.id.leader_object.clone();
        let blind = match annotations.get("leader") {
            Some(Some(_)) => mutants::on(Mutant::LockWithoutVersion),
            _ => mutants::on(Mutant::ReleaseWithoutVersion),
        };
        effects.push(Effect::Store(if exists {
            StoreCall::Patch(Patch {
                id,
                kind: Kind::Lock,
                name,
                resource_version: (!blind).then(|| self.lease.resource_version().to_owned()),
                annotations,
                labels: BTreeMap::new(),
                addresses,
                timeout_ms: CALL_TIMEOUT_MS,
            })
        } else {
            let annotations = annotations.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
            StoreCall::Create { id, kind: Kind::Lock, name, annotations, owners: self.owners.clone() }
        }));
    }

    fn release(&mut self, now: Boot, at: Option<(Timeline, Lsn)>, effects: &mut Vec<Effect>) {
        if self.lock_write_in_flight() || self.too_early(now, &self.id.leader_object) {
            return;
        }
        if self.server.running {
            self.released_early = true;
        } else {
            // PostgreSQL does not run here any more, so the rest of the permit is taken back first.
            self.lease.end();
            self.permit(effects);
        }
        let tenure = self.lease.record().map_or("", |record| record.acquire_time.as_str());
        let mut annotations: BTreeMap<String, Option<String>> = BTreeMap::from([
            ("leader".to_owned(), None),
            (HOLDER.to_owned(), None),
            (FENCE.to_owned(), None),
            (SHUTDOWN.to_owned(), at.map(|(timeline, lsn)| format!("{timeline}@{}@{tenure}", lsn.0))),
        ]);
        if let Some((_, lsn)) = at {
            annotations.insert("optime".to_owned(), Some(lsn.0.to_string()));
        }
        // The address of the stopped primary stays until the next leader writes its own: connections are refused either way, and
        // kube-proxy takes one change at once, but the second of two only a second later.
        self.lock_call(now, annotations, None, true, effects);
    }

    /// Takes back all that a bootstrap without success wrote into the lock: there is no data that it could have protected.
    fn unclaim(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        if self.lock_write_in_flight() {
            return;
        }
        self.lease.end();
        self.permit(effects);
        let keys = ["leader", HOLDER, SHUTDOWN, "ttl", "renewTime", "acquireTime", "transitions", "optime"];
        let annotations = keys.map(|key| (key.to_owned(), None)).into();
        self.lock_call(now, annotations, None, true, effects);
    }

    fn run(&mut self, now: Boot, job: Job, s: &Snapshot, effects: &mut Vec<Effect>) {
        if self.task.is_some() && !mutants::on(Mutant::TwoTasks) {
            return;
        }
        let kind = job.kind();
        let task = match &job {
            Job::Initdb => {
                self.server.post_bootstrapped = false;
                Task::Initdb
            }
            Job::MoveAside => Task::MoveAside,
            Job::PostBootstrap => Task::PostBootstrap,
            Job::BaseBackup { from, leader } => Task::BaseBackup { from: from.clone(), leader: leader.clone() },
            Job::Restore => Task::Restore,
            Job::CopySlots(from, slots) => {
                self.server.slots_to_copy.clear();
                self.slots_copied = now;
                // What it follows now it follows after the restart.
                Task::CopySlots { from: from.clone(), slots: slots.clone(), config: self.server_config() }
            }
            Job::Rewind(from) => Task::Rewind { from: from.clone(), pg_rewind: self.config.use_pg_rewind },
            Job::Compare(from) => {
                self.server.compared = Some(now);
                Task::Compare { from: from.clone() }
            }
            Job::StartPrimary => {
                // Under a lock that we kept the former setting stays right, whatever is known of `/sync`.
                let config = self.server_config_of("primary");
                let sync_names = self.sync_kept.clone().unwrap_or(config.sync_names);
                Task::StartPrimary { config: ServerConfig { sync_names, ..config } }
            }
            Job::StartStandby(upstream) => {
                Task::StartStandby { config: ServerConfig { upstream: upstream.clone(), ..self.server_config() } }
            }
            Job::Promote => Task::Promote {
                from: self.server.status.as_ref().map(|st| st.timeline).unwrap_or_default(),
                to: self.timeline_to_make(),
            },
            Job::Stop { immediate } => {
                let checkpoint = !immediate && self.server.status.as_ref().is_some_and(|st| !st.in_recovery);
                self.server.dir = None;
                self.inspect = None;
                self.standby_answers.clear();
                self.standbys_asked.clear();
                Task::Stop { immediate: *immediate, checkpoint, timeout_ms: self.stop_timeout_ms() }
            }
        };
        match &task {
            Task::StartPrimary { config } | Task::StartStandby { config } | Task::CopySlots { config, .. } => {
                self.applied = Some(config.clone());
                self.server.upstream = Some(config.upstream.clone());
                self.server.streamless_since = None;
            }
            Task::Promote { .. } => {
                self.server.latched = true;
                if self.slice.is_none() || now.ms_since(self.slice_checked) > super::address::SLICE_FRESH_MS {
                    self.read_slice(now, effects);
                }
            }
            _ => {}
        }
        if kind != TaskKind::Stop {
            debug_assert!(!s.terminating);
        }
        let id = self.id();
        self.task = Some((id, job, TaskView { kind, since: now, cancelled: false }));
        effects.push(Effect::Task { id, task });
    }

    /// With synchronous replication a primary that does not stop in time may be stopped hard: its commits are elsewhere.
    fn stop_timeout_ms(&self) -> u64 {
        let (configured, every) = (self.config.primary_stop_timeout_ms, self.config.pg_ctl_timeout_ms);
        if self.server.latched && configured > 0 && self.config.sync_mode != SyncMode::Off {
            configured.min(every)
        } else {
            every
        }
    }

    fn ask_standbys(&mut self, now: Boot, s: &Snapshot, effects: &mut Vec<Effect>) {
        if now.ms_since(self.standbys_asked_at) < LOOK_AGAIN_MS {
            return;
        }
        self.standbys_asked_at = now;
        self.standbys_asked.clear();
        for peer in s.members.iter().filter(|m| m.name != s.name && !m.tags.nofailover).filter_map(Member::peer) {
            let id = self.id();
            self.standbys_asked.insert(id, peer.member.clone());
            effects.push(Effect::Ask { id, peer, question: Question::Status, timeout_ms: ANSWER_TIMEOUT_MS });
        }
    }

    fn open_round(&mut self, now: Boot, s: &Snapshot, effects: &mut Vec<Effect>) {
        let mut round = Round { started: now, asked: BTreeMap::new(), ids: BTreeMap::new() };
        for member in s.members.iter().filter(|m| m.name != s.name) {
            let Some(peer) = member.peer() else { continue };
            let id = self.id();
            round.asked.insert(member.name.clone(), None);
            round.ids.insert(id, member.name.clone());
            // Patroni knows no elections.
            let question =
                if member.runs_patroni() { Question::Status } else { Question::Election { candidate: s.name.clone() } };
            effects.push(Effect::Ask { id, peer, question, timeout_ms: ANSWER_TIMEOUT_MS });
        }
        self.round = Some(round);
    }

    fn ask_leader(&mut self, now: Boot, s: &Snapshot, effects: &mut Vec<Effect>) {
        let Some(leader) = s.lock.as_ref().and_then(|l| l.leader.clone()) else { return };
        if self.leader.id.is_some() || (self.leader.leader == leader && now.ms_since(self.leader.asked) < ASK_AGAIN_MS)
        {
            return;
        }
        let Some(peer) = s.peer(&leader) else { return };
        let id = self.id();
        let answer = self.leader.answer.take();
        let late_since = self.leader.late_since.filter(|_| self.leader.leader == leader);
        let answered = self.leader.answered;
        self.leader = LeaderProbe { leader, id: Some(id), asked: now, answered, answer, late_since };
        effects.push(Effect::Ask { id, peer, question: Question::Status, timeout_ms: ANSWER_TIMEOUT_MS });
    }

    /// What a server's files are made from here and now, but for the upstream.
    pub(super) fn server_config(&self) -> ServerConfig {
        let primary = self.server.status.as_ref().is_some_and(|status| !status.in_recovery);
        self.server_config_of(match primary {
            true => "primary",
            false if self.standby_leader => "standby_leader",
            false => "replica",
        })
    }

    /// The same for a server of this role.
    fn server_config_of(&self, role: &str) -> ServerConfig {
        let primary = self.server.status.as_ref().is_some_and(|status| !status.in_recovery);
        // Until it is known what is wanted, what was put in force last stays: an answer of the server may be older.
        let last = self.applied.as_ref().map(|applied| &applied.sync_names).or(self.sync.guc.as_ref());
        let sync_names = match (&self.sync.wanted, last) {
            (Some(names), _) if primary => names.guc(),
            (None, Some(last)) if primary => last.clone(),
            _ => self.names_for_promotion(),
        };
        let (parameters, pg_hba, pg_ident) = self.config.of_role(role);
        let others = self.members.iter().filter(|member| member.name != self.id.name);
        ServerConfig {
            parameters: self.parameters(parameters),
            pg_hba: pg_hba.to_vec(),
            pg_ident: pg_ident.to_vec(),
            limits: if role == "primary" { limits(others.map(|member| &member.status)) } else { BTreeMap::new() },
            sync_names,
            upstream: self.server.upstream.clone().flatten(),
            recovery: self.recovery(),
        }
    }

    /// Logical slots on standbys need the primary to keep what they may still decode.
    fn parameters(&self, mut parameters: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if self.config.slots.values().any(|kind| *kind != SlotKind::Physical) {
            parameters.insert("hot_standby_feedback".to_owned(), "on".to_owned());
        }
        parameters
    }

    /// What of the remote cluster's archive a standby leader uses wins over our own.
    fn recovery(&self) -> BTreeMap<String, String> {
        let mut recovery = self.config.recovery.clone();
        if let Some(remote) = self.config.standby_cluster.as_ref().filter(|_| self.standby_leader) {
            recovery.extend(remote.recovery.clone());
        }
        recovery
    }

    /// A standby keeps what it would need in the moment of its promotion.
    fn names_for_promotion(&self) -> String {
        let state = self.sync_state();
        let (mode, strict) = (self.config.sync_mode, self.config.sync_strict);
        if mode == SyncMode::Off && state.leader.is_none() {
            return String::new();
        }
        // Whatever the mode is by now: as long as others may lead by that state, commits must rest on them.
        if mutants::on(Mutant::NamesAfterPromotion) && state.leader.as_deref() != Some(self.id.name.as_str()) {
            return String::new();
        }
        claim(&state, &self.id.name, mode, strict).1.guc()
    }

    pub(super) fn configure(&mut self, now: Boot, config: ServerConfig, effects: &mut Vec<Effect>) {
        if self.change.is_some() || now < self.change_retry_at {
            return;
        }
        let id = self.id();
        self.change = Some((id, now, Some(config.clone())));
        effects.push(Effect::Change { id, change: Change::Configure(config) });
    }

    /// The configuration goes with it where it is not stored: the one that was in force, else that of a new cluster.
    pub(super) fn write_config(&mut self, now: Boot, keys: &[(&str, Option<String>)], effects: &mut Vec<Effect>) {
        if self.in_flight(|c| matches!(c, Call::Config)) || self.too_early(now, &self.id.config_object) {
            return;
        }
        let mut annotations: BTreeMap<String, Option<String>> =
            keys.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let name = self.id.config_object.clone();
        if !self.config_is_stored() {
            let config = self.config_document.as_deref().unwrap_or(&self.id.bootstrap_config);
            annotations.insert("config".to_owned(), Some(config.to_string()));
        }
        self.config_sent = now;
        self.store_call(now, Call::Config, name, annotations, effects);
    }

    pub(super) fn config_is_stored(&self) -> bool {
        self.locks.get(&self.id.config_object).is_some_and(|object| object.annotations.contains_key("config"))
    }

    /// Each write is another one, also when it says the same: a write that changes nothing would leave the version as it is.
    pub(super) fn write_sync(&mut self, now: Boot, state: &SyncState, effects: &mut Vec<Effect>) {
        let busy = self.in_flight(|c| matches!(c, Call::Sync | Call::SyncRead));
        if !busy && !self.too_early(now, &self.id.sync_object) {
            let name = self.id.sync_object.clone();
            let claim = format!("{}@{}.{}", self.id.uid, now.0, self.next_id);
            let mut keys = state.annotations();
            keys.insert(CLAIM.to_owned(), Some(claim.clone()));
            let timeline = self.timeline_to_claim();
            if timeline != Timeline(0) {
                // Once more where it outlives the lock object, before each promotion.
                keys.insert(TIMELINE.to_owned(), Some(timeline.to_string()));
            }
            self.sync_claim = Some(claim);
            self.store_call(now, Call::Sync, name, keys, effects);
        }
    }

    /// A scheduled switchover becomes one that is to be done now. Whoever leads after we died here finds another leader's request and
    /// clears it; we ourselves would do it late.
    fn failover_is_due(&mut self, now: Boot, s: &Snapshot, effects: &mut Vec<Effect>) {
        let busy = self.in_flight(|c| matches!(c, Call::Failover)) || self.too_early(now, &self.id.failover_object);
        let Some(failover) = s.failover.as_ref().filter(|_| !busy) else { return };
        let annotations = BTreeMap::from([
            ("leader".to_owned(), failover.leader.clone()),
            ("member".to_owned(), failover.member.clone()),
            ("scheduled_at".to_owned(), None),
        ]);
        let name = self.id.failover_object.clone();
        self.store_call(now, Call::Failover, name, annotations, effects);
    }

    pub(super) fn clear_failover(&mut self, now: Boot, why: Option<String>, effects: &mut Vec<Effect>) {
        if self.in_flight(|c| matches!(c, Call::Failover)) || self.too_early(now, &self.id.failover_object) {
            return;
        }
        let annotations = BTreeMap::from([
            ("leader".to_owned(), None),
            ("member".to_owned(), None),
            ("scheduled_at".to_owned(), None),
            (RESULT.to_owned(), why),
        ]);
        let name = self.id.failover_object.clone();
        self.store_call(now, Call::Failover, name, annotations, effects);
    }

    /// A write of the object has just failed.
    fn too_early(&self, now: Boot, object: &str) -> bool {
        self.retry_at.get(object).is_some_and(|at| now < *at)
    }

    /// Patch by CAS if the object is there, else create it.
    pub(super) fn store_call(
        &mut self,
        now: Boot,
        call: Call,
        name: String,
        annotations: BTreeMap<String, Option<String>>,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.id();
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), call));
        let known = self.locks.get(&name).map(|o| o.resource_version.clone());
        effects.push(Effect::Store(match known {
            Some(version) => StoreCall::Patch(Patch {
                id,
                kind: Kind::Lock,
                name,
                resource_version: Some(version),
                annotations,
                labels: BTreeMap::new(),
                addresses: None,
                timeout_ms: CALL_TIMEOUT_MS,
            }),
            None => StoreCall::Create {
                id,
                kind: Kind::Lock,
                name,
                annotations: annotations.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
                owners: self.owners.clone(),
            },
        }));
    }
}
