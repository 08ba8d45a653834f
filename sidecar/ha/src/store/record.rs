//! What the annotations of the lock objects say: lock, `initialize`, failover, sync. Format: Patroni's Kubernetes store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::Object;
use crate::types::{Lsn, Timeline, Wall};

/// Which pod holds the lock: `<pod uid>@<acquireTime>`. Patroni leaves it alone.
pub const HOLDER: &str = "matriarch.dev/holder";
/// Position of the shutdown checkpoint, `<timeline>@<lsn>@<acquireTime>`, written when a primary that stopped cleanly releases the
/// lock. Patroni, which leaves it alone, writes another acquireTime when it takes the lock: then it tells nothing any more.
pub const SHUTDOWN: &str = "matriarch.dev/shutdown";
/// The timeline that the present holder makes when it promotes: never one that another holder may have made, so that PostgreSQL
/// can tell two histories apart by their numbers. Grows with every acquisition by a standby.
pub const TIMELINE: &str = "matriarch.dev/timeline";
/// Who bootstraps: `<pod>@<pod uid>`, while `initialize` is empty.
pub const BOOTSTRAP: &str = "matriarch.dev/bootstrap";
/// The holder's fence is lifted, because the cluster is paused: for so many seconds after its last sign of life it may be writable.
/// Counts only beside [`HOLDER`].
pub const FENCE: &str = "matriarch.dev/fence";
/// On `/sync`: by which its writer knows its last write again.
pub const CLAIM: &str = "matriarch.dev/claim";
/// What came of the last switchover that was not done.
pub const RESULT: &str = "matriarch.dev/result";

/// The timeline that an object's annotation reserves; 0 without one.
pub fn timeline(object: &Object) -> Timeline {
    Timeline(object.annotations.get(TIMELINE).and_then(|t| t.parse().ok()).unwrap_or(0))
}

/// The leader lock as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// Holder's name; none: released.
    pub leader: Option<String>,
    /// Uid of the holder's pod, when the holder annotation belongs to this acquisition.
    pub holder_uid: Option<String>,
    /// ttl in milliseconds as written by the holder.
    pub ttl_ms: Option<u64>,
    /// As written; never compared with a clock.
    pub renew_time: String,
    /// As written.
    pub acquire_time: String,
    /// How often the lock changed hands.
    pub transitions: u64,
    /// The holder may be writable for so long after its last sign of life, as its fence is lifted for pause. Milliseconds.
    pub fence_ms: Option<u64>,
    /// The primary's position when it last renewed.
    pub optime: Lsn,
    /// The failsafe topology: member to api_url.
    pub failsafe: BTreeMap<String, String>,
    /// The timeline that its holder makes, or made; 0 when nobody wrote it.
    pub timeline: Timeline,
    /// Where the leader's replication slots are.
    pub slots: BTreeMap<String, Lsn>,
    /// Where the former primary ended, if it stopped cleanly before it released the lock.
    pub shutdown: Option<(Timeline, Lsn)>,
}

impl LockRecord {
    /// Never fails: what cannot be read is absent.
    pub fn parse(object: &Object) -> Self {
        let text = |key: &str| object.annotations.get(key).filter(|v| !v.is_empty());
        let acquire_time = text("acquireTime").cloned().unwrap_or_default();
        let holder_uid = text(HOLDER)
            .and_then(|h| h.split_once('@'))
            .filter(|(_, at)| *at == acquire_time)
            .map(|(uid, _)| uid.to_owned());
        Self {
            leader: text("leader").cloned(),
            ttl_ms: text("ttl").and_then(|t| t.parse::<u64>().ok()).map(|s| s.saturating_mul(1000)),
            fence_ms: text(FENCE)
                .filter(|_| holder_uid.is_some())
                .and_then(|t| t.parse::<u64>().ok())
                .map(|s| s.saturating_mul(1000)),
            renew_time: text("renewTime").cloned().unwrap_or_default(),
            transitions: text("transitions").and_then(|t| t.parse().ok()).unwrap_or(0),
            optime: Lsn(text("optime").and_then(|t| t.parse().ok()).unwrap_or(0)),
            slots: text("slots").and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default(),
            failsafe: text("failsafe").and_then(|f| serde_json::from_str(f).ok()).unwrap_or_default(),
            shutdown: text(SHUTDOWN).and_then(|s| {
                let mut parts = s.splitn(3, '@');
                let place = (Timeline(parts.next()?.parse().ok()?), Lsn(parts.next()?.parse().ok()?));
                (parts.next()? == acquire_time).then_some(place)
            }),
            timeline: timeline(object),
            holder_uid,
            acquire_time,
        }
    }

    /// Somebody held it once: the cluster is not new.
    pub fn ever_held(&self) -> bool {
        !self.acquire_time.is_empty()
    }

    /// The part whose change proves that the holder lives.
    pub fn heartbeat(&self) -> (Option<&str>, &str, Option<u64>, &str, u64) {
        (self.leader.as_deref(), &self.acquire_time, self.ttl_ms, &self.renew_time, self.transitions)
    }
}

/// The `initialize` key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Initialize {
    /// No such key: nobody has begun.
    #[default]
    Absent,
    /// Somebody bootstraps.
    Racing {
        /// `<pod>@<pod uid>` of who does, if it is one of ours.
        by: Option<(String, String)>,
    },
    /// The system identifier.
    Done(String),
}

impl Initialize {
    /// From the `-config` object.
    pub fn parse(object: Option<&Object>) -> Self {
        let Some(object) = object else { return Self::Absent };
        match object.annotations.get("initialize") {
            None => Self::Absent,
            Some(text) if text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit()) => Self::Done(text.clone()),
            Some(_) => Self::Racing {
                by: object
                    .annotations
                    .get(BOOTSTRAP)
                    .and_then(|by| by.split_once('@'))
                    .map(|(pod, uid)| (pod.to_owned(), uid.to_owned())),
            },
        }
    }
}

/// A wanted switchover or failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// The old leader; none: a manual failover.
    pub leader: Option<String>,
    /// The candidate.
    pub member: Option<String>,
    /// When.
    pub when: When,
}

/// When a switchover is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// At once.
    Now,
    /// Then.
    At(Wall),
    /// Nobody can tell: what was written.
    Unreadable(String),
}

impl Failover {
    /// From the `-failover` object; none when all is empty.
    pub fn parse(object: Option<&Object>) -> Option<Self> {
        let object = object?;
        let text = |key: &str| object.annotations.get(key).filter(|v| !v.is_empty()).cloned();
        let when = match text("scheduled_at") {
            None => When::Now,
            Some(at) => at.parse().map_or(When::Unreadable(at), When::At),
        };
        let this = Self { leader: text("leader"), member: text("member"), when };
        (this.leader.is_some() || this.member.is_some()).then_some(this)
    }

    /// To be done now, to this member.
    pub fn names(&self, member: &str) -> bool {
        self.when == When::Now && self.member.as_deref() == Some(member)
    }
}

/// Synchronous replication as the members agreed on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// Whose state it is.
    pub leader: Option<String>,
    /// Standbys whose votes count, sorted.
    pub voters: Vec<String>,
    /// How many votes a candidate needs besides its own.
    pub quorum: usize,
}

impl SyncState {
    /// From the `-sync` object.
    pub fn parse(object: Option<&Object>) -> Self {
        let Some(object) = object else { return Self::default() };
        let text = |key: &str| object.annotations.get(key).filter(|v| !v.is_empty());
        let mut voters: Vec<String> = text("sync_standby")
            .map(|names| names.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default();
        voters.sort();
        Self {
            leader: text("leader").cloned(),
            voters,
            quorum: text("quorum").and_then(|q| q.parse().ok()).unwrap_or(0),
        }
    }

    /// As annotations of a patch.
    pub fn annotations(&self) -> BTreeMap<String, Option<String>> {
        let voters = (!self.voters.is_empty()).then(|| self.voters.join(","));
        BTreeMap::from([
            ("leader".to_owned(), self.leader.clone()),
            ("sync_standby".to_owned(), voters),
            ("quorum".to_owned(), self.leader.is_some().then(|| self.quorum.to_string())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(annotations: &[(&str, &str)]) -> Object {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Object { annotations, ..Object::default() }
    }

    #[test]
    fn a_holder_of_another_acquisition_is_nobody() {
        let ours = object(&[("leader", "a"), ("acquireTime", "T1"), (HOLDER, "uid-1@T1"), ("ttl", "10")]);
        assert_eq!(LockRecord::parse(&ours).holder_uid.as_deref(), Some("uid-1"));
        let patroni_took_over = object(&[("leader", "b"), ("acquireTime", "T2"), (HOLDER, "uid-1@T1")]);
        assert_eq!(LockRecord::parse(&patroni_took_over).holder_uid, None);
    }

    #[test]
    fn what_a_former_holder_said_of_its_end_and_its_fence_ends_with_its_tenure() {
        let stopped = [("acquireTime", "T1"), (SHUTDOWN, "3@4096@T1")];
        assert_eq!(LockRecord::parse(&object(&stopped)).shutdown, Some((Timeline(3), Lsn(4096))));
        // Patroni took it since, wrote on, and released it.
        let since = [("acquireTime", "T2"), (SHUTDOWN, "3@4096@T1")];
        assert_eq!(LockRecord::parse(&object(&since)).shutdown, None);
        let paused = [("leader", "a"), ("acquireTime", "T1"), (HOLDER, "u@T1"), (FENCE, "60")];
        assert_eq!(LockRecord::parse(&object(&paused)).fence_ms, Some(60_000));
        let taken = [("leader", "b"), ("acquireTime", "T2"), (HOLDER, "u@T1"), (FENCE, "60")];
        assert_eq!(LockRecord::parse(&object(&taken)).fence_ms, None);
    }

    #[test]
    fn initialize_is_valid_only_as_a_system_identifier() {
        assert_eq!(Initialize::parse(None), Initialize::Absent);
        assert_eq!(Initialize::parse(Some(&object(&[]))), Initialize::Absent);
        let racing = object(&[("initialize", ""), (BOOTSTRAP, "a-0@u")]);
        assert_eq!(
            Initialize::parse(Some(&racing)),
            Initialize::Racing { by: Some(("a-0".to_owned(), "u".to_owned())) }
        );
        let done = object(&[("initialize", "7411111111111111111")]);
        assert_eq!(Initialize::parse(Some(&done)), Initialize::Done("7411111111111111111".to_owned()));
    }

    #[test]
    fn a_cleared_failover_reads_as_none() {
        assert_eq!(Failover::parse(Some(&object(&[("leader", ""), ("member", "")]))), None);
        assert!(Failover::parse(Some(&object(&[("member", "b")]))).is_some());
    }
}
