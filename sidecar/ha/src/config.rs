//! The dynamic configuration: the `config` annotation, parsed leniently, with Patroni's keys and our defaults.

mod parameters;
mod sound;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use parameters::{CLUSTER_WIDE, RAISED, limits};
pub use sound::{notes, sound};

use crate::slots::{Matcher, SlotKind, ignored, permanent};

/// How commits are replicated before they are acknowledged (`synchronous_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncMode {
    /// No standby is waited for.
    Off,
    /// The same standbys for each commit, each of which may lead.
    Priority,
    /// `ANY n (…)` of the standbys, and elections that count votes.
    Quorum,
}

/// What the loop needs of the configuration; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dynamic {
    /// Life of the lock after its last renewal.
    pub ttl_ms: u64,
    /// Longest sleep, and the pace of renewals.
    pub loop_wait_ms: u64,
    /// How long the store is tried before failsafe.
    pub retry_timeout_ms: u64,
    /// A standby further behind the last known position never takes over (bytes).
    pub maximum_lag_on_failover: u64,
    /// Only members on the cluster's timeline lead.
    pub check_timeline: bool,
    /// Keep the primary while the store is away and all members agree.
    pub failsafe_mode: bool,
    /// Automatic actions are off.
    pub pause: bool,
    /// Members whose PostgreSQL a person wants stopped (matriarch.fenced). Names that nobody has say nothing.
    #[serde(default)]
    pub fenced: BTreeSet<String>,
    /// Replication before acknowledgement.
    pub sync_mode: SyncMode,
    /// No commit is acknowledged without a standby (synchronous_mode_strict).
    pub sync_strict: bool,
    /// A standby further behind the furthest one is not synchronous (maximum_lag_on_syncnode, bytes).
    pub max_lag_on_syncnode: Option<u64>,
    /// A standby that still streams lets its primary so much time to renew the lock (primary_race_backoff).
    pub race_backoff_ms: u64,
    /// A fast shutdown of a primary becomes an immediate one after this; with synchronous replication only (primary_stop_timeout).
    pub primary_stop_timeout_ms: u64,
    /// The same for every stop (postgresql.pg_ctl_timeout).
    pub pg_ctl_timeout_ms: u64,
    /// How many lines of the timeline history are kept, 0: all (max_timelines_history).
    pub max_history: usize,
    /// Standbys that must have a commit.
    pub sync_count: usize,
    /// Physical slots for members.
    pub use_slots: bool,
    /// pg_rewind may be used.
    pub use_pg_rewind: bool,
    /// A directory that pg_rewind could not mend is removed, and copied anew (while the leader vouches for another copy).
    pub remove_on_rewind_failure: bool,
    /// The same where pg_rewind cannot be used on a directory that has diverged.
    pub remove_on_divergence: bool,
    /// How long the slot of a missing member is kept.
    pub member_slots_ttl_ms: u64,
    /// A crashed primary that is not up after this is given up.
    pub primary_start_timeout_ms: u64,
    /// postgresql.parameters
    pub parameters: BTreeMap<String, String>,
    /// postgresql.pg_hba
    pub pg_hba: Vec<String>,
    /// postgresql.pg_ident
    pub pg_ident: Vec<String>,
    /// What is otherwise for members of one role: `primary`, `replica`, `standby_leader`.
    pub roles: BTreeMap<String, OfRole>,
    /// What of postgresql.recovery_conf holds for every standby: restore_command and its kin, no target and no upstream.
    pub recovery: BTreeMap<String, String>,
    /// One of postgresql.create_replica_methods needs no leader.
    pub replica_without_leader: bool,
    /// The cluster follows another one.
    pub standby_cluster: Option<StandbyCluster>,
    /// `slots`: permanent ones.
    pub slots: BTreeMap<String, SlotKind>,
    /// `ignore_slots`: those that are not ours.
    pub ignore_slots: Vec<Matcher>,
}

/// `postgresql.parameters_<role>`, which are merged, and `pg_hba_<role>`, `pg_ident_<role>`, which replace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfRole {
    /// Merged into the parameters.
    pub parameters: BTreeMap<String, String>,
    /// Instead of `pg_hba`.
    pub pg_hba: Option<Vec<String>>,
    /// Instead of `pg_ident`.
    pub pg_ident: Option<Vec<String>>,
}

/// Whom a standby cluster follows (`standby_cluster`): a server, an archive, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyCluster {
    /// Host of the remote server, or several with commas; none: only the archive is followed.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// The slot on the remote server.
    pub slot: Option<String>,
    /// restore_command, archive_cleanup_command, recovery_min_apply_delay of the standby leader.
    pub recovery: BTreeMap<String, String>,
}

impl Default for Dynamic {
    fn default() -> Self {
        Self {
            ttl_ms: 10_000,
            loop_wait_ms: 2_000,
            retry_timeout_ms: 3_000,
            maximum_lag_on_failover: 1_048_576,
            check_timeline: false,
            failsafe_mode: true,
            pause: false,
            fenced: BTreeSet::new(),
            sync_mode: SyncMode::Off,
            sync_strict: false,
            max_lag_on_syncnode: None,
            race_backoff_ms: 0,
            primary_stop_timeout_ms: 0,
            pg_ctl_timeout_ms: 60_000,
            max_history: 0,
            sync_count: 1,
            use_slots: true,
            use_pg_rewind: true,
            remove_on_rewind_failure: true,
            remove_on_divergence: true,
            member_slots_ttl_ms: 1_800_000,
            primary_start_timeout_ms: 300_000,
            parameters: BTreeMap::new(),
            pg_hba: Vec::new(),
            pg_ident: Vec::new(),
            roles: BTreeMap::new(),
            recovery: BTreeMap::new(),
            replica_without_leader: false,
            standby_cluster: None,
            slots: BTreeMap::new(),
            ignore_slots: Vec::new(),
        }
    }
}

impl Dynamic {
    /// From the stored document; a key that cannot be read keeps its default, as Patroni does.
    pub fn parse(document: &Value) -> Self {
        let mut c = Self::default();
        let seconds = |key: &str, into: &mut u64| {
            if let Some(ms) = document.get(key).and_then(milliseconds) {
                *into = ms;
            }
        };
        let number = |key: &str| document.get(key).and_then(integer).and_then(|number| u64::try_from(number).ok());
        let flag = |value: Option<&Value>, into: &mut bool| {
            if let Some(v) = value.and_then(boolean) {
                *into = v;
            }
        };
        seconds("ttl", &mut c.ttl_ms);
        seconds("loop_wait", &mut c.loop_wait_ms);
        seconds("retry_timeout", &mut c.retry_timeout_ms);
        seconds("member_slots_ttl", &mut c.member_slots_ttl_ms);
        // Patroni's former names first: the present ones win.
        for key in ["master_start_timeout", "primary_start_timeout"] {
            seconds(key, &mut c.primary_start_timeout_ms);
        }
        for key in ["master_stop_timeout", "primary_stop_timeout"] {
            seconds(key, &mut c.primary_stop_timeout_ms);
        }
        seconds("primary_race_backoff", &mut c.race_backoff_ms);
        flag(document.get("synchronous_mode_strict"), &mut c.sync_strict);
        c.max_lag_on_syncnode = number("maximum_lag_on_syncnode").filter(|lag| *lag > 0);
        if let Some(n) = number("max_timelines_history") {
            c.max_history = usize::try_from(n).unwrap_or(0);
        }
        c.ttl_ms = c.ttl_ms.max(MIN_TTL_MS);
        c.loop_wait_ms = c.loop_wait_ms.clamp(500, c.ttl_ms / 3);
        c.retry_timeout_ms = c.retry_timeout_ms.clamp(1_000, c.ttl_ms / 2);
        if let Some(lag) = number("maximum_lag_on_failover") {
            c.maximum_lag_on_failover = lag;
        }
        flag(document.get("check_timeline"), &mut c.check_timeline);
        flag(document.get("failsafe_mode"), &mut c.failsafe_mode);
        flag(document.get("pause"), &mut c.pause);
        c.fenced = lines(document.pointer("/matriarch/fenced")).unwrap_or_default().into_iter().collect();
        c.sync_mode = match document.get("synchronous_mode") {
            Some(Value::String(s)) if s.eq_ignore_ascii_case("quorum") => SyncMode::Quorum,
            other if other.and_then(boolean) == Some(true) => SyncMode::Priority,
            _ => SyncMode::Off,
        };
        if let Some(n) = number("synchronous_node_count") {
            c.sync_count = usize::try_from(n).unwrap_or(1).max(1);
        }
        let aliases = ["permanent_replication_slots", "permanent_slots", "slots"];
        c.slots = permanent(aliases.iter().find_map(|key| document.get(*key)));
        c.ignore_slots = ignored(document.get("ignore_slots"));
        c.standby_cluster = document.get("standby_cluster").and_then(StandbyCluster::parse);
        if c.standby_cluster.is_some() {
            c.sync_mode = SyncMode::Off; // nothing is committed here
        }
        if let Some(postgresql) = document.get("postgresql") {
            flag(postgresql.get("use_slots"), &mut c.use_slots);
            if let Some(s) = postgresql.get("pg_ctl_timeout").and_then(Value::as_u64).filter(|s| *s > 0) {
                c.pg_ctl_timeout_ms = s.saturating_mul(1000);
            }
            flag(postgresql.get("use_pg_rewind"), &mut c.use_pg_rewind);
            flag(postgresql.get("remove_data_directory_on_rewind_failure"), &mut c.remove_on_rewind_failure);
            flag(postgresql.get("remove_data_directory_on_diverged_timelines"), &mut c.remove_on_divergence);
            c.parameters = parameters::parameters(postgresql.get("parameters"));
            c.pg_hba = lines(postgresql.get("pg_hba")).unwrap_or_default();
            c.pg_ident = lines(postgresql.get("pg_ident")).unwrap_or_default();
            for role in ["primary", "replica", "standby_leader"] {
                let of = |key: &str| postgresql.get(format!("{key}_{role}"));
                let parameters = parameters::parameters(of("parameters"));
                let other = OfRole { parameters, pg_hba: lines(of("pg_hba")), pg_ident: lines(of("pg_ident")) };
                if other != OfRole::default() {
                    c.roles.insert(role.to_owned(), other);
                }
            }
            c.recovery = recovery(postgresql.get("recovery_conf"));
            c.replica_without_leader = methods(postgresql.get("create_replica_methods"))
                .iter()
                .any(|name| postgresql.get(name).and_then(|m| m.get("no_leader")).and_then(boolean) == Some(true));
        }
        c
    }

    /// Parameters and lines for a member of this role.
    pub fn of_role(&self, role: &str) -> (BTreeMap<String, String>, &[String], &[String]) {
        let mut parameters = self.parameters.clone();
        let Some(other) = self.roles.get(role) else { return (parameters, &self.pg_hba, &self.pg_ident) };
        let cluster_wide = |name: &str| CLUSTER_WIDE.contains(&name);
        parameters.extend(other.parameters.clone().into_iter().filter(|(name, _)| !cluster_wide(name)));
        (
            parameters,
            other.pg_hba.as_deref().unwrap_or(&self.pg_hba),
            other.pg_ident.as_deref().unwrap_or(&self.pg_ident),
        )
    }
}

impl StandbyCluster {
    /// None: it names neither a server nor an archive.
    fn parse(section: &Value) -> Option<Self> {
        let text = |key: &str| section.get(key).and_then(scalar).filter(|text| !text.is_empty());
        let host = text("host");
        let recovery: BTreeMap<String, String> =
            ["restore_command", "archive_cleanup_command", "recovery_min_apply_delay"]
                .into_iter()
                .filter_map(|key| Some((key.to_owned(), text(key)?)))
                .collect();
        let port = text("port").and_then(|port| port.parse().ok());
        // As Patroni: a port alone means a server on this machine.
        let host = host.or_else(|| port.map(|_| "localhost".to_owned()));
        (host.is_some() || recovery.contains_key("restore_command")).then(|| Self {
            host,
            port: port.unwrap_or(5432),
            slot: text("primary_slot_name"),
            recovery,
        })
    }
}

/// Below this no margin is left between the fence and the next leader.
pub const MIN_TTL_MS: u64 = 5_000;

/// The dynamic configuration with the local section `postgresql` on top: key by key, parameters each for itself. `use_slots` and
/// whether replication slots are used at all are the cluster's business, so that key never comes from one member.
pub fn effective(document: &Value, local: &Value) -> Value {
    let mut all = if document.is_null() { Value::Object(Map::new()) } else { document.clone() };
    let (Value::Object(top), Value::Object(local)) = (&mut all, local) else { return all };
    let section = top.entry("postgresql").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(section) = section else { return all };
    for (key, value) in local {
        let parameters = key == "parameters" || key.starts_with("parameters_");
        match (section.get_mut(key), value) {
            _ if key == "use_slots" => {}
            (Some(Value::Object(there)), Value::Object(ours)) if parameters => {
                // Names are the same in any case.
                *there = std::mem::take(there).into_iter().map(|(name, v)| (name.to_ascii_lowercase(), v)).collect();
                there.extend(own_parameters(ours));
            }
            (_, Value::Object(ours)) if parameters => {
                section.insert(key.clone(), Value::Object(own_parameters(ours).collect()));
            }
            _ => {
                section.insert(key.clone(), value.clone());
            }
        }
    }
    all
}

/// What one member may set for itself.
fn own_parameters(section: &Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    section
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !CLUSTER_WIDE.contains(&name.as_str()))
}

/// A list of texts; none: it is not one.
fn lines(value: Option<&Value>) -> Option<Vec<String>> {
    let lines = value?.as_array()?;
    Some(lines.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect())
}

/// A whole number, also as a text.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Seconds, or a text with one of PostgreSQL's units of time, in milliseconds.
pub fn milliseconds(value: &Value) -> Option<u64> {
    let (number, unit) = match value {
        Value::Number(number) => (number.as_f64()?, "s"),
        Value::String(text) => {
            let text = text.trim();
            let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
            (number.trim().parse::<f64>().ok()?, unit)
        }
        _ => return None,
    };
    let factor = match unit {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let ms = (number * factor).round();
    // Longer than a century is a mistake, and would overflow sums of times.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds")]
    (0.0..=3.2e12).contains(&ms).then_some(ms as u64)
}

/// The names of `create_replica_methods`: a list, or one name.
pub fn methods(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(names)) => names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
        Some(Value::String(name)) => vec![name.clone()],
        _ => Vec::new(),
    }
}

/// What of a `recovery_conf` holds for every standby: neither a target, nor whom it follows.
fn recovery(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(all)) = value else { return BTreeMap::new() };
    let lasting = |name: &str| {
        !name.starts_with("recovery_target")
            && !matches!(name, "primary_conninfo" | "primary_slot_name" | "standby_mode")
    };
    all.iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| lasting(name))
        .filter_map(|(name, value)| Some((name, scalar(value)?)))
        .collect()
}

/// Patroni's booleans: on/true/yes/1, off/false/no/0, any case.
pub fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => n.as_i64().map(|n| n != 0),
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A parameter's value as PostgreSQL would read it.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(if *b { "on" } else { "off" }.to_owned()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_section_wins_but_for_what_the_whole_cluster_shares() {
        let dynamic = serde_json::json!({"ttl": 20, "postgresql": {
            "use_slots": true, "recovery_conf": {"restore_command": "a"}, "create_replica_methods": ["wal", "basebackup"],
            "parameters": {"work_mem": "1MB", "max_connections": 50}}});
        let local = serde_json::json!({"use_slots": false, "wal": {"no_leader": 1},
            "recovery_conf": {"restore_command": "b", "recovery_target_time": "x"},
            "parameters": {"work_mem": "2MB", "max_connections": 9}});
        let c = Dynamic::parse(&effective(&dynamic, &local));
        assert!(c.use_slots && c.replica_without_leader && c.ttl_ms == 20_000);
        assert_eq!((c.parameters["work_mem"].as_str(), c.parameters["max_connections"].as_str()), ("2MB", "50"));
        assert_eq!(c.recovery, BTreeMap::from([("restore_command".to_owned(), "b".to_owned())]));
        assert!(!Dynamic::parse(&dynamic).replica_without_leader);
        let alone = effective(&Value::Null, &serde_json::json!({"recovery_conf": {"restore_command": "b"}}));
        assert_eq!(Dynamic::parse(&alone).recovery.len(), 1);
    }

    #[test]
    fn patroni_keys_are_read_and_the_rest_is_default() {
        let c = Dynamic::parse(&serde_json::json!({
            "ttl": 20, "synchronous_mode": "quorum", "failsafe_mode": "off",
            "postgresql": {"use_slots": "no", "pg_ctl_timeout": 90, "parameters": {"max_connections": 50, "Log_Statement": "ddl", "fsync": true}}
        }));
        assert_eq!((c.pg_ctl_timeout_ms, Dynamic::default().pg_ctl_timeout_ms), (90_000, 60_000));
        assert_eq!(c.ttl_ms, 20_000);
        assert_eq!(c.loop_wait_ms, 2_000);
        assert_eq!(c.sync_mode, SyncMode::Quorum);
        assert!(!c.failsafe_mode && !c.use_slots);
        assert_eq!(c.parameters["max_connections"], "50");
        assert_eq!(c.parameters["log_statement"], "ddl");
        assert_eq!(c.parameters["fsync"], "on");
    }

    #[test]
    fn names_of_parameters_have_no_case() {
        let dynamic = serde_json::json!({"postgresql": {"parameters": {"work_mem": "1MB", "TimeZone": "UTC"}}});
        let local = serde_json::json!({"parameters": {"Work_Mem": "2MB", "timezone": "CET", "Max_Connections": 7}});
        let c = Dynamic::parse(&effective(&dynamic, &local));
        assert_eq!((c.parameters["work_mem"].as_str(), c.parameters["timezone"].as_str()), ("2MB", "CET"));
        assert_eq!(c.parameters.len(), 2, "{:?}", c.parameters);
    }

    #[test]
    fn a_role_may_have_its_own() {
        let c = Dynamic::parse(&serde_json::json!({"postgresql": {
            "parameters": {"work_mem": "1MB", "max_connections": 100}, "pg_hba": ["a"], "pg_ident": ["m s p"],
            "parameters_replica": {"Work_Mem": "2MB", "max_connections": 7}, "pg_hba_primary": ["b"]}}));
        let (parameters, hba, ident) = c.of_role("replica");
        assert_eq!((parameters["work_mem"].as_str(), parameters["max_connections"].as_str()), ("2MB", "100"));
        assert_eq!((hba, ident), (&["a".to_owned()][..], &["m s p".to_owned()][..]));
        let (parameters, hba, _) = c.of_role("primary");
        assert_eq!((parameters["work_mem"].as_str(), hba), ("1MB", &["b".to_owned()][..]));
    }

    #[test]
    fn times_may_have_units() {
        let ms = |value: serde_json::Value| milliseconds(&value);
        assert_eq!(
            [ms(10.into()), ms("10".into()), ms("5min".into()), ms("1.5 s".into())],
            [Some(10_000), Some(10_000), Some(300_000), Some(1_500)]
        );
        for bad in
            [serde_json::json!(-1), "x".into(), "5 years".into(), "nan".into(), "1e300".into(), serde_json::json!([])]
        {
            assert_eq!(milliseconds(&bad), None, "{bad}");
        }
        let c = Dynamic::parse(&serde_json::json!({"master_start_timeout": 5, "member_slots_ttl": "1h"}));
        assert_eq!((c.primary_start_timeout_ms, c.member_slots_ttl_ms), (5_000, 3_600_000));
    }
}
