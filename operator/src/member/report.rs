//! What an agent says about its member: the pod's `status` annotation (Patroni's JSON, with a section of our own).

use std::collections::BTreeMap;

use serde_json::Value;

/// The `status` annotation, as far as the operator needs it. Unknown and malformed fields are ignored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentReport {
    /// Patroni's state of PostgreSQL.
    pub state: Option<String>,
    /// primary, replica, …
    pub role: Option<String>,
    /// Absolute LSN, in bytes.
    pub xlog_location: Option<i64>,
    /// Timeline.
    pub timeline: Option<i64>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// PostgreSQL has to be restarted for a setting.
    pub pending_restart: Option<bool>,
    /// For which, as far as it says: what is in force, and what would be.
    pub pending: BTreeMap<String, [String; 2]>,
    /// Tagged so that it is never elected.
    pub nofailover: bool,
    /// What Patroni does not have.
    pub matriarch: MatriarchReport,
}

/// The part of the annotation that is Matriarch's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MatriarchReport {
    /// Id of the rule that holds.
    pub rule: Option<Value>,
    /// Why the member is where it is, for people.
    pub reason: Option<String>,
    /// Settings that PostgreSQL does not take, and why.
    pub invalid_parameters: BTreeMap<String, String>,
    /// PostgreSQL's version: `170004` or `"17.4"`.
    pub server_version: Option<Value>,
    /// What came of the declared roles and databases, as the leader's agent says.
    pub declared: Option<Declared>,
}

/// What came of the declared roles and databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Which state was looked at.
    pub generation: String,
    /// What could not be done (`role/x`, `database/y`), and why.
    pub failed: BTreeMap<String, String>,
}

/// Fields are taken one by one, so that one of an unexpected type does not hide the others.
pub(super) fn report(text: &str) -> AgentReport {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return AgentReport::default() };
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let texts = |v: &Value| -> BTreeMap<String, String> {
        v.as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), text(v).unwrap_or_else(|| v.to_string())))
            .collect()
    };
    let own = &value["matriarch"];
    let pending = |reason: &Value| Some([text(&reason["old_value"])?, text(&reason["new_value"])?]);
    AgentReport {
        state: text(&value["state"]),
        role: text(&value["role"]),
        xlog_location: value["xlog_location"].as_i64(),
        timeline: value["timeline"].as_i64(),
        replication_state: text(&value["replication_state"]),
        pending_restart: value["pending_restart"].as_bool(),
        pending: value["pending_restart_reason"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, reason)| Some((name.clone(), pending(reason)?)))
            .collect(),
        nofailover: value["tags"]["nofailover"].as_bool().unwrap_or_default(),
        matriarch: MatriarchReport {
            rule: own.get("rule").cloned(),
            reason: text(&own["reason"]).filter(|r| !r.is_empty()),
            invalid_parameters: texts(&own["invalid_parameters"]),
            declared: text(&own["declared"]["generation"])
                .map(|generation| Declared { generation, failed: texts(&own["declared"]["failed"]) }),
            server_version: own.get("server_version").cloned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_fields_of_unexpected_types() {
        let r = report(
            r#"{"state":"running","timeline":"x","xlog_location":7,"matriarch":{"reason":"why","invalid_parameters":{"a":"b"}}}"#,
        );
        assert_eq!((r.state.as_deref(), r.timeline, r.xlog_location), (Some("running"), None, Some(7)));
        assert_eq!(r.matriarch.reason.as_deref(), Some("why"));
        assert_eq!(r.matriarch.invalid_parameters["a"], "b");
        assert_eq!(report("postgres://old"), AgentReport::default());
    }
}
