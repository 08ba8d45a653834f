//! Events change what is known.

use std::sync::Arc;

use serde_json::Value;

use super::{Call, Core};
use crate::config::{Dynamic, effective, sound};
use crate::decide::Job;
use crate::effect::{Effect, Reply};
use crate::event::{
    Attached, DataDir, Event, Kind, Local, Now, QueryError, ServerStatus, StoreError, StoreEvent, TaskError,
};
use crate::member::Member;
use crate::mutants::{self, Mutant};
use crate::snapshot::{Repair, TaskKind};
use crate::types::{Boot, Lsn, Timeline};

/// After a standby has come to a new timeline it makes a restartpoint, so that pg_control says so too. Milliseconds.
const RESTARTPOINT_MS: u64 = 5_000;
/// Failures after which the bootstrap of a cluster is given up.
const BOOTSTRAP_TRIES: u32 = 10;
/// A replay that has not moved for so long is taken for done, should the server not say so. Milliseconds.
const REPLAY_RESTS_MS: u64 = 3_000;
/// Said of a `config` that cannot be read at all.
const UNREADABLE: &str = "the annotation `config` is no JSON object: write one with `patronictl edit-config`; the last configuration \
                          stays in force";
/// Pause after a write of the lock or of `-sync` that was refused or got no answer. Milliseconds.
const STORE_RETRY_MS: u64 = 200;
/// Pause after a failed task, milliseconds: short, then longer.
const RETRY_MS: [u64; 4] = [200, 1_000, 2_000, 5_000];

impl Core {
    pub(super) fn absorb(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        let boot = now.boot;
        match event {
            Event::Tick => {}
            Event::Store(event) => self.absorb_store(boot, event, effects),
            Event::Attached(attached) => {
                self.server.started = boot;
                self.attached(&attached);
            }
            Event::Detached => {
                self.server.attached = false;
                self.query = None;
                self.inspect = None;
                self.change = None;
                self.slots_change = None;
            }
            Event::Started { .. } => {
                self.server.running = true;
                self.server.started = boot;
                self.server.status = None;
                self.query_now = true;
                if let Some((_, Job::StartPrimary, _)) = &self.task {
                    self.server.latched = true;
                }
            }
            Event::Exited { how, clean, fenced, .. } => {
                self.stopped();
                if !clean && !self.task.as_ref().is_some_and(|(_, j, _)| j.kind() == TaskKind::Stop) {
                    self.server.last_error = Some(if fenced { format!("fenced: {how}") } else { how });
                }
            }
            Event::Permitted { seq } => {
                if self.arming.is_some_and(|awaited| seq >= awaited) {
                    self.arming = None;
                    self.armed = true;
                    self.lease.disinherit();
                }
                if self.lifting.is_some_and(|awaited| seq >= awaited) {
                    self.lifting = None;
                    self.lifted = true;
                }
            }
            Event::Fencing => {}
            Event::Terminating => self.terminating = true,
            Event::Inspected { id, found } => {
                if self.inspect == Some(id) {
                    self.inspect = None;
                    if let DataDir::Present(control) = &found {
                        self.timelines.is_on(control.timeline);
                    }
                    self.server.dir = Some(found);
                }
            }
            Event::Queried { id, result } => self.queried(boot, id, result),
            Event::Changed { id, result } => self.changed(boot, id, result),
            Event::TaskDone { id, result } => self.task_done(boot, id, result),
            Event::History { id, result } => self.history_read(now, id, result, effects),
            Event::Parameters { invalid } => self.invalid_parameters = invalid,
            Event::Declared(report) => self.declared = report,
            Event::Local(local) => self.configured_anew(*local),
            Event::Cached(document) => self.config_cached(*document),
            Event::Peer { id, member, result } => self.peer_answered(boot, id, member, result, effects),
            Event::FailsafeAnswer { id, member, result } => self.failsafe_answered(boot, id, &member, result),
            Event::Request { id, request } => self.request(boot, id, request, effects),
        }
    }

    fn absorb_store(&mut self, now: Boot, event: StoreEvent, effects: &mut Vec<Effect>) {
        match event {
            StoreEvent::Listed { id, kind, result } => {
                let Some(cache) = self.cache(kind) else { return };
                if cache.on_listed(now, id, result, effects) {
                    if kind == Kind::Lock {
                        self.lease.listed(now);
                    }
                    self.objects_changed(now, kind);
                }
            }
            StoreEvent::Applied(kind, object) => {
                if self.cache(kind).is_some_and(|c| c.apply(now, object, true)) {
                    self.objects_changed(now, kind);
                }
            }
            StoreEvent::Deleted(kind, object) => {
                if self.cache(kind).is_some_and(|c| c.delete(now, &object)) {
                    self.objects_changed(now, kind);
                }
            }
            StoreEvent::Bookmark(kind, version) => {
                if let Some(cache) = self.cache(kind) {
                    cache.bookmark(now, version);
                }
            }
            StoreEvent::WatchEnded(kind, error) => {
                if let Some(cache) = self.cache(kind) {
                    cache.on_watch_ended(now, error, effects);
                }
            }
            StoreEvent::Done { id, result } => self.call_done(now, id, &result, effects),
        }
    }

    fn cache(&mut self, kind: Kind) -> Option<&mut crate::store::cache::Cache> {
        match kind {
            Kind::Lock => Some(&mut self.locks),
            Kind::Pod => Some(&mut self.pods),
            Kind::Slice => None,
        }
    }

    fn objects_changed(&mut self, now: Boot, kind: Kind) {
        match kind {
            Kind::Lock => {
                if let Some(owned) = self.locks.all().find(|o| !o.owners.is_empty()) {
                    self.owners.clone_from(&owned.owners);
                }
                self.observe_lock(now);
                self.read_config();
            }
            Kind::Pod => {
                self.members = Arc::new(self.pods.all().map(Member::from_pod).collect());
                for pod in self.pods.all() {
                    self.slots_seen.insert(pod.name.clone(), now);
                }
                // Another pod has our name: ours was deleted by force, and its kubelet has not come to stop us yet.
                self.terminating |= self.pods.get(&self.id.name).is_some_and(|pod| pod.uid != self.id.uid);
                if let Some(pod) = self.pods.get(&self.id.name)
                    && pod.uid == self.id.uid
                {
                    self.deleted |= pod.deleting;
                    let status = pod.annotations.get("status").and_then(|s| serde_json::from_str(s).ok());
                    self.pod_written = (status.unwrap_or_default(), pod.labels.get(&self.id.role_label).cloned());
                }
            }
            Kind::Slice => {}
        }
    }

    /// An absent or unreadable `config` never resets settings: the last known stay in force.
    fn read_config(&mut self) {
        let history = self.locks.get(&self.id.config_object).and_then(|o| o.annotations.get("history"));
        self.history.read(history.map(String::as_str));
        let Some(text) = self.locks.get(&self.id.config_object).and_then(|o| o.annotations.get("config")) else {
            return;
        };
        let Ok(document @ Value::Object(_)) = serde_json::from_str(text) else { return self.config_unreadable() };
        let mended = self.config_problems.iter().any(|said| said == UNREADABLE);
        if self.config_document.as_deref() != Some(&document) || mended {
            self.configured(&document);
            self.config_document = Some(Arc::new(document));
        }
    }

    /// The dynamic configuration is this one, and ours is on top of it.
    pub(super) fn configured(&mut self, document: &Value) {
        self.remember_slots();
        (self.effective, self.config_problems) = sound(&effective(document, &self.id.local), &self.effective);
        self.config = Dynamic::parse(&self.effective);
        self.tell_settings = true;
    }

    /// What is stored is no configuration: the last known stays in force.
    fn config_unreadable(&mut self) {
        if !self.config_problems.iter().any(|said| said == UNREADABLE) {
            self.config_problems.push(UNREADABLE.to_owned());
            self.tell_settings = true;
        }
    }

    /// What was in force here before we began counts where the store has none. The leader writes it again.
    fn config_cached(&mut self, document: Value) {
        if self.config_document.is_none() && document.is_object() {
            self.configured(&document);
            self.config_document = Some(Arc::new(document));
        }
    }

    /// Our own configuration was read again. The files of a running server are written anew, whatever changed: passwords and
    /// certificates are in them as well.
    fn configured_anew(&mut self, local: Local) {
        let Local { section, tags, conn_url, proxy_url, api_url } = local;
        (self.id.local, self.id.tags) = (section, tags);
        (self.id.conn_url, self.id.proxy_url, self.id.api_url) = (conn_url, proxy_url, api_url);
        let document = self.config_document.clone().unwrap_or_else(|| Arc::new(self.id.bootstrap_config.clone()));
        self.configured(&document);
        self.applied = None;
    }

    fn call_done(
        &mut self,
        now: Boot,
        id: u64,
        result: &Result<crate::event::Object, StoreError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, call)) = self.calls.remove(&id) else { return };
        let missing = matches!(result, Err(StoreError::NotFound));
        let conflict = matches!(result, Err(StoreError::Conflict));
        let stored = result.is_ok();
        if let Ok(object) = result {
            match &call {
                Call::Pod { status, role } => self.pod_written = (status.clone(), role.clone()),
                Call::SliceRead | Call::SliceWrite => {
                    self.slice = Some((object.resource_version.clone(), object.addresses.clone()));
                }
                _ => {
                    if self.locks.apply(now, object.clone(), false) {
                        self.objects_changed(now, Kind::Lock);
                    }
                }
            }
        }
        match call {
            Call::Cancel(request) => {
                let (code, text) = match result {
                    Ok(_) => (200, "scheduled switchover deleted"),
                    Err(StoreError::Conflict) => (409, "could not write the failover key: somebody else did"),
                    Err(_) => (503, "failed to write failover key into DCS"),
                };
                effects.push(Effect::Reply { id: request, reply: Reply::Text { code, text: text.to_owned() } });
            }
            Call::Edit(edit) => self.edit_written(now, *edit, result.as_ref().err(), effects),
            Call::EditRead(edit) => {
                if missing {
                    let name = self.id.config_object.clone();
                    self.locks.forget(&name);
                }
                self.edit(now, *edit, effects);
            }
            Call::Lock if conflict => self.read_lock(now, effects),
            // What is seen of it is old, and may stay so for long.
            Call::Sync if conflict || missing => self.read_sync(now, effects),
            Call::SyncRead if missing => {
                let name = self.id.sync_object.clone();
                self.locks.forget(&name);
            }
            Call::Lock | Call::LockRead if missing => {
                let name = self.id.leader_object.clone();
                self.locks.forget(&name);
                self.observe_lock(now);
            }
            Call::Lock | Call::LockRead if !stored => self.write_later(now, self.id.leader_object.clone()),
            Call::Sync | Call::SyncRead if !stored => self.write_later(now, self.id.sync_object.clone()),
            Call::Config if !stored => self.write_later(now, self.id.config_object.clone()),
            // Somebody else moved: the watch delivers it within milliseconds, and the rules look again.
            Call::SliceWrite | Call::SliceRead if !stored => {
                self.slice = None;
                self.slice_checked = now;
            }
            Call::Failover => {
                if let Some(asked) = &mut self.switchover {
                    asked.written = stored;
                }
                if !stored {
                    self.write_later(now, self.id.failover_object.clone());
                }
            }
            _ => {}
        }
    }

    /// The rules want it as long as it is not stored, and each answer lets them look again: without a pause, one who may not
    /// write would ask thousands of times a second. A conflict is among it: the watch that tells may be slow.
    fn write_later(&mut self, now: Boot, object: String) {
        self.retry_at.insert(object, now.plus_ms(STORE_RETRY_MS));
    }

    fn attached(&mut self, attached: &Attached) {
        if self.server.running && attached.postmaster.is_none() {
            // It ended while nobody told us.
            self.stopped();
        }
        let server = &mut self.server;
        server.attached = true;
        server.installed = attached.version.is_some();
        if server.running != attached.postmaster.is_some() {
            server.status = None;
            server.dir = None;
        }
        server.running = attached.postmaster.is_some();
        server.latched = attached.latched;
        server.upstream = None;
        self.applied = None;
        self.query = None;
        self.query_now = true;
        self.permit_seq = self.permit_seq.max(attached.permit_seq);
        if let Some(permitted) = attached.deadline.filter(|_| !mutants::on(Mutant::PermitNotInherited)) {
            self.lease.inherit(permitted);
        }
        self.permitted = None;
        self.armed = false;
        self.arming = None;
        self.lifted = false;
        self.lifting = None;
        self.terminating |= attached.terminating;
    }

    /// No process of PostgreSQL is left.
    fn stopped(&mut self) {
        self.released_early = false;
        self.callback_stopped();
        self.server.running = false;
        self.server.latched = false;
        self.server.status = None;
        self.server.dir = None;
        self.server.upstream = None;
        self.server.streamless_since = None;
        self.applied = None;
        self.query = None;
        self.sync_kept = self.sync.guc.take().or(self.sync_kept.take());
        self.sync = super::SyncInForce::default();
        self.timeline_seen = Timeline::default();
        self.restartpoint_at = None;
    }

    fn queried(&mut self, now: Boot, id: u64, result: Result<ServerStatus, QueryError>) {
        let Some((_, sent)) = self.query.filter(|(expected, _)| *expected == id) else { return };
        self.query = None;
        self.queried_at = now;
        let Ok(mut status) = result else {
            if matches!(result, Err(QueryError::Starting)) {
                self.server.status = None;
            }
            return;
        };
        if !self.server.running {
            return;
        }
        // Without a WAL receiver a standby knows only the timeline of its last restartpoint; it never goes back to an earlier one.
        status.timeline = status.timeline.max(self.timeline_seen);
        if status.in_recovery && status.timeline > self.timeline_seen {
            self.restartpoint_at = Some(now.plus_ms(RESTARTPOINT_MS));
        }
        self.timeline_seen = status.timeline;
        self.timelines.is_on(status.timeline);
        if self.replay_at.0 != status.replayed || self.replay_at.1 < self.server.started {
            self.replay_at = (status.replayed, now);
        }
        self.replay_rests = now.ms_since(self.replay_at.1) >= REPLAY_RESTS_MS;
        let before = self.server.status.as_ref().map_or(Lsn(0), |s| s.received);
        if status.streaming && status.received > before {
            self.server.moved_at = now;
        }
        if status.streaming {
            self.server.streamless_since = None;
            // An answer of a server that is being stopped for a repair says nothing against that.
            if self.task.is_none() {
                self.server.repair = Repair::None;
            }
            self.server.failures = 0;
        } else if status.in_recovery && self.server.streamless_since.is_none() {
            self.server.streamless_since = Some(now);
        }
        if !status.in_recovery {
            self.server.latched = true;
            self.server.failures = 0;
            self.server.repair = Repair::None;
            for standby in status.standbys.iter().filter(|s| s.state == "streaming") {
                self.sync.last_seen.insert(standby.member.clone(), now);
            }
        }
        self.setting_seen(sent, &status);
        self.server.commanded &= self.task.is_some();
        self.stream_ended(sent, &status);
        self.slots_due = true;
        self.server.status = Some(status);
    }

    fn changed(&mut self, now: Boot, id: u64, result: Result<(), String>) {
        if self.slots_change == Some(id) {
            self.slots_change = None;
            self.query_now = true;
            return;
        }
        let Some((_, _, config)) = self.change.take_if(|(expected, _, _)| *expected == id) else { return };
        match result {
            Ok(()) => {
                if let Some(config) = config {
                    self.server.upstream = Some(config.upstream.clone());
                    if self.applied.as_ref() != Some(&config) {
                        self.callbacks.reloaded = true;
                    }
                    if self.applied.as_ref().is_none_or(|applied| applied.sync_names != config.sync_names) {
                        self.sync.since = None;
                    }
                    self.applied = Some(config);
                    self.applied_at = now;
                }
                self.query_now = true;
            }
            Err(why) => {
                // It may come into force later, or never: nothing rests on it before another change has succeeded.
                if config.is_some() {
                    self.applied = None;
                    self.query_now = true;
                }
                self.server.last_error = Some(why);
                self.change_retry_at = now.plus_ms(1_000);
            }
        }
    }

    fn task_done(&mut self, now: Boot, id: u64, result: Result<(), TaskError>) {
        let ours = |expected: u64| expected == id || mutants::on(Mutant::StaleAnswers);
        let Some((_, job, _)) = self.task.take_if(|(expected, _, _)| ours(*expected)) else { return };
        self.applied_at = now;
        self.query_now = true;
        let touches = job.kind();
        if matches!(
            touches,
            TaskKind::Initdb
                | TaskKind::MoveAside
                | TaskKind::BaseBackup
                | TaskKind::Restore
                | TaskKind::Rewind
                | TaskKind::Stop
        ) {
            self.server.dir = None;
        }
        match (job, result) {
            (job @ (Job::BaseBackup { .. } | Job::Restore | Job::Rewind(_)), Ok(())) => {
                if !matches!(job, Job::Rewind(_)) {
                    self.server.copied = Some(now);
                    self.server.starts_failed = 0;
                }
                self.server.repair = Repair::Rewound;
                self.server.failures = 0;
            }
            (Job::PostBootstrap, Ok(())) => self.server.post_bootstrapped = true,
            (Job::Promote, Ok(())) => {
                // Known already, so that clients are sent here without another question.
                if let Some(status) = &mut self.server.status {
                    status.flush = status.received.max(status.replayed);
                    status.in_recovery = false;
                    status.streaming = false;
                }
                self.server.upstream = Some(None);
                self.applied = None;
                self.checkpoint_again_at = Boot(0);
            }
            (Job::StartStandby(_), Ok(())) => self.server.starts_failed = 0,
            (_, Ok(()) | Err(TaskError::Cancelled)) => {}
            (Job::Compare(_), Err(TaskError::Hopeless(why))) => {
                self.server.repair = Repair::Rewind;
                self.server.last_error = Some(why);
            }
            (Job::Compare(_), Err(error)) => self.server.last_error = Some(format!("{error:?}")),
            (job, Err(error)) => {
                let impossible = matches!(error, TaskError::Hopeless(_));
                let hopeless = impossible || self.server.failures >= BOOTSTRAP_TRIES;
                let why = match error {
                    TaskError::NoPermit => "no permit of the fence is left".to_owned(),
                    TaskError::Failed(why) | TaskError::Hopeless(why) => why,
                    TaskError::Forbidden(why) => {
                        self.server.barred = Some((now.plus_ms(self.config.ttl_ms), why.clone()));
                        if matches!(job, Job::Promote) {
                            // It was not asked to promote: it is a standby as before.
                            self.server.latched = false;
                        }
                        why
                    }
                    TaskError::Cancelled => String::new(),
                };
                if matches!(job, Job::Initdb | Job::PostBootstrap | Job::StartPrimary) && hopeless {
                    self.server.bootstrap_failed = Some(why.clone());
                }
                let failures = usize::try_from(self.server.failures).unwrap_or(usize::MAX);
                let pause = RETRY_MS[failures.min(RETRY_MS.len() - 1)];
                self.server.failures = self.server.failures.saturating_add(1);
                self.server.retry_at = now.plus_ms(pause);
                self.server.last_error = Some(format!("{:?}: {why}", job.kind()));
                if matches!(job, Job::Rewind(_)) {
                    let removes = if impossible {
                        self.config.remove_on_divergence
                    } else {
                        self.config.remove_on_rewind_failure
                    };
                    // A remote cluster may be away for long, and is copied only where nothing else can help.
                    let remote = matches!(&job, Job::Rewind(from) if from.member.is_empty());
                    if removes && (impossible || (self.server.failures >= 2 && !remote)) {
                        self.server.repair = Repair::Copy;
                    }
                }
                if matches!(job, Job::StartStandby(_)) {
                    self.server.starts_failed = self.server.starts_failed.saturating_add(1);
                }
                if matches!(job, Job::StartPrimary | Job::StartStandby(_)) {
                    self.server.dir = None;
                }
            }
        }
    }
}
