//! The core: one member's whole knowledge, changed by events, turned into effects.
//!
//! [`Core::handle`] absorbs the event ([`absorb`]), decides ([`crate::decide`]), acts ([`act`]), does the standing duties of the
//! situation ([`duties`]) and publishes what changed ([`publish`]).

mod absorb;
mod act;
mod address;
mod callbacks;
pub mod commands;
mod duties;
mod edit;
mod failsafe;
mod mixed;
mod publish;
mod requests;
mod slots;
mod switchover;
mod sync;
pub mod timelines;
mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use self::commands::Commands;
use crate::config::{Dynamic, effective, sound};
use crate::decide::{Job, Rule, decide};
use crate::effect::{Effect, ServerConfig, StoreCall};
use crate::election::Round;
use crate::event::{Declared, Event, Kind, Now, PeerAnswer};
use crate::history::History;
use crate::lease::{Holder, Lease, Me};
use crate::member::Member;
use crate::mutants::{self, Mutant};
use crate::quorum::SyncNames;
use crate::snapshot::{Server, Snapshot, TaskView};
use crate::store::cache::Cache;
use crate::store::record::{CLAIM, Failover, Initialize, LockRecord, SyncState};
use crate::tags::Tags;
use crate::types::{Boot, Lsn, Timeline, Wall};
use crate::view::{MemberView, View};

/// Who this member is and where its objects are.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Member name, which is the pod's.
    pub name: String,
    /// Pod uid.
    pub uid: String,
    /// Pod address, to which clients are sent; empty: they find the leader without us.
    pub ip: String,
    /// Name of the lock object.
    pub leader_object: String,
    /// Name of the configuration object.
    pub config_object: String,
    /// Name of the failover object.
    pub failover_object: String,
    /// Name of the sync object.
    pub sync_object: String,
    /// ConfigMap mode: the EndpointSlice that the leader writes. Endpoints mode: none, the lock carries the address.
    pub slice: Option<String>,
    /// What others connect to: `postgres://host:port/postgres`.
    pub conn_url: String,
    /// The same through a pooler or balancer, where one is configured.
    pub proxy_url: Option<String>,
    /// `https://host:8008/patroni`.
    pub api_url: String,
    /// The label of pods that says their role.
    pub role_label: String,
    /// Its value on the leader of a standby cluster.
    pub standby_leader_label: String,
    /// Labels of its pod while it has no data yet: it makes the cluster, or its copy.
    pub bootstrap_labels: BTreeMap<String, String>,
    /// Its value on the leader.
    pub leader_label: String,
    /// Its value on running standbys.
    pub follower_label: String,
    /// A second label, with the plain role: for the time in which the values of the first one are changed.
    pub tmp_role_label: Option<String>,
    /// What this member may be used for.
    pub tags: Tags,
    /// Dynamic configuration for a cluster that has none yet (`bootstrap.dcs`).
    pub bootstrap_config: Value,
    /// Our own configuration's section `postgresql`, which wins over the dynamic one's.
    pub local: Value,
}

/// A call of the store that was not answered yet.
#[derive(Debug, Clone)]
enum Call {
    Lock,
    LockRead,
    Sync,
    SyncRead,
    Config,
    Failover,
    /// A scheduled switchover is taken back for this request.
    Cancel(u64),
    /// The configuration is written for a request, or read again because somebody else wrote it.
    Edit(Box<edit::Edit>),
    EditRead(Box<edit::Edit>),
    Pod {
        status: Value,
        role: Option<String>,
    },
    SliceRead,
    SliceWrite,
}

/// A question to the leader, or its answer.
#[derive(Debug, Clone, Default)]
struct LeaderProbe {
    /// Whom: name and when it got the lock.
    leader: String,
    id: Option<u64>,
    asked: Boot,
    answered: Boot,
    answer: Option<Result<PeerAnswer, String>>,
    /// Since when it has said, each time that it answered, that it is not yet where others could follow it.
    late_since: Option<Boot>,
}

/// One round of failsafe calls.
#[derive(Debug, Clone)]
struct FailsafeRound {
    sent: Boot,
    ttl_ms: u64,
    open: BTreeMap<u64, String>,
}

/// A switchover asked for over REST, to be answered when it is over.
#[derive(Debug, Clone)]
struct Asked {
    id: u64,
    since: Boot,
    leader: String,
    candidate: Option<String>,
    /// It will be done later: fulfilled when it is stored.
    scheduled_at: Option<Wall>,
    /// From this leader; none: a failover by hand.
    switchover: Option<String>,
    /// Candidates that were asked whether they could lead; the request is written when one says so.
    asking: std::collections::BTreeSet<u64>,
    written: bool,
}

/// The members as the view shows them, and what that was made from.
#[derive(Debug, Clone, Default)]
struct Shown {
    of: Arc<Vec<Member>>,
    leader: Option<String>,
    voters: Vec<String>,
    members: Arc<Vec<MemberView>>,
}

/// The state of `synchronous_standby_names` on a primary.
#[derive(Debug, Clone, Default)]
struct SyncInForce {
    guc: Option<String>,
    /// Every process of PostgreSQL acts on it, at the latest since this position.
    since: Option<Lsn>,
    wanted: Option<SyncNames>,
    last_seen: BTreeMap<String, Boot>,
    /// Since when `-sync` names another leader while we lead.
    anothers: Option<Boot>,
}

/// One member's whole knowledge.
pub struct Core {
    id: Identity,
    next_id: u64,
    locks: Cache,
    pods: Cache,
    /// The pods, read once for each change.
    members: Arc<Vec<Member>>,
    lease: Lease,
    config: Dynamic,
    config_document: Option<Arc<Value>>,
    history: History,
    history_asked: Option<u64>,
    history_asked_at: Boot,
    /// The timeline whose history file says what is stored.
    history_read_of: Timeline,
    commands: Commands,
    /// The edge has to be told of the configuration in force.
    tell_settings: bool,
    /// The configuration in force, with ours on top and without what cannot be used.
    effective: Value,
    /// Why values of it are not used.
    config_problems: Vec<String>,
    /// When the configuration was last written by us.
    config_sent: Boot,
    /// Who owns the lock objects: an object made anew must not outlive the cluster either.
    owners: Vec<Value>,
    calls: BTreeMap<u64, (Boot, Call)>,
    lock_sent: Boot,
    timelines: timelines::Timelines,
    /// By object that members share: a write failed, not again before.
    retry_at: BTreeMap<String, Boot>,
    permit_seq: u64,
    permitted: Option<Option<Boot>>,
    /// The supervisor has obeyed a permit that no pause lengthened, and none that one did since.
    armed: bool,
    /// The permit whose acknowledgement says so.
    arming: Option<u64>,
    /// The first permit that pause lengthened, until it is acknowledged.
    lifting: Option<u64>,
    /// The supervisor has obeyed one that pause lengthened, and was sent no other since.
    lifted: bool,
    /// The wall clock at the last event.
    wall: Wall,
    server: Server,
    /// What the last change or start put in force, and when that was known; none: not known.
    applied: Option<ServerConfig>,
    applied_at: Boot,
    query: Option<(u64, Boot)>,
    queried_at: Boot,
    query_now: bool,
    inspect: Option<u64>,
    change: Option<(u64, Boot, Option<ServerConfig>)>,
    change_retry_at: Boot,
    /// No checkpoint is asked for before then.
    checkpoint_again_at: Boot,
    /// The highest timeline that this postmaster was seen on.
    timeline_seen: Timeline,
    restartpoint_at: Option<Boot>,
    /// Where a standby's replay was, and since when; it has not moved for a while.
    replay_at: (Lsn, Boot),
    replay_rests: bool,
    task: Option<(u64, Job, TaskView)>,
    /// The lock is ours, and the cluster follows another one.
    standby_leader: bool,
    callbacks: callbacks::Callbacks,
    /// The supervisor, or the pod in our place, says that this one ends.
    terminating: bool,
    /// The store says so of our pod: for good, whether the kubelet has told the supervisor or not.
    deleted: bool,
    releasing_since: Option<Boot>,
    handing_over: bool,
    finished: bool,
    round: Option<Round>,
    won_on: Option<SyncState>,
    leader: LeaderProbe,
    /// Questions to standbys while our primary stops, and what they said.
    standbys_asked: BTreeMap<u64, String>,
    standbys_asked_at: Boot,
    standby_answers: BTreeMap<String, PeerAnswer>,
    /// The lock was released while a postmaster that cannot be writable any more still ran.
    released_early: bool,
    inspected_at: Boot,
    promised_until: Option<Boot>,
    failsafe: Option<FailsafeRound>,
    failsafe_tried: Boot,
    /// Members named in writes of the lock since the last one that is confirmed.
    topology_sent: BTreeSet<String>,
    failsafe_active: bool,
    sync: SyncInForce,
    /// What our last write of `/sync` is known by.
    sync_claim: Option<String>,
    /// The setting with which our primary ran before it stopped, under the lock that we still have.
    sync_kept: Option<String>,
    slots_seen: BTreeMap<String, Boot>,
    /// The server was asked since its slots were looked at.
    slots_due: bool,
    /// When the state of some was copied last, or could not be.
    slots_copied: Boot,
    /// A change of them is on its way.
    slots_change: Option<u64>,
    /// What was tried last about them, and when.
    slots_tried: Option<(crate::slots::SlotPlan, Boot)>,
    /// Logical slots that the configuration had.
    former_slots: std::collections::BTreeSet<String>,
    slice: Option<(String, Vec<String>)>,
    slice_checked: Boot,
    bootstrapper_missing: Option<Boot>,
    /// An election asked us to end our stream; true: it has ended.
    stream_hold: Option<bool>,
    status_sent: Boot,
    pod_retry_at: Boot,
    pod_differs_since: Option<Boot>,
    elections: Vec<(u64, Boot)>,
    switchover: Option<Asked>,
    pod_written: (Value, Option<String>),
    view: Arc<View>,
    shown: Shown,
    verdict: Option<(Rule, String)>,
    invalid_parameters: BTreeMap<String, String>,
    declared: Option<Declared>,
}

impl Core {
    /// A member that knows nothing yet.
    pub fn new(id: Identity) -> Self {
        let (effective, config_problems) = sound(&effective(&id.bootstrap_config, &id.local), &Value::Null);
        let config = Dynamic::parse(&effective);
        Self {
            tell_settings: true,
            effective,
            config_problems,
            id,
            next_id: 0,
            locks: Cache::new(Kind::Lock),
            pods: Cache::new(Kind::Pod),
            members: Arc::default(),
            lease: Lease::default(),
            config,
            config_document: None,
            history: History::default(),
            history_asked: None,
            history_asked_at: Boot(0),
            history_read_of: Timeline::default(),
            commands: Commands::default(),
            config_sent: Boot(0),
            owners: Vec::new(),
            calls: BTreeMap::new(),
            lock_sent: Boot(0),
            timelines: timelines::Timelines::default(),
            retry_at: BTreeMap::new(),
            permit_seq: 0,
            permitted: None,
            armed: false,
            arming: None,
            lifting: None,
            lifted: false,
            wall: Wall::default(),
            server: Server::default(),
            applied: None,
            applied_at: Boot(0),
            query: None,
            queried_at: Boot(0),
            query_now: false,
            inspect: None,
            change: None,
            change_retry_at: Boot(0),
            checkpoint_again_at: Boot(0),
            timeline_seen: Timeline::default(),
            restartpoint_at: None,
            replay_at: (Lsn(0), Boot(0)),
            replay_rests: false,
            task: None,
            standby_leader: false,
            callbacks: callbacks::Callbacks::default(),
            terminating: false,
            deleted: false,
            releasing_since: None,
            handing_over: false,
            finished: false,
            round: None,
            won_on: None,
            leader: LeaderProbe::default(),
            standbys_asked: BTreeMap::new(),
            standbys_asked_at: Boot(0),
            standby_answers: BTreeMap::new(),
            released_early: false,
            inspected_at: Boot(0),
            promised_until: None,
            failsafe: None,
            failsafe_tried: Boot(0),
            topology_sent: BTreeSet::new(),
            failsafe_active: false,
            sync: SyncInForce::default(),
            sync_claim: None,
            sync_kept: None,
            slots_seen: BTreeMap::new(),
            slots_due: false,
            slots_copied: Boot(0),
            slots_change: None,
            slots_tried: None,
            former_slots: std::collections::BTreeSet::new(),
            slice: None,
            slice_checked: Boot(0),
            bootstrapper_missing: None,
            stream_hold: None,
            status_sent: Boot(0),
            pod_retry_at: Boot(0),
            pod_differs_since: None,
            elections: Vec::new(),
            switchover: None,
            pod_written: (Value::Null, None),
            view: Arc::default(),
            shown: Shown::default(),
            verdict: None,
            invalid_parameters: BTreeMap::new(),
            declared: None,
        }
    }

    /// Takes one event; returns what is to be done, in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.wall = now.wall;
        self.absorb(now, event, &mut effects);
        if std::mem::take(&mut self.tell_settings) {
            let effective = Box::new(self.effective.clone());
            let dynamic = self.config_document.as_deref().cloned().map(Box::new);
            effects.push(Effect::Settings { effective, problems: self.config_problems.clone(), dynamic });
        }
        if self.finished {
            return effects;
        }
        self.tell_timelines(&mut effects);
        let boot = now.boot;
        self.locks.upkeep(boot, &mut self.next_id, &mut effects);
        self.pods.upkeep(boot, &mut self.next_id, &mut effects);
        self.expire_calls(boot);
        self.forget_stale(boot);
        self.renew(now, &mut effects);
        self.standby_leader = self.config.standby_cluster.is_some() && self.holder(boot) == Holder::Me;
        self.permit(&mut effects);
        let snapshot = self.snapshot(boot);
        let verdict = decide(&snapshot);
        let differs = self.note(&verdict, &mut effects);
        for action in verdict.actions {
            self.act(now, action, &snapshot, &mut effects);
        }
        if differs {
            effects.push(Effect::Decided(Box::new(snapshot)));
        }
        self.keep_commands(now, &mut effects);
        self.duties(now, &mut effects);
        self.answer_requests(boot, &mut effects);
        self.permit(&mut effects);
        self.call_back(&mut effects);
        self.publish(boot, &mut effects);
        effects.push(Effect::WakeAt(self.wake_at(boot)));
        effects
    }

    /// What a decision may look at, for `explain` and tests.
    pub fn snapshot(&self, now: Boot) -> Snapshot {
        Snapshot {
            now,
            wall: self.wall,
            name: self.id.name.clone(),
            uid: self.id.uid.clone(),
            config: self.config.clone(),
            store_fresh: self.locks.fresh() && self.pods.fresh(),
            holder: self.holder(now),
            lock: self.lease.record().cloned(),
            lock_renewed: self.lease.renewed() || mutants::on(Mutant::UnconfirmedStreams),
            deadline: self.lease.deadline(),
            timeline_reserved: self.timeline_reserved(),
            initialize: self.initialize(),
            failover: Failover::parse(self.locks.get(&self.id.failover_object)),
            cluster_timeline: self.timeline_of_history(),
            sync: self.sync_state(),
            sync_settled: self.sync_settled(),
            sync_kept: self.sync_kept.is_some(),
            sync_loaded: self.sync.since.is_some(),
            members: self.members.clone(),
            tags: self.id.tags.clone(),
            bootstrapper_missing_since: self.bootstrapper_missing,
            server: self.server.clone(),
            task: self.task.as_ref().map(|(_, _, view)| *view),
            command: self.commands.view(),
            terminating: self.ending(),
            unannounced: self.deleted && !self.terminating,
            releasing_since: self.releasing_since,
            handing_over: self.handing_over,
            round: self.round.clone(),
            won_on: self.won_on.clone(),
            // An old answer is none: the leader may have gone meanwhile.
            leader_answer: self.leader.answer.clone().filter(|_| now.ms_since(self.leader.answered) < ANSWER_MS),
            leader_late_since: self.leader.late_since,
            standby_answers: self.standby_answers.clone(),
            promised_until: self.promised_until,
        }
    }

    fn me(&self) -> Me<'_> {
        Me { name: &self.id.name, uid: &self.id.uid }
    }

    fn holder(&self, now: Boot) -> Holder {
        if mutants::on(Mutant::ExpiryByRenewTime)
            && let Some(record) = self.lease.record().filter(|record| !crate::lease::mine(record, &self.me()))
            && mutants::expired(record, self.wall)
        {
            return Holder::Free { released: false, since: self.lease.changed_at() };
        }
        let initialized = !matches!(self.initialize(), Initialize::Absent);
        self.lease.holder(now, &self.me(), self.config.ttl_ms, initialized)
    }

    fn initialize(&self) -> Initialize {
        Initialize::parse(self.locks.get(&self.id.config_object))
    }

    fn sync_state(&self) -> SyncState {
        SyncState::parse(self.locks.get(&self.id.sync_object))
    }

    /// What is stored in `/sync` is our own last write: every earlier one has landed before it, or never will.
    fn sync_settled(&self) -> bool {
        let stored = self.locks.get(&self.id.sync_object).and_then(|o| o.annotations.get(CLAIM));
        stored.is_some() && stored == self.sync_claim.as_ref()
    }

    /// This pod ends.
    fn ending(&self) -> bool {
        self.terminating || self.deleted
    }

    fn lock_write_in_flight(&self) -> bool {
        self.calls.values().any(|(_, c)| matches!(c, Call::Lock | Call::LockRead))
    }

    fn in_flight(&self, which: fn(&Call) -> bool) -> bool {
        self.calls.values().any(|(_, c)| which(c))
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// We run as primary under a confirmed tenure.
    fn leading(&self, now: Boot) -> bool {
        self.holder(now) == Holder::Me
            && self.lease.deadline().is_some_and(|d| now < d)
            && self.server.status.as_ref().is_some_and(|s| !s.in_recovery)
    }

    /// We lead a standby cluster under a confirmed tenure: standbys stream from us.
    fn leading_standbys(&self, now: Boot) -> bool {
        self.standby_leader
            && self.lease.deadline().is_some_and(|d| now < d)
            && self.server.status.as_ref().is_some_and(|s| s.in_recovery)
    }

    /// Reads the lock again.
    fn read_lock(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        if self.in_flight(|c| matches!(c, Call::LockRead)) {
            return;
        }
        let id = self.id();
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), Call::LockRead));
        let name = self.id.leader_object.clone();
        effects.push(Effect::Store(StoreCall::Get { id, kind: Kind::Lock, name }));
    }

    /// Reads `/sync` again.
    fn read_sync(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let id = self.id();
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), Call::SyncRead));
        let name = self.id.sync_object.clone();
        effects.push(Effect::Store(StoreCall::Get { id, kind: Kind::Lock, name }));
    }

    /// The lock object may have changed: what does the lease make of it?
    fn observe_lock(&mut self, now: Boot) {
        let object = self.locks.get(&self.id.leader_object);
        let record = object.map(|o| (LockRecord::parse(o), o.resource_version.clone()));
        let me = Me { name: &self.id.name, uid: &self.id.uid };
        let tenure = |r: &LockRecord| (r.leader.clone(), r.acquire_time.clone());
        let before = self.lease.record().map(tenure);
        let seen = record.as_ref().map(|(r, v)| (r.clone(), v.as_str()));
        self.lease.observe(now, seen, &me);
        self.hear_timeline();
        if self.lease.confirmed() >= Some(self.lock_sent) {
            self.topology_sent.clear();
        }
        let after = self.lease.record().map(tenure);
        if before != after {
            self.leader = LeaderProbe::default();
            self.round = None;
            self.server.streamless_since = None;
            self.failsafe_active = false;
        }
        if self.holder(now) != Holder::Me {
            self.handing_over = false;
            self.releasing_since = None;
            self.sync_kept = None;
        }
        if matches!(self.holder(now), Holder::Other { .. } | Holder::Unfenced { .. }) {
            self.timelines.reserved = Timeline::default();
        }
    }

    fn expire_calls(&mut self, now: Boot) {
        // The driver answers every call within its timeout; this is the net below it.
        self.calls.retain(|_, (until, _)| now < until.plus_ms(CALL_TIMEOUT_MS));
    }

    fn forget_stale(&mut self, now: Boot) {
        // A leader that has stopped in order and said so needs no promise any more. Only its own word counts: whoever else empties
        // the lock does not stop it.
        let empty = self.lease.record().filter(|r| r.leader.is_none());
        let said = empty.is_some_and(|r| r.shutdown.is_some() && !mutants::on(Mutant::PromiseOutlivesRelease));
        let over = said || (empty.is_some() && mutants::on(Mutant::AnyReleaseEndsPromise));
        if over || self.promised_until.is_some_and(|until| until <= now) {
            self.promised_until = None;
        }
        if let Initialize::Racing { by: Some((pod, _)) } = self.initialize() {
            let gone = self.pods.fresh() && self.pods.get(&pod).is_none();
            self.bootstrapper_missing = gone.then(|| self.bootstrapper_missing.unwrap_or(now));
        } else {
            self.bootstrapper_missing = None;
        }
        if !matches!(self.holder(now), Holder::Free { .. } | Holder::Absent { .. } | Holder::Unfenced { .. }) {
            self.round = None;
            self.stream_hold = None;
        }
        self.end_stream_for_patroni(now);
    }
}

/// How long an answer of the leader counts, milliseconds.
const ANSWER_MS: u64 = 5_000;
/// After which a call of the store counts as unanswered, milliseconds.
pub(crate) const CALL_TIMEOUT_MS: u64 = 1_000;
