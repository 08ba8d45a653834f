//! The dynamic configuration as a document: edits, merges, and what agents could not use. Pure.

use matriarch_crds::PostgresClusterSpec;
use matriarch_crds::cluster::CONTROLLED_PARAMETERS;
use serde_json::{Map, Value};

use crate::error::instead;

/// Patroni's and our own settings at the top.
const KEYS: &[&str] = &[
    "check_timeline",
    "failsafe_mode",
    "ignore_slots",
    "loop_wait",
    "master_start_timeout",
    "master_stop_timeout",
    "max_timelines_history",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "member_slots_ttl",
    "pause",
    "postgresql",
    "primary_race_backoff",
    "primary_start_timeout",
    "primary_stop_timeout",
    "retry_timeout",
    "slots",
    "standby_cluster",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "ttl",
];

/// One `--set` or `--pg`.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    path: Vec<String>,
    value: Value,
}

impl Edit {
    /// `a.b=value`; the value is YAML.
    pub fn set(text: &str) -> Result<Self, String> {
        let (key, value) = split(text)?;
        Ok(Self { path: key.split('.').map(str::to_owned).collect(), value })
    }

    /// `name=value`, below `postgresql.parameters`; the name may have a dot of its own.
    pub fn parameter(text: &str) -> Result<Self, String> {
        let (key, value) = split(text)?;
        Ok(Self { path: ["postgresql", "parameters", key].map(str::to_owned).to_vec(), value })
    }

    /// Sets it, or removes it where the value is null.
    pub fn apply(&self, config: &mut Value) {
        let Some((last, sections)) = self.path.split_last() else { return };
        let mut place = config;
        for section in sections {
            make_mapping(place);
            let Some(map) = place.as_object_mut() else { return };
            place = map.entry(section.clone()).or_insert_with(|| Value::Object(Map::new()));
        }
        make_mapping(place);
        let Some(map) = place.as_object_mut() else { return };
        if self.value.is_null() { drop(map.remove(last)) } else { drop(map.insert(last.clone(), self.value.clone())) }
    }
}

/// Whatever it was, it is a mapping now.
fn make_mapping(value: &mut Value) {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
}

fn split(text: &str) -> Result<(&str, Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no '=': write e.g. ttl=30"))?;
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(format!("{text:?} names no setting: write e.g. ttl=30"));
    }
    let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((key, value))
}

/// A YAML mapping.
pub fn parse(text: &str) -> Result<Value, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| format!("this is no YAML: {error}"))?;
    if value.is_object() { Ok(value) } else { Err("a configuration is a YAML mapping, such as `ttl: 30`".to_owned()) }
}

/// As Patroni merges: mappings key by key, null removes, all else replaces.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return into.clone_from(patch) };
    make_mapping(into);
    let Some(map) = into.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// What no agent could use is refused here: they would go on with what they have.
pub fn check(config: &Value) -> Result<(), String> {
    let whole = |key: &str, least: i64| match &config[key] {
        Value::Null => Ok(None),
        value => match value.as_i64().or_else(|| value.as_str()?.trim().parse().ok()) {
            Some(number) if number >= least => Ok(Some(number)),
            _ => Err(format!("{key}: {value} must be a whole number, {least} or more")),
        },
    };
    let (ttl, wait, retry) = (whole("ttl", 5)?, whole("loop_wait", 1)?, whole("retry_timeout", 1)?);
    whole("maximum_lag_on_failover", 0)?;
    if let (Some(ttl), Some(wait), Some(retry)) = (ttl, wait, retry)
        && wait + 2 * retry > ttl
    {
        return Err(format!(
            "ttl: {ttl} must be at least loop_wait + 2 * retry_timeout = {}, so that a leader can retry before its lock expires",
            wait + 2 * retry
        ));
    }
    for path in ["/postgresql", "/postgresql/parameters", "/slots", "/standby_cluster"] {
        if config.pointer(path).is_some_and(|v| !v.is_null() && !v.is_object()) {
            return Err(format!("{} must be a mapping", path[1..].replace('/', ".")));
        }
    }
    Ok(())
}

/// What will not be as the user thinks: names that nobody knows, and what the spec will write again.
pub fn warnings(before: &Value, after: &Value, spec: &PostgresClusterSpec) -> Vec<String> {
    let mut all = Vec::new();
    let empty = Map::new();
    let map = |config: &Value, path: &str| config.pointer(path).and_then(Value::as_object).cloned();
    for key in after.as_object().unwrap_or(&empty).keys() {
        if !KEYS.contains(&key.as_str()) && before.get(key).is_none() {
            let near = instead(key, KEYS);
            let near = if near.starts_with("did") { format!(": {near}") } else { String::new() };
            all.push(format!("{key} is a setting that neither Patroni nor Matriarch knows{near}"));
        }
    }
    let (old, new) = (
        map(before, "/postgresql/parameters").unwrap_or_default(),
        map(after, "/postgresql/parameters").unwrap_or_default(),
    );
    let changed = |name: &String| old.get(name) != new.get(name);
    let mut names: Vec<&String> = new.keys().chain(old.keys()).filter(|name| changed(name)).collect();
    names.sort();
    names.dedup();
    for name in names {
        if spec.postgresql.parameters.contains_key(name) {
            all.push(format!(
                "spec.postgresql.parameters.{name} of the PostgresCluster wins: the operator will write its value again"
            ));
        } else if CONTROLLED_PARAMETERS.contains(&name.as_str()) {
            all.push(format!("{name} is computed by Matriarch: what is set here is not used"));
        }
    }
    let ha = &spec.ha;
    let fields = [
        ("ttl", "ha.ttl", ha.ttl.is_some()),
        ("loop_wait", "ha.loopWait", ha.loop_wait.is_some()),
        ("retry_timeout", "ha.retryTimeout", ha.retry_timeout.is_some()),
        ("maximum_lag_on_failover", "ha.maximumLagOnFailover", ha.maximum_lag_on_failover.is_some()),
        ("failsafe_mode", "ha.failsafeMode", ha.failsafe_mode.is_some()),
        ("pause", "paused", spec.paused.is_some()),
        ("synchronous_mode", "durability", true),
    ];
    for (key, field, named) in fields {
        if named && before.get(key) != after.get(key) {
            all.push(format!("spec.{field} of the PostgresCluster wins over {key}: change it there"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(more: &Value) -> PostgresClusterSpec {
        let mut spec = json!({"instances": 3, "image": "postgres:17", "storage": {"size": "1Gi"}});
        merge(&mut spec, more);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn edits_reach_into_sections() {
        let mut config = json!({"ttl": 10, "postgresql": {"parameters": {"work_mem": "4MB"}}});
        for edit in [
            Edit::set("ttl=30"),
            Edit::set("standby_cluster.host=db"),
            Edit::set("postgresql.use_slots=false"),
            Edit::parameter("pg_stat_statements.max=500"),
            Edit::parameter("work_mem=null"),
        ] {
            edit.unwrap().apply(&mut config);
        }
        let wanted = json!({"ttl": 30, "standby_cluster": {"host": "db"},
            "postgresql": {"use_slots": false, "parameters": {"pg_stat_statements.max": 500}}});
        assert_eq!(config, wanted);
        for wrong in ["ttl", "=3", "a..b=3"] {
            assert!(Edit::set(wrong).unwrap_err().contains("write e.g."), "{wrong}");
        }
    }

    #[test]
    fn a_merge_removes_by_null_and_keeps_the_rest() {
        let mut config = json!({"ttl": 10, "postgresql": {"parameters": {"a": 1, "b": 2}}});
        merge(&mut config, &parse("postgresql: {parameters: {a: null, c: 3}}").unwrap());
        assert_eq!(config, json!({"ttl": 10, "postgresql": {"parameters": {"b": 2, "c": 3}}}));
    }

    #[test]
    fn what_no_agent_could_use_is_refused_with_advice() {
        for (text, why) in [
            ("{ttl: soon}", "whole number"),
            ("{ttl: 3}", "5 or more"),
            ("{ttl: 10, loop_wait: 5, retry_timeout: 5}", "at least loop_wait + 2 * retry_timeout = 15"),
            ("{postgresql: {parameters: [a]}}", "postgresql.parameters must be a mapping"),
        ] {
            let said = check(&parse(text).unwrap()).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(parse("- a").unwrap_err().contains("mapping") && parse("a: [").unwrap_err().contains("no YAML"));
        assert_eq!(check(&json!({"ttl": "30", "loop_wait": 10, "retry_timeout": 10})), Ok(()));
    }

    #[test]
    fn what_the_spec_will_write_again_is_told() {
        let before = json!({"ttl": 10, "postgresql": {"parameters": {}}});
        let after = json!({"ttl": 20, "lopp_wait": 2, "synchronous_mode": false,
            "postgresql": {"parameters": {"work_mem": "8MB", "port": 1, "shared_buffers": "1GB"}}});
        let spec = spec(&json!({"ha": {"ttl": 10}, "postgresql": {"parameters": {"work_mem": "4MB"}}}));
        let said = warnings(&before, &after, &spec).join("\n");
        for part in
            ["did you mean loop_wait?", "parameters.work_mem", "port is computed", "spec.ha.ttl", "spec.durability"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("shared_buffers"), "{said}");
    }
}
