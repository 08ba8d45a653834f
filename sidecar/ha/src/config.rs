//! The dynamic configuration: the `config` annotation, parsed leniently, with Patroni's keys and our defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Replication before acknowledgement.
    pub sync_mode: SyncMode,
    /// Standbys that must have a commit.
    pub sync_count: usize,
    /// Physical slots for members.
    pub use_slots: bool,
    /// pg_rewind may be used.
    pub use_pg_rewind: bool,
    /// How long the slot of a missing member is kept.
    pub member_slots_ttl_ms: u64,
    /// A crashed primary that is not up after this is given up.
    pub primary_start_timeout_ms: u64,
    /// postgresql.parameters
    pub parameters: BTreeMap<String, String>,
    /// postgresql.pg_hba
    pub pg_hba: Vec<String>,
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
            sync_mode: SyncMode::Off,
            sync_count: 1,
            use_slots: true,
            use_pg_rewind: true,
            member_slots_ttl_ms: 1_800_000,
            primary_start_timeout_ms: 300_000,
            parameters: BTreeMap::new(),
            pg_hba: Vec::new(),
        }
    }
}

impl Dynamic {
    /// From the stored document; a key that cannot be read keeps its default, as Patroni does.
    pub fn parse(document: &Value) -> Self {
        let mut c = Self::default();
        let seconds = |key: &str, into: &mut u64| {
            if let Some(s) = document.get(key).and_then(Value::as_u64) {
                *into = s.saturating_mul(1000);
            }
        };
        seconds("ttl", &mut c.ttl_ms);
        seconds("loop_wait", &mut c.loop_wait_ms);
        seconds("retry_timeout", &mut c.retry_timeout_ms);
        seconds("member_slots_ttl", &mut c.member_slots_ttl_ms);
        seconds("primary_start_timeout", &mut c.primary_start_timeout_ms);
        c.ttl_ms = c.ttl_ms.max(MIN_TTL_MS);
        c.loop_wait_ms = c.loop_wait_ms.clamp(500, c.ttl_ms / 3);
        c.retry_timeout_ms = c.retry_timeout_ms.clamp(1_000, c.ttl_ms / 2);
        if let Some(lag) = document.get("maximum_lag_on_failover").and_then(Value::as_u64) {
            c.maximum_lag_on_failover = lag;
        }
        let flag = |value: Option<&Value>, into: &mut bool| {
            if let Some(v) = value.and_then(boolean) {
                *into = v;
            }
        };
        flag(document.get("check_timeline"), &mut c.check_timeline);
        flag(document.get("failsafe_mode"), &mut c.failsafe_mode);
        flag(document.get("pause"), &mut c.pause);
        c.sync_mode = match document.get("synchronous_mode") {
            Some(Value::String(s)) if s.eq_ignore_ascii_case("quorum") => SyncMode::Quorum,
            // Priority-based synchronous mode promises no less in the meantime: a quorum of all is waited for.
            other if other.and_then(boolean) == Some(true) => SyncMode::Quorum,
            _ => SyncMode::Off,
        };
        if let Some(n) = document.get("synchronous_node_count").and_then(Value::as_u64) {
            c.sync_count = usize::try_from(n).unwrap_or(1).max(1);
        }
        if let Some(postgresql) = document.get("postgresql") {
            flag(postgresql.get("use_slots"), &mut c.use_slots);
            flag(postgresql.get("use_pg_rewind"), &mut c.use_pg_rewind);
            if let Some(Value::Object(parameters)) = postgresql.get("parameters") {
                c.parameters =
                    parameters.iter().filter_map(|(k, v)| Some((k.to_ascii_lowercase(), scalar(v)?))).collect();
            }
            if let Some(Value::Array(lines)) = postgresql.get("pg_hba") {
                c.pg_hba = lines.iter().filter_map(|l| l.as_str().map(str::to_owned)).collect();
            }
        }
        c
    }
}

/// Below this no margin is left between the fence and the next leader.
pub const MIN_TTL_MS: u64 = 5_000;

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
fn scalar(value: &Value) -> Option<String> {
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
    fn patroni_keys_are_read_and_the_rest_is_default() {
        let c = Dynamic::parse(&serde_json::json!({
            "ttl": 20, "synchronous_mode": "quorum", "failsafe_mode": "off",
            "postgresql": {"use_slots": "no", "parameters": {"max_connections": 50, "Log_Statement": "ddl", "fsync": true}}
        }));
        assert_eq!(c.ttl_ms, 20_000);
        assert_eq!(c.loop_wait_ms, 2_000);
        assert_eq!(c.sync_mode, SyncMode::Quorum);
        assert!(!c.failsafe_mode && !c.use_slots);
        assert_eq!(c.parameters["max_connections"], "50");
        assert_eq!(c.parameters["log_statement"], "ddl");
        assert_eq!(c.parameters["fsync"], "on");
    }
}
