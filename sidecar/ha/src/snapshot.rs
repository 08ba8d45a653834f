//! All that a decision may look at. It serializes, so that a recorded one can be replayed: `matriarch-sidecar explain`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::config::{Dynamic, SyncMode};
use crate::effect::{Peer, Upstream};
use crate::election::Round;
use crate::event::{DataDir, PeerAnswer, ServerStatus};
use crate::lease::Holder;
use crate::member::{Member, slot_name};
use crate::mutants::{self, Mutant};
use crate::quorum::{elected, electorate};
use crate::store::record::{Failover, Initialize, LockRecord, SyncState};
use crate::tags::Tags;
use crate::types::{Boot, Lsn, Timeline, Wall};

/// A member's knowledge at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The moment.
    pub now: Boot,
    /// The wall clock: nothing but schedules is compared with it.
    pub wall: Wall,
    /// Our name.
    pub name: String,
    /// Our pod.
    pub uid: String,
    /// The dynamic configuration in force.
    pub config: Dynamic,
    /// Lock objects and pods are being watched.
    pub store_fresh: bool,
    /// Who holds the lock.
    pub holder: Holder,
    /// The lock as last seen.
    pub lock: Option<LockRecord>,
    /// It was seen to change since this agent runs: what it shows is no relic of one that died before.
    #[serde(default)]
    pub lock_renewed: bool,
    /// Until when our tenure is confirmed.
    pub deadline: Option<Boot>,
    /// The lock says a timeline for our promotion that nobody else has.
    #[serde(default)]
    pub timeline_reserved: bool,
    /// The `initialize` key.
    pub initialize: Initialize,
    /// A wanted switchover.
    pub failover: Option<Failover>,
    /// The cluster's timeline by its history, 0: not known.
    pub cluster_timeline: Timeline,
    /// `/sync`.
    pub sync: SyncState,
    /// `/sync` is our own last write, sent since we took the lock.
    #[serde(default)]
    pub sync_settled: bool,
    /// The setting with which our primary ran under this lock is known.
    #[serde(default)]
    pub sync_kept: bool,
    /// The setting that the server shows is what all its processes act on.
    #[serde(default)]
    pub sync_loaded: bool,
    /// All members, ourselves among them.
    pub members: Arc<Vec<Member>>,
    /// Our tags.
    pub tags: Tags,
    /// Since when the bootstrapping member has no pod.
    pub bootstrapper_missing_since: Option<Boot>,
    /// PostgreSQL here.
    pub server: Server,
    /// The one long task.
    pub task: Option<TaskView>,
    /// What a person ordered of this member.
    pub command: Option<Command>,
    /// The pod is being stopped.
    pub terminating: bool,
    /// The supervisor was not told yet to end.
    #[serde(default)]
    pub unannounced: bool,
    /// Since when we try to release the lock.
    pub releasing_since: Option<Boot>,
    /// We stopped our primary for a switchover and have still to release the lock.
    pub handing_over: bool,
    /// The synchronous state on which we took the lock.
    pub won_on: Option<SyncState>,
    /// The open round of an election.
    pub round: Option<Round>,
    /// What the present leader said of itself, asked after it got the lock.
    pub leader_answer: Option<Result<PeerAnswer, String>>,
    /// Since when it has said, each time that it answered, that it does not lead yet.
    #[serde(default)]
    pub leader_late_since: Option<Boot>,
    /// What standbys said of their positions since our primary is being stopped.
    pub standby_answers: BTreeMap<String, PeerAnswer>,
    /// We promised a leader in failsafe to leave the lock alone until then.
    pub promised_until: Option<Boot>,
}

/// What a person ordered of this member and is not done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What.
    pub kind: CommandKind,
    /// When it was accepted.
    pub since: Boot,
    /// Restart: the start may take so long.
    pub timeout_ms: Option<u64>,
    /// PostgreSQL is being stopped for it, or was.
    pub begun: bool,
}

/// The kinds of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandKind {
    /// Stop and start as what it is.
    Restart,
    /// Stop, throw the data away, copy it anew.
    Reinitialize {
        /// From the leader, whoever else offers itself.
        from_leader: bool,
    },
}

/// PostgreSQL of this pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// A supervisor is connected.
    pub attached: bool,
    /// The image has PostgreSQL.
    pub installed: bool,
    /// A postmaster runs, or has just been spawned.
    pub running: bool,
    /// It is or may become primary.
    pub latched: bool,
    /// When it was started, or attached to.
    pub started: Boot,
    /// Its last answer since it started.
    pub status: Option<ServerStatus>,
    /// The data directory, when it was looked at since the last task or exit.
    pub dir: Option<DataDir>,
    /// The upstream that its configuration names; the outer none: not known (attached to a running one).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    pub upstream: Option<Option<Upstream>>,
    /// When the position of a standby that streams last moved.
    pub moved_at: Boot,
    /// Since when a standby with an upstream does not stream.
    pub streamless_since: Option<Boot>,
    /// What is done about a data directory that cannot follow.
    pub repair: Repair,
    /// Consecutive failures of starts, and of copies.
    pub failures: u32,
    /// When this member was last copied from another one, as far as this agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Boot>,
    /// When the log of a running standby leader was last compared with the remote cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Boot>,
    /// Consecutive failures to start as a standby.
    #[serde(default)]
    pub starts_failed: u32,
    /// No new task before then.
    pub retry_at: Boot,
    /// The last failure, for people.
    pub last_error: Option<String>,
    /// A person's command stopped it, or shall start it anew: also in pause.
    pub commanded: bool,
    /// Roles and database were made after initdb.
    pub post_bootstrapped: bool,
    /// A member from which we do not stream until then, though our tag names it: it sent nothing.
    pub shunned: Option<(String, Boot)>,
    /// Logical slots whose state a standby has to copy from the leader.
    pub slots_to_copy: Vec<String>,
    /// This member may not lead until then, and why.
    pub barred: Option<(Boot, String)>,
    /// The bootstrap of the cluster failed here, and why.
    pub bootstrap_failed: Option<String>,
}

/// A field that is there is known, also when it is null.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Upstream>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// What is done about a data directory that cannot follow the leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repair {
    /// Nothing known against it.
    #[default]
    None,
    /// It has to be compared with the leader (pg_rewind finds out whether anything is to be done).
    Rewind,
    /// It was, and may be started.
    Rewound,
    /// Only a new copy helps.
    Copy,
}

/// A task in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Which.
    pub kind: TaskKind,
    /// Since when.
    pub since: Boot,
    /// It was cancelled.
    pub cancelled: bool,
}

/// The kinds of [`crate::effect::Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum TaskKind {
    Initdb,
    MoveAside,
    PostBootstrap,
    BaseBackup,
    CopySlots,
    Restore,
    Rewind,
    Compare,
    StartPrimary,
    StartStandby,
    Promote,
    Stop,
}

impl Snapshot {
    /// Our tenure is confirmed and has at least `ms` left.
    pub fn tenure(&self, ms: u64) -> bool {
        let confirmed = self.deadline.is_some_and(|d| self.now.plus_ms(ms) < d);
        self.holder == Holder::Me && (confirmed || mutants::on(Mutant::FenceWithoutPermit))
    }

    /// Somebody held the lock once.
    pub fn ever_held(&self) -> bool {
        self.lock.as_ref().is_some_and(LockRecord::ever_held)
    }

    /// Another member by name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.name == name)
    }

    /// How to stream from a member.
    pub fn upstream_of(&self, leader: &str) -> Option<Upstream> {
        let member = self.member(leader)?;
        let (host, port) = member.postgres()?;
        let slot = self.config.use_slots.then(|| slot_name(&self.name));
        Some(Upstream { member: leader.to_owned(), ip: member.address(&host), host, port, slot })
    }

    /// Whom a standby streams from while `leader` has the lock. Outer none: that one has no address yet; inner none: nobody.
    pub fn follows(&self, leader: &str) -> Option<Option<Upstream>> {
        if self.tags.nostream {
            return Some(None);
        }
        self.cascades_from(leader).or_else(|| self.upstream_of(leader)).map(Some)
    }

    /// The member that our tag `replicatefrom` names, as long as it runs, sends, and is not itself behind us.
    fn cascades_from(&self, leader: &str) -> Option<Upstream> {
        let named = self.tags.replicatefrom.as_deref().filter(|name| *name != self.name && *name != leader)?;
        if self.server.shunned.as_ref().is_some_and(|(member, until)| member == named && self.now < *until) {
            return None;
        }
        // A chain of tags that comes back to us would end nowhere.
        let mut at = named;
        for _ in 0..self.members.len() {
            let member = self.member(at).filter(|m| !m.deleting && !self.config.fenced.contains(&m.name))?;
            if member.status.get("state").and_then(Value::as_str) != Some("running") {
                return None;
            }
            match member.tags.replicatefrom.as_deref() {
                Some(next) if next == self.name => return None,
                Some(next) if next != leader => at = next,
                _ => return self.upstream_of(named),
            }
        }
        None
    }

    /// The server or archive that a standby cluster follows; without a host only the archive.
    pub fn remote(&self) -> Option<Upstream> {
        let remote = self.config.standby_cluster.as_ref()?;
        Some(Upstream {
            member: String::new(),
            host: remote.host.clone().unwrap_or_default(),
            ip: String::new(),
            port: remote.port,
            slot: remote.slot.clone(),
        })
    }

    /// From whom to copy: a member with the tag `clonefrom` that runs, else the leader. Members choose differently, so that not all
    /// copy from the same; after a failed try it is the leader.
    pub fn clone_source(&self, leader: &str) -> Option<Upstream> {
        let fit = |m: &&Member| {
            m.name != self.name
                && m.name != leader
                && !m.deleting
                && !self.config.fenced.contains(&m.name)
                && m.status.get("state").and_then(Value::as_str) == Some("running")
                && m.tags.clonefrom
        };
        let fit: Vec<&Member> = self.members.iter().filter(fit).collect();
        let spread = self.name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let chosen = (self.server.failures == 0 && !fit.is_empty()).then(|| fit[spread % fit.len()].name.as_str());
        let source = self.upstream_of(chosen.unwrap_or(leader))?;
        // Our slot is made by the leader; elsewhere it may be missing or held back.
        Some(Upstream { slot: source.slot.filter(|_| chosen.is_none()), ..source })
    }

    /// Why this member may not lead now.
    pub fn barred(&self) -> Option<&str> {
        self.server.barred.as_ref().filter(|(until, _)| self.now < *until).map(|(_, why)| why.as_str())
    }

    /// We are the one who makes this cluster.
    pub fn bootstrapping(&self) -> bool {
        matches!(&self.initialize, Initialize::Racing { by: Some((pod, _)) } if *pod == self.name)
    }

    /// Where to ask a member.
    pub fn peer(&self, name: &str) -> Option<Peer> {
        self.member(name)?.peer()
    }

    /// This member's data is thrown away by a person's order.
    pub fn reinitializing(&self) -> bool {
        self.command.is_some_and(|c| matches!(c.kind, CommandKind::Reinitialize { .. }))
    }

    /// A copy is made from the leader, whoever else offers itself.
    pub fn from_leader(&self) -> bool {
        self.command.is_some_and(|c| c.kind == CommandKind::Reinitialize { from_leader: true })
    }

    /// A person named this member to lead now.
    pub fn candidate(&self) -> bool {
        self.failover.as_ref().is_some_and(|f| f.names(&self.name))
    }

    /// A person named this member to lead whatever became of the leader: a failover by hand.
    pub fn by_hand(&self) -> bool {
        self.candidate() && self.failover.as_ref().is_some_and(|f| f.leader.is_none())
    }

    /// Somebody could lead in our place, as far as the members' descriptions tell: `candidate`, or anybody.
    pub fn failover_possible(&self, candidate: Option<&str>) -> bool {
        let well = |m: &&Member| {
            m.name != self.name
                && !m.deleting
                && !self.config.fenced.contains(&m.name)
                && m.peer().is_some()
                && m.status.get("state").is_some_and(|s| s == "running")
        };
        let votes: BTreeSet<String> = self.members.iter().filter(well).map(|m| m.name.clone()).collect();
        self.members.iter().filter(well).any(|m| {
            let elected = match (&self.sync.leader, self.config.sync_mode) {
                (None, _) => true,
                (Some(_), SyncMode::Priority) => electorate(&self.sync, &m.name),
                (Some(_), _) => elected(&self.sync, &m.name, &votes),
            };
            candidate.is_none_or(|c| c == m.name) && !m.tags.nofailover && elected
        })
    }

    /// So long a primary may take to come up; 0 in the configuration is about crashes only.
    pub fn start_timeout_ms(&self) -> u64 {
        if let Some(Command { kind: CommandKind::Restart, timeout_ms: Some(ms), .. }) = self.command {
            return ms;
        }
        match self.config.primary_start_timeout_ms {
            0 => Dynamic::default().primary_start_timeout_ms,
            ms => ms,
        }
    }

    /// Our position: primary flush, or the larger of received and replayed.
    pub fn lsn(&self) -> Lsn {
        self.server.status.as_ref().map_or(Lsn(0), position)
    }
}

/// A server's position: primary flush, standby the larger of received and replayed.
pub fn position(status: &ServerStatus) -> Lsn {
    if status.in_recovery { status.received.max(status.replayed) } else { status.flush }
}
