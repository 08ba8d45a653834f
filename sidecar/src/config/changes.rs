//! Which keys of two configurations differ, and when each of them comes into force.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::reload::Report;

/// In force only from the next start of the agent on: who we are, where things are, who else is asked.
const FIXED: [&str; 19] = [
    "scope",
    "name",
    "namespace",
    "kubernetes",
    "matriarch",
    "watchdog",
    "citus",
    "ctl",
    "restapi.listen",
    "postgresql.listen",
    "postgresql.data_dir",
    "postgresql.config_dir",
    "postgresql.config_base_name",
    "postgresql.custom_conf",
    "postgresql.bin_dir",
    "postgresql.bin_name",
    "postgresql.use_unix_socket",
    "postgresql.use_unix_socket_repl",
    "postgresql.parameters.unix_socket_directories",
];
/// Another file may be told, but not none.
const CERTIFICATE: &str = "restapi.certfile";
/// Of use only while a new cluster is made.
const ONCE: &str = "bootstrap";

/// What a reload makes of the difference.
pub fn report(old: &Value, new: &Value) -> Report {
    let mut report = Report::default();
    for key in differing(old, new) {
        if is_fixed(&key) || (key == CERTIFICATE && tls_differs(old, new)) {
            report.later.push(key);
        } else if key == ONCE || key.starts_with("bootstrap.") {
            report.unused.push(key);
        } else {
            report.applied.push(key);
        }
    }
    report
}

/// `new` with everything that cannot change as it is in `old`.
pub fn keep_fixed(old: &Value, new: &Value) -> Value {
    let mut kept = new.clone();
    for key in FIXED.into_iter().chain(tls_differs(old, new).then_some(CERTIFICATE)) {
        let path: Vec<&str> = key.split('.').collect();
        let value = path.iter().try_fold(old, |value, part| value.get(part)).cloned();
        put(&mut kept, &path, value);
    }
    kept
}

/// Others know the way to us: plain HTTP does not become HTTPS while we run, nor the other way round.
fn tls_differs(old: &Value, new: &Value) -> bool {
    let has = |document: &Value| document.pointer("/restapi/certfile").is_some_and(|file| !file.is_null());
    has(old) != has(new)
}

fn put(into: &mut Value, path: &[&str], value: Option<Value>) {
    if into.is_null() && value.is_some() {
        *into = Value::Object(Map::new());
    }
    let (Value::Object(map), Some((first, rest))) = (into, path.split_first()) else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => drop(map.insert((*first).to_owned(), value)),
        (true, None) => drop(map.remove(*first)),
        (false, None) => {
            if let Some(inner) = map.get_mut(*first) {
                put(inner, rest, None);
            }
        }
        (false, value) => put(map.entry(*first).or_insert_with(|| Value::Object(Map::new())), rest, value),
    }
}

fn is_fixed(key: &str) -> bool {
    FIXED.iter().any(|fixed| key == *fixed || key.strip_prefix(fixed).is_some_and(|rest| rest.starts_with('.')))
}

/// Keys in dots, down to the key of a section, and to single parameters.
fn differing(old: &Value, new: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    walk(String::new(), old, new, &mut keys);
    keys
}

fn walk(key: String, old: &Value, new: &Value, keys: &mut BTreeSet<String>) {
    const NOTHING: &Value = &Value::Null;
    if old == new {
        return;
    }
    let section = |value: &Value| value.is_object() || value.is_null();
    let deep = key.matches('.').count() >= 2 || key.starts_with("bootstrap.") || key.ends_with(".authentication");
    if deep || !section(old) || !section(new) || (old.is_null() && new.is_null()) {
        keys.insert(key);
        return;
    }
    let names = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let mut all: BTreeSet<String> = names(old);
    all.extend(names(new));
    if all.is_empty() {
        keys.insert(key);
        return;
    }
    for name in all {
        let (old, new) = (old.get(&name).unwrap_or(NOTHING), new.get(&name).unwrap_or(NOTHING));
        walk(if key.is_empty() { name } else { format!("{key}.{name}") }, old, new, keys);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_key_is_told_when_it_comes_into_force() {
        let old = json!({"scope": "a", "tags": {"nofailover": true}, "bootstrap": {"dcs": {"ttl": 1}},
            "postgresql": {"listen": "*:1", "parameters": {"work_mem": "1MB", "a": 1}, "authentication": {"superuser": {"password": "x"}}}});
        let new = json!({"scope": "b", "bootstrap": {"dcs": {"ttl": 2}}, "log": {"level": "DEBUG"},
            "postgresql": {"listen": "*:2", "parameters": {"work_mem": "2MB", "a": 1}, "authentication": {"superuser": {"password": "y"}}}});
        let report = report(&old, &new);
        assert_eq!(
            report.applied,
            ["log.level", "postgresql.authentication", "postgresql.parameters.work_mem", "tags.nofailover"]
        );
        assert_eq!(report.later, ["postgresql.listen", "scope"]);
        assert_eq!(report.unused, ["bootstrap.dcs"]);
    }

    #[test]
    fn what_is_fixed_stays_as_it_was() {
        let old = json!({"scope": "a", "postgresql": {"listen": "*:1", "bin_dir": "/b"}});
        let new =
            json!({"scope": "b", "kubernetes": {"namespace": "x"}, "postgresql": {"listen": "*:2", "pg_hba": ["x"]}});
        let kept = keep_fixed(&old, &new);
        assert_eq!(kept, json!({"scope": "a", "postgresql": {"listen": "*:1", "bin_dir": "/b", "pg_hba": ["x"]}}));
        assert!(report(&old, &old).applied.is_empty());
        assert_eq!(
            keep_fixed(&old, &json!({"postgresql": null})),
            json!({"scope": "a", "postgresql": {"listen": "*:1", "bin_dir": "/b"}})
        );
    }
}
