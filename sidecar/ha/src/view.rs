//! What the outside may see of a member: REST, probes and metrics are answered from this alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Declared, ServerStatus, StandbyStatus};
use crate::store::record::Failover;
use crate::types::{Boot, Lsn, Timeline};

/// A member's picture of itself and its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Our name.
    pub name: String,
    /// Our pod.
    pub pod_uid: String,
    /// Patroni's state word: `running`, `starting`, `stopped`, `creating replica`, `initializing new cluster` …
    pub state: String,
    /// Patroni's role word: `primary`, `replica`, `uninitialized`, `demoted`.
    pub role: String,
    /// The last answer of the server, none when it did not answer.
    pub server: Option<ServerStatus>,
    /// We hold the lock, and not past its deadline.
    pub leader: bool,
    /// Until when we may say so, CLOCK_BOOTTIME (probes look at the clock themselves).
    pub leader_until: Boot,
    /// Who holds the lock as far as we know.
    pub leader_name: Option<String>,
    /// The leader's last published position.
    pub leader_lsn: Lsn,
    /// Nobody holds it, or the store has not been heard of for a ttl.
    pub unlocked: bool,
    /// `failsafe` in force.
    pub failsafe_active: bool,
    /// The failsafe topology as stored: member to api_url.
    pub failsafe_members: BTreeMap<String, String>,
    /// Failsafe mode is configured.
    pub failsafe_mode: bool,
    /// The cluster is paused.
    pub paused: bool,
    /// Pause is wanted, and not in force here: our primary's fence is not lifted yet.
    pub pausing: bool,
    /// Synchronous replication: `off`, `on`, `quorum`.
    pub sync_mode: String,
    /// We count as a synchronous (quorum) standby.
    pub sync_standby: bool,
    /// All members.
    pub members: Arc<Vec<MemberView>>,
    /// The whole dynamic configuration as stored.
    pub config: Option<Arc<serde_json::Value>>,
    /// Wanted switchover.
    pub switchover: Option<Failover>,
    /// A restart for later, in Patroni's keys.
    pub scheduled_restart: Option<serde_json::Value>,
    /// Nothing here is or may become writable.
    pub demoted: bool,
    /// A candidate that runs Patroni must not count our position yet: we may still acknowledge commits of the old primary.
    pub withholds_position: bool,
    /// The timelines that ended.
    pub history: Vec<crate::history::Line>,
    /// When the store was last heard of, CLOCK_BOOTTIME.
    pub store_seen: Boot,
    /// When the core last finished a cycle, CLOCK_BOOTTIME.
    pub cycle_at: Boot,
    /// The rule in force.
    pub rule: String,
    /// And its reason.
    pub reason: String,
    /// ttl in milliseconds.
    pub ttl_ms: u64,
    /// Longest replication lag with which a standby is ready, bytes.
    pub max_lag: u64,
    /// Our tags, as published.
    pub tags: BTreeMap<String, serde_json::Value>,
    /// Why parameters of the configuration cannot be used: name to sentence.
    pub invalid_parameters: BTreeMap<String, String>,
    /// Why values of the configuration are not used, in sentences.
    #[serde(default)]
    pub config_problems: Vec<String>,
    /// What became of declared roles and databases.
    #[serde(default)]
    pub declared: Option<Declared>,
    /// Standbys of ours.
    pub standbys: Vec<StandbyStatus>,
    /// Our timeline.
    pub timeline: Timeline,
}

/// Another member, or ourselves, from the pods' annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: Option<String>,
    /// The `status` annotation.
    pub status: serde_json::Value,
    /// It holds the lock.
    pub leader: bool,
    /// Listed as a synchronous standby.
    pub sync: bool,
}
