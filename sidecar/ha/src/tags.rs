//! A member's tags: what it may be used for, as Patroni has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::boolean;

/// Tags that are booleans: published only when they are on.
const FLAGS: [&str; 5] = ["nofailover", "clonefrom", "noloadbalance", "nosync", "nostream"];

/// The section `tags`, or what a member published of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// It never becomes the leader.
    pub nofailover: bool,
    /// Of two members that are equally far the one with the higher number leads; 0 and below: `nofailover`.
    pub failover_priority: i64,
    /// Load balancers send no reads here.
    pub noloadbalance: bool,
    /// Others may copy from it.
    pub clonefrom: bool,
    /// It never becomes a synchronous standby.
    pub nosync: bool,
    /// Of two standbys the one with the higher number becomes synchronous first; 0 and below: `nosync`.
    pub sync_priority: i64,
    /// It streams from nobody.
    pub nostream: bool,
    /// The member from which it streams.
    pub replicatefrom: Option<String>,
    /// What is published: flags that are on, and everything else as it was written.
    pub published: BTreeMap<String, Value>,
}

impl Default for Tags {
    fn default() -> Self {
        Self::parse(&Value::Null)
    }
}

impl Tags {
    /// From the section of the configuration, or from a member's `status`.
    pub fn parse(section: &Value) -> Self {
        let get = |name: &str| section.get(name).filter(|value| !value.is_null());
        let flag = |name: &str| get(name).is_some_and(truth);
        let priority = |flag: &str, name: &str| {
            let number = get(name).and_then(integer);
            let excluded = match get(flag) {
                Some(value) => truth(value),
                None => number.is_some_and(|n| n <= 0),
            };
            (excluded, if excluded { 0 } else { number.unwrap_or(1) })
        };
        let (nofailover, failover_priority) = priority("nofailover", "failover_priority");
        let (nosync, sync_priority) = priority("nosync", "sync_priority");
        let mut published = BTreeMap::new();
        if let Value::Object(all) = section {
            for (name, value) in all {
                // A flag that is off still says something where a priority contradicts it.
                let off = FLAGS.contains(&name.as_str()) && !truth(value);
                let kept = match name.as_str() {
                    "nofailover" => get("failover_priority").is_some(),
                    "nosync" => get("sync_priority").is_some(),
                    _ => false,
                };
                if !value.is_null() && (!off || kept) {
                    published.insert(name.clone(), value.clone());
                }
            }
        }
        Self {
            nofailover,
            failover_priority,
            noloadbalance: flag("noloadbalance"),
            clonefrom: flag("clonefrom"),
            nosync,
            sync_priority,
            nostream: flag("nostream"),
            replicatefrom: get("replicatefrom").and_then(Value::as_str).filter(|n| !n.is_empty()).map(str::to_owned),
            published,
        }
    }

    /// Where a flag and a priority say different things, the flag wins: sentences for the log.
    pub fn conflicts(&self) -> Vec<String> {
        [("nofailover", "failover_priority"), ("nosync", "sync_priority")]
            .iter()
            .filter_map(|(flag, priority)| {
                let set = self.published.get(*flag)?;
                let number = self.published.get(*priority)?;
                (truth(set) != integer(number).is_some_and(|n| n <= 0)).then(|| {
                    format!(
                        "Conflicting configuration between {flag}: {set} and {priority}: {number}. Defaulting to {flag}: {set}"
                    )
                })
            })
            .collect()
    }
}

/// What Python takes for true, and the words for it.
fn truth(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => boolean(value).unwrap_or(!text.is_empty()),
        other => boolean(other).unwrap_or(false),
    }
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_priority_of_zero_excludes_and_the_flag_wins() {
        for (section, excluded, priority) in [
            (json!({}), false, 1),
            (json!({"nofailover": true}), true, 0),
            (json!({"nofailover": "on"}), true, 0),
            (json!({"failover_priority": 0}), true, 0),
            (json!({"failover_priority": "-1"}), true, 0),
            (json!({"failover_priority": 3}), false, 3),
            (json!({"failover_priority": 3, "nofailover": true}), true, 0),
            (json!({"failover_priority": 0, "nofailover": false}), false, 0),
        ] {
            let tags = Tags::parse(&section);
            assert_eq!((tags.nofailover, tags.failover_priority), (excluded, priority), "{section}");
        }
        assert!(Tags::parse(&json!({"sync_priority": 0})).nosync);
    }

    #[test]
    fn what_is_off_is_not_published_unless_a_priority_is_given() {
        let tags = Tags::parse(&json!({"nofailover": false, "clonefrom": true, "dc": "a", "replicatefrom": "x-1"}));
        assert_eq!(json!(tags.published), json!({"clonefrom": true, "dc": "a", "replicatefrom": "x-1"}));
        assert_eq!(tags.replicatefrom.as_deref(), Some("x-1"));
        let tags = Tags::parse(&json!({"nofailover": false, "failover_priority": 0}));
        assert_eq!(json!(tags.published), json!({"nofailover": false, "failover_priority": 0}));
        assert_eq!(tags.conflicts().len(), 1);
        assert!(Tags::parse(&json!({"nofailover": true, "failover_priority": 0})).conflicts().is_empty());
    }

    #[test]
    fn what_was_published_is_read_back() {
        let tags = Tags::parse(&json!({"nofailover": "yes", "sync_priority": 2, "nostream": true}));
        assert_eq!(Tags::parse(&json!(tags.published)), tags);
    }
}
