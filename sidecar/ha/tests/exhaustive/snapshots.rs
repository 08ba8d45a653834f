//! Snapshots for a search of the rules: a plain one, and the choices by which it is varied. `a` decides; `b` and `c` are others.

use std::collections::BTreeMap;
use std::sync::Arc;

use matriarch_ha::config::{StandbyCluster, SyncMode};
use matriarch_ha::core::{Core, Identity};
use matriarch_ha::election::Round;
use matriarch_ha::event::{ControlData, DataDir, Object, PeerAnswer, ServerStatus, StandbyStatus};
use matriarch_ha::lease::Holder;
use matriarch_ha::member::Member;
use matriarch_ha::quorum::claim;
use matriarch_ha::snapshot::{Command, CommandKind, Repair, Snapshot, TaskKind, TaskView};
use matriarch_ha::store::record::{Failover, Initialize, LockRecord, SyncState, When};
use matriarch_ha::tags::Tags;
use matriarch_ha::types::{Boot, Lsn, Timeline};

use crate::gen_all::Gen;

const NOW: Boot = Boot(10_000_000_000);
const SYSTEM: &str = "7411111111111111111";

/// So many milliseconds after now.
fn at(ms: i64) -> Boot {
    Boot(NOW.0.saturating_add_signed(ms * 1000))
}

fn member(name: &str) -> Member {
    let status = format!(
        r#"{{"api_url":"https://{name}.x:8008/patroni","conn_url":"postgres://{name}.x:5432/postgres","state":"running"}}"#
    );
    Member::from_pod(&Object {
        name: name.into(),
        uid: format!("uid-{name}"),
        ip: Some("10.0.0.1".into()),
        annotations: BTreeMap::from([("status".to_owned(), status)]),
        ..Object::default()
    })
}

/// A supervisor is there, a complete cluster, three pods, and nothing runs yet.
pub fn base() -> Snapshot {
    let core = Core::new(Identity {
        name: "a".into(),
        uid: "uid-a".into(),
        ip: "10.0.0.1".into(),
        leader_object: "x-leader".into(),
        config_object: "x-config".into(),
        failover_object: "x-failover".into(),
        sync_object: "x-sync".into(),
        slice: None,
        conn_url: "postgres://a.x:5432/postgres".into(),
        proxy_url: None,
        api_url: "https://a.x:8008/patroni".into(),
        role_label: "role".into(),
        standby_leader_label: "primary".into(),
        bootstrap_labels: [("phase".to_owned(), "making".to_owned())].into(),
        leader_label: "primary".into(),
        follower_label: "replica".into(),
        tmp_role_label: None,
        tags: Tags::default(),
        bootstrap_config: serde_json::json!({"synchronous_mode": "quorum"}),
        local: serde_json::Value::Null,
    });
    let mut s = core.snapshot(NOW);
    s.members = Arc::new(["a", "b", "c"].map(member).to_vec());
    s.store_fresh = true;
    s.lock_renewed = true;
    s.timeline_reserved = true;
    s.initialize = Initialize::Done(SYSTEM.into());
    s.server.attached = true;
    s.server.installed = true;
    s.server.started = at(-60_000);
    s
}

fn other(name: &str) -> Holder {
    Holder::Other { name: name.into(), until: at(5_000) }
}

/// Who holds the lock, and what the lock says.
pub fn holder(s: &mut Snapshot, g: &mut Gen) {
    let held = |leader: &str| {
        Some(LockRecord {
            leader: Some(leader.into()),
            holder_uid: Some(format!("uid-{leader}")),
            ttl_ms: Some(10_000),
            acquire_time: "T".into(),
            ..LockRecord::default()
        })
    };
    let released = |shutdown| Some(LockRecord { acquire_time: "T".into(), shutdown, ..LockRecord::default() });
    let expired = Holder::Free { released: false, since: at(-400) };
    let free = Holder::Free { released: true, since: at(-400) };
    (s.holder, s.lock, s.deadline) = match g.below(15) {
        0 => (Holder::Unknown, None, None),
        1 => (Holder::Me, held("a"), Some(at(7_000))),
        2 => (Holder::Me, held("a"), Some(at(500))),
        3 => (Holder::Me, held("a"), Some(at(-1))),
        4 => (Holder::Me, held("a"), None),
        5 => (other("b"), held("b"), None),
        6 => (other("a"), held("a"), None),
        7 => (Holder::Unfenced { name: "b".into(), until: at(3_600_000) }, held("b"), None),
        8 => (expired, held("b"), None),
        9 => (expired, held("a"), None),
        10 => (free, released(None), None),
        11 => (free, released(Some((Timeline(1), Lsn(90)))), None),
        12 => (Holder::Absent { until: at(1_000) }, None, None),
        // Patroni wrote it, which says no more than the name.
        13 => (other("a"), held("a").map(|lock| LockRecord { holder_uid: None, ..lock }), None),
        _ => (Holder::Absent { until: at(-1) }, None, None),
    };
}

fn control(state: &str, standby_signal: bool) -> ControlData {
    ControlData {
        system_id: SYSTEM.into(),
        state: state.into(),
        timeline: Timeline(1),
        checkpoint: Lsn(90),
        min_recovery: Lsn(0),
        standby_signal,
    }
}

/// PostgreSQL: stopped with one of these directories, or running as one of these.
pub fn server(s: &mut Snapshot, g: &mut Gen) {
    let dir = match g.below(15) {
        0 => None,
        1 => Some(DataDir::Unknown("away".into())),
        2 => Some(DataDir::Empty),
        3 => Some(DataDir::Broken("no pg_control".into())),
        4 => Some(DataDir::Present(control("shut down", false))),
        5 => Some(DataDir::Present(control("in production", false))),
        6 => Some(DataDir::Present(control("shut down in recovery", true))),
        7 => Some(DataDir::Present(ControlData {
            system_id: "7499999999999999999".into(),
            ..control("shut down", false)
        })),
        running => {
            s.server.running = true;
            s.server.latched = matches!(running, 9 | 10 | 13 | 14);
            s.server.upstream = Some(s.upstream_of("b").filter(|_| running != 11));
            let standby = ServerStatus {
                in_recovery: true,
                system_id: SYSTEM.into(),
                timeline: Timeline(1),
                received: Lsn(100),
                streaming: running != 12,
                sync_names: claim(&s.sync, "a", s.config.sync_mode, false).1.guc(),
                ..ServerStatus::default()
            };
            let row = StandbyStatus {
                member: "b".into(),
                state: "streaming".into(),
                flush: Lsn(100),
                ..StandbyStatus::default()
            };
            s.server.streamless_since = (running == 12).then(|| at(-20_000));
            s.server.status = match running {
                8 | 9 => None,
                10..=12 => Some(standby),
                13 => Some(ServerStatus { in_recovery: false, flush: Lsn(100), standbys: vec![row], ..standby }),
                _ => Some(ServerStatus { in_recovery: false, flush: Lsn(100), ..standby }),
            };
            if running == 8 {
                s.server.started = at(-700_000);
            }
            return;
        }
    };
    s.server.dir = dir;
}

/// What became of it before.
pub fn repair(s: &mut Snapshot, g: &mut Gen) {
    s.server.repair = *g.pick(&[Repair::None, Repair::Rewind, Repair::Rewound, Repair::Copy]);
    s.config.use_pg_rewind = g.flag();
    s.config.replica_without_leader = !s.config.use_pg_rewind;
    (s.server.failures, s.server.retry_at) = (0, at(-1));
    match g.below(5) {
        0 => {}
        1 => s.server.failures = 3,
        2 => (s.server.failures, s.server.retry_at) = (1, at(100)),
        3 => s.server.copied = Some(at(-60_000)),
        _ => s.server.starts_failed = 10,
    }
}

/// A task in progress.
pub fn task(s: &mut Snapshot, g: &mut Gen) {
    let kinds =
        [TaskKind::Promote, TaskKind::StartPrimary, TaskKind::StartStandby, TaskKind::Stop, TaskKind::BaseBackup];
    if let Some(kind) = kinds.get(g.below(kinds.len() + 1)) {
        s.task = Some(TaskView { kind: *kind, since: at(-5_000), cancelled: g.flag() });
    }
}

/// A primary on its way down, as far as it can be seen.
pub fn stopping(s: &mut Snapshot, g: &mut Gen) {
    if s.server.running {
        s.task = Some(TaskView { kind: TaskKind::Stop, since: at(-5_000), cancelled: false });
        let states = ["shut down", "in production"].get(g.below(3));
        s.server.dir = states.map(|state| DataDir::Present(control(state, false)));
        if g.flag() {
            let has_all = PeerAnswer { running: true, lsn: Lsn(91), timeline: Timeline(1), ..PeerAnswer::default() };
            s.standby_answers = [("b".to_owned(), has_all)].into();
        }
    }
    s.terminating = g.flag();
    s.handing_over = g.flag();
}

/// What a person ordered of this member.
pub fn command(s: &mut Snapshot, g: &mut Gen) {
    let kind = match g.below(3) {
        0 => CommandKind::Restart,
        1 => CommandKind::Reinitialize { from_leader: true },
        _ => return,
    };
    s.command = Some(Command { kind, since: at(-100), timeout_ms: None, begun: g.flag() });
}

/// What seldom is.
pub fn seldom(s: &mut Snapshot, g: &mut Gen) {
    match g.below(7) {
        0 => s.server.barred = Some((at(1_000), "pre_promote said no".to_owned())),
        1 => s.config.race_backoff_ms = 10_000,
        2 => s.config.primary_start_timeout_ms = 0,
        3 => {
            s.config.standby_cluster =
                Some(StandbyCluster { host: Some("far".into()), port: 5432, ..StandbyCluster::default() });
            if g.flag() {
                s.server.upstream = Some(s.remote());
            }
            s.server.repair = *g.pick(&[Repair::None, Repair::Rewind, Repair::Copy]);
        }
        4 => s.config.standby_cluster = Some(StandbyCluster::default()),
        5 => {
            s.tags.replicatefrom = Some("c".into());
            s.server.upstream = Some(s.upstream_of("c"));
        }
        _ => {}
    }
}

/// The pod, the supervisor, and people.
pub fn surroundings(s: &mut Snapshot, g: &mut Gen) {
    match g.below(4) {
        0 => {}
        1 => (s.terminating, s.unannounced) = (true, g.flag()),
        2 => s.server.attached = false,
        _ => s.server.installed = false,
    }
    pause(s, g);
}

pub fn pause(s: &mut Snapshot, g: &mut Gen) {
    s.config.pause = g.flag();
    s.server.commanded = g.flag();
}

/// A person wants this member stopped, or the others.
pub fn fence(s: &mut Snapshot, g: &mut Gen) {
    let names = *g.pick(&["a", "bc", "abc"]);
    s.config.fenced = names.chars().map(String::from).collect();
}

pub fn initialize(s: &mut Snapshot, g: &mut Gen) {
    let by = |name: &str| Initialize::Racing { by: Some((name.into(), format!("uid-{name}"))) };
    s.initialize = match g.below(5) {
        0 => Initialize::Done(SYSTEM.into()),
        1 => Initialize::Absent,
        2 => by("a"),
        3 => Initialize::Racing { by: None },
        _ => {
            s.bootstrapper_missing_since = Some(at(-31_000));
            by("b")
        }
    };
    if g.flag() {
        s.lock = None;
    }
    s.server.post_bootstrapped = g.flag();
    s.server.bootstrap_failed = g.flag().then(|| "initdb failed".to_owned());
}

/// `/sync`, and what we know of our part in it.
pub fn sync(s: &mut Snapshot, g: &mut Gen) {
    let state = |leader: &str, voters: &[&str], quorum| SyncState {
        leader: Some(leader.into()),
        voters: voters.iter().map(|v| (*v).to_owned()).collect(),
        quorum,
    };
    s.sync = match g.below(4) {
        0 => SyncState::default(),
        1 => state("a", &["b", "c"], 1),
        2 => state("b", &["a", "c"], 1),
        _ => state("b", &["c"], 1),
    };
    s.sync_settled = g.flag();
    s.sync_kept = g.flag();
    s.sync_loaded = g.flag();
    s.won_on.clone_from(g.pick(&[None, Some(s.sync.clone()), Some(SyncState::default())]));
    s.config.sync_mode = *g.pick(&[SyncMode::Quorum, SyncMode::Off]);
}

/// What the leader said of itself.
pub fn answer(s: &mut Snapshot, g: &mut Gen) {
    let says = PeerAnswer {
        running: true,
        primary: true,
        timeline: Timeline(1),
        lsn: Lsn(100),
        pod_uid: "uid-b".into(),
        ..PeerAnswer::default()
    };
    let late = g.below(7);
    s.leader_late_since = (late == 6).then(|| Boot(s.now.0.saturating_sub(s.start_timeout_ms() * 1000)));
    s.leader_answer = match late {
        0 => None,
        1 => Some(Err("silent".into())),
        2 | 6 => Some(Ok(PeerAnswer { primary: false, running: late == 2, ..says })),
        3 => Some(Ok(PeerAnswer { primary: false, demoted: true, ..says })),
        4 => Some(Ok(PeerAnswer { timeline: Timeline(2), ..says })),
        _ => Some(Ok(says)),
    };
}

/// Whether the holder gave a sign of life, and we know our upstream.
pub fn relic(s: &mut Snapshot, g: &mut Gen) {
    s.lock_renewed = g.flag();
    if g.flag() {
        s.server.upstream = Some(None);
    }
}

/// What people asked for.
pub fn failover(s: &mut Snapshot, g: &mut Gen) {
    let wanted = |leader: Option<&str>, member: Option<&str>, when| {
        Some(Failover { leader: leader.map(str::to_owned), member: member.map(str::to_owned), when })
    };
    s.failover = match g.below(7) {
        0 => None,
        1 => wanted(None, Some("a"), When::Now),
        2 => wanted(Some("b"), Some("a"), When::Now),
        3 => wanted(Some("a"), Some("b"), When::Now),
        4 => wanted(Some("a"), None, When::Now),
        5 => wanted(Some("a"), Some("b"), When::At(s.wall)),
        _ => wanted(None, Some("b"), When::Unreadable("soon".into())),
    };
    s.handing_over = g.flag();
}

/// A round of questions, and what else decides a race.
pub fn round(s: &mut Snapshot, g: &mut Gen) {
    let peer = |lsn: u64| PeerAnswer {
        running: true,
        lsn: Lsn(lsn),
        timeline: Timeline(1),
        stream_ended: true,
        ..PeerAnswer::default()
    };
    let answers = [
        None,
        Some(Err("silent".to_owned())),
        Some(Ok(peer(100))),
        Some(Ok(peer(101))),
        Some(Ok(PeerAnswer { stream_ended: false, ..peer(100) })),
        Some(Ok(PeerAnswer { primary: true, ..peer(1) })),
    ];
    if g.flag() {
        let asked = ["b", "c"].map(|name| (name.to_owned(), answers[g.below(answers.len())].clone()));
        s.round = Some(Round { started: at(-400), asked: asked.into(), ids: BTreeMap::new() });
    }
    match g.below(5) {
        0 => {}
        1 => s.promised_until = Some(at(1_000)),
        2 => s.store_fresh = false,
        3 => s.tags.nofailover = true,
        _ => {
            if let Some(lock) = &mut s.lock {
                lock.failsafe = [("b".to_owned(), String::new())].into();
            }
        }
    }
}
