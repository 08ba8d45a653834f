//! PostgreSQL's parameters as the cluster has them: names in lower case, those of which all members must have the same or more, and
//! Patroni's synonyms.

use std::collections::BTreeMap;

use serde_json::Value;

use super::scalar;

/// Parameters of which primary and standbys must agree: they are set for the whole cluster only.
pub const CLUSTER_WIDE: [&str; 10] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "track_commit_timestamp",
    "wal_keep_segments",
    "wal_keep_size",
    "wal_level",
];

/// Of these a standby must have at least what its primary has (PostgreSQL's manual, "Hot Standby").
pub const RAISED: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Patroni's minimums.
pub(super) fn least(name: &str) -> Option<i64> {
    Some(match name.to_ascii_lowercase().as_str() {
        "max_connections" => 25,
        "max_wal_senders" => 3,
        "max_prepared_transactions" => 0,
        "max_locks_per_transaction" => 32,
        "max_replication_slots" => 4,
        "max_worker_processes" => 2,
        "wal_keep_segments" => 1,
        _ => return None,
    })
}

/// A section of parameters: names in lower case, values as PostgreSQL reads them.
pub(super) fn parameters(section: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(all)) = section else { return BTreeMap::new() };
    let mut parameters: BTreeMap<String, String> =
        all.iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase(), scalar(value)?))).collect();
    if let Some(level) = parameters.get_mut("wal_level") {
        // What PostgreSQL 9.6 has merged, and what has no standbys.
        if ["archive", "hot_standby", "minimal"].contains(&level.to_ascii_lowercase().as_str()) {
            "replica".clone_into(level);
        }
    }
    // Since PostgreSQL 13 a size.
    if let Some(segments) = parameters.remove("wal_keep_segments")
        && let Ok(segments) = segments.trim().parse::<u64>()
    {
        parameters.entry("wal_keep_size".to_owned()).or_insert_with(|| format!("{}MB", segments.saturating_mul(16)));
    }
    parameters
}

/// What a primary has to keep to: of each parameter the least that a standby still runs with that waits for a restart.
pub fn limits<'a>(standbys: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, u64> {
    let mut limits: BTreeMap<String, u64> = BTreeMap::new();
    for status in standbys {
        let Some(Value::Object(reasons)) = status.get("pending_restart_reason") else { continue };
        for name in RAISED {
            let number = |key: &str| reasons.get(name)?.get(key)?.as_str()?.trim().parse::<u64>().ok();
            // One that is to be lowered limits nobody.
            if let (Some(old), Some(new)) = (number("old_value"), number("new_value"))
                && old < new
            {
                let least = limits.entry(name.to_owned()).or_insert(old);
                *least = old.min(*least);
            }
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn synonyms_and_cases_are_one() {
        let section = json!({"Wal_Level": "hot_standby", "wal_keep_segments": 8, "DateStyle": "ISO", "gone": null});
        let all = parameters(Some(&section));
        assert_eq!((all["wal_level"].as_str(), all["wal_keep_size"].as_str()), ("replica", "128MB"));
        assert_eq!((all["datestyle"].as_str(), all.len()), ("ISO", 3));
        assert_eq!(parameters(Some(&json!({"wal_keep_segments": 8, "wal_keep_size": "1GB"})))["wal_keep_size"], "1GB");
    }

    #[test]
    fn standbys_that_wait_for_more_limit_their_primary() {
        let waits = |old: &str, new: &str| json!({"pending_restart_reason": {"max_connections": {"old_value": old, "new_value": new}}});
        let all = [
            waits("100", "200"),
            waits("50", "200"),
            waits("300", "200"),
            json!({}),
            json!({"pending_restart_reason": 3}),
        ];
        assert_eq!(limits(&all), BTreeMap::from([("max_connections".to_owned(), 50)]));
        assert!(limits(&[waits("?", "200")]).is_empty());
    }
}
