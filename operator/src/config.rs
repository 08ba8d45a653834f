//! The dynamic configuration (Patroni's): what it is at first, and what of it the spec names later.
//!
//! It lives in the annotation `config` of the `-config` object. `patronictl edit-config` may set what the spec does
//! not name; on a clash the spec wins.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use matriarch_crds::cluster::{DEFAULT_LOOP_WAIT, DEFAULT_MAXIMUM_LAG, DEFAULT_RETRY_TIMEOUT, DEFAULT_TTL};
use matriarch_crds::{Durability, PostgresClusterSpec};
use serde_json::{Map, Value, json};

use crate::observe::Seen;

/// On the `-config` object: names of the settings that the spec named last (JSON list), so that one that is removed
/// from the spec leaves the configuration too.
pub const NAMED_ANNOTATION: &str = "matriarch.dev/named-by-spec";
/// On the `-config` object: when the operator changed `postgresql.parameters` last.
pub const CHANGED_ANNOTATION: &str = "matriarch.dev/parameters-changed";
/// On the `-config` object: which of them it has ever changed (JSON list). Others are not its business.
pub const CHANGED_NAMES_ANNOTATION: &str = "matriarch.dev/changed-parameters";

/// In [`NAMED_ANNOTATION`], for `spec.postgresql.pgHba`.
const PG_HBA: &str = "pg_hba";
/// In [`NAMED_ANNOTATION`], for `spec.postgresql.pgIdent`.
const PG_IDENT: &str = "pg_ident";
/// In [`NAMED_ANNOTATION`], for `spec.standbyOf`: it is removed, and the cluster promoted, only if the spec named it.
const STANDBY: &str = "standby_cluster";
/// Matriarch's own section, which Patroni ignores.
const OWN: &str = "matriarch";

/// Durability that holds: the spec's, else what was computed at creation (status, or the stored configuration if the
/// status was lost), else quorum from three instances on.
pub fn durability(seen: &Seen) -> Durability {
    let spec = &seen.cluster.spec;
    let status = seen.cluster.status.as_ref().and_then(|s| s.durability);
    spec.durability.or(status).unwrap_or_else(|| {
        let quorum = match current(seen).map(|(c, _)| c["synchronous_mode"].clone()) {
            Some(mode) => mode == "quorum" || mode == true,
            None => spec.instances >= 3,
        };
        if quorum { Durability::Quorum } else { Durability::Async }
    })
}

fn synchronous_mode(durability: Durability) -> Value {
    match durability {
        Durability::Quorum => json!("quorum"),
        Durability::Async => json!(false),
    }
}

fn parameters(spec: &PostgresClusterSpec) -> Map<String, Value> {
    spec.postgresql
        .parameters
        .iter()
        .map(|(name, value)| {
            let value = match value {
                IntOrString::Int(number) => json!(number),
                IntOrString::String(text) => json!(text),
            };
            (name.clone(), value)
        })
        .collect()
}

/// The configuration of a cluster that is created (`bootstrap.dcs`): the defaults, and what the spec says.
pub fn initial(spec: &PostgresClusterSpec, durability: Durability) -> Value {
    let defaults = [
        ("ttl", json!(DEFAULT_TTL)),
        ("loop_wait", json!(DEFAULT_LOOP_WAIT)),
        ("retry_timeout", json!(DEFAULT_RETRY_TIMEOUT)),
        ("maximum_lag_on_failover", json!(DEFAULT_MAXIMUM_LAG)),
        ("failsafe_mode", json!(true)),
        ("synchronous_node_count", json!(1)),
        ("postgresql", json!({"use_pg_rewind": true, "use_slots": true})),
    ];
    let mut config = defaults.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    put(&mut config, spec, durability, &BTreeSet::new());
    Value::Object(config)
}

/// Puts into a configuration what the spec says, and takes out what it no longer says of what it named before. All else
/// stays.
fn put(config: &mut Map<String, Value>, spec: &PostgresClusterSpec, durability: Durability, before: &BTreeSet<String>) {
    let ha = &spec.ha;
    let said = [
        ("ttl", ha.ttl.map(Value::from)),
        ("loop_wait", ha.loop_wait.map(Value::from)),
        ("retry_timeout", ha.retry_timeout.map(Value::from)),
        ("maximum_lag_on_failover", ha.maximum_lag_on_failover.map(Value::from)),
        ("failsafe_mode", ha.failsafe_mode.map(Value::from)),
        ("synchronous_mode", Some(synchronous_mode(durability))),
        ("pause", spec.paused.filter(|paused| *paused).map(Value::from)),
    ];
    config.extend(said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    if spec.paused == Some(false) {
        config.remove("pause");
    }
    match standby_cluster(spec) {
        // Keys that the spec does not have (recovery_min_apply_delay …) stay.
        Some(wanted) => {
            let section = section(config, STANDBY);
            if !wanted.contains_key("primary_slot_name") && before.contains(STANDBY) {
                section.remove("primary_slot_name");
            }
            section.extend(wanted);
        }
        None if before.contains(STANDBY) => drop(config.remove(STANDBY)),
        None => {}
    }
    fence(config, &spec.fenced);
    let postgresql = section(config, "postgresql");
    for gone in before.difference(&named(spec)).filter(|gone| *gone != STANDBY) {
        match gone.strip_prefix("parameters.") {
            Some(parameter) => drop(section(postgresql, "parameters").remove(parameter)),
            None => drop(postgresql.remove(gone)),
        }
    }
    section(postgresql, "parameters").extend(parameters(spec));
    for (key, lines) in [(PG_HBA, &spec.postgresql.pg_hba), (PG_IDENT, &spec.postgresql.pg_ident)] {
        if !lines.is_empty() {
            postgresql.insert(key.to_owned(), json!(lines));
        }
    }
}

/// A section, made where a configuration that somebody else wrote lacks it or has something else in its place.
fn section<'a>(config: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let section = config.entry(name).or_insert(Value::Null);
    if !section.is_object() {
        *section = json!({});
    }
    section.as_object_mut().unwrap_or_else(|| unreachable!("it is an object by now"))
}

/// `spec.standbyOf` in Patroni's words.
fn standby_cluster(spec: &PostgresClusterSpec) -> Option<Map<String, Value>> {
    let of = spec.standby_of.as_ref()?;
    let slot = of.primary_slot_name.as_ref().map(|slot| ("primary_slot_name", json!(slot)));
    let all = [("host", json!(of.host)), ("port", json!(of.port))].into_iter().chain(slot);
    Some(all.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The stored configuration and the resourceVersion of its object, if there is a valid one.
pub fn current(seen: &Seen) -> Option<(Value, String)> {
    let name = seen.names().config();
    let config = serde_json::from_str::<Value>(seen.lock_annotation(&name, "config")?).ok()?;
    let object = seen.object(seen.lock_kind(), &name)?;
    config.is_object().then(|| (config, object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()))
}

/// Names that the spec gives, for [`NAMED_ANNOTATION`].
pub fn named(spec: &PostgresClusterSpec) -> BTreeSet<String> {
    let hba = (!spec.postgresql.pg_hba.is_empty()).then(|| PG_HBA.to_owned());
    let ident = (!spec.postgresql.pg_ident.is_empty()).then(|| PG_IDENT.to_owned());
    let standby = spec.standby_of.as_ref().map(|_| STANDBY.to_owned());
    spec.postgresql
        .parameters
        .keys()
        .map(|p| format!("parameters.{p}"))
        .chain(hba)
        .chain(ident)
        .chain(standby)
        .collect()
}

/// What changes of the stored configuration, so that it says what the spec says.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The whole new configuration.
    pub config: Value,
    /// What the spec names now.
    pub named: BTreeSet<String>,
    /// Those of `postgresql.parameters` that are among the changes.
    pub parameters: BTreeSet<String>,
    /// resourceVersion that was read: the write is a compare-and-swap.
    pub resource_version: String,
}

/// The change that is needed, if any.
pub fn change(seen: &Seen) -> Option<Change> {
    let spec = &seen.cluster.spec;
    let (old, resource_version) = current(seen)?;
    let named_now = named(spec);
    let named_before: BTreeSet<String> = seen
        .lock_annotation(&seen.names().config(), NAMED_ANNOTATION)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let mut new = old.as_object()?.clone();
    put(&mut new, spec, durability(seen), &named_before);
    let config = Value::Object(new);
    let [before, now] = [&old, &config].map(|config| config["postgresql"]["parameters"].as_object());
    let value = |of: Option<&Map<String, Value>>, name: &String| of.and_then(|of| of.get(name)).cloned();
    let names = before.into_iter().chain(now).flat_map(Map::keys);
    let parameters =
        names.filter(|name| value(before, name) != value(now, name)).map(|name| name.to_ascii_lowercase()).collect();
    (config != old || named_now != named_before).then_some(Change {
        config,
        named: named_now,
        parameters,
        resource_version,
    })
}

/// `spec.fenced` is the whole truth: who is not in it is not fenced.
fn fence(config: &mut Map<String, Value>, fenced: &[String]) {
    if !fenced.is_empty() {
        section(config, OWN).insert("fenced".to_owned(), json!(fenced));
    } else if let Some(own) = config.get_mut(OWN).and_then(Value::as_object_mut) {
        own.remove("fenced");
        if own.is_empty() {
            config.remove(OWN);
        }
    }
}

/// When the operator changed `postgresql.parameters` last.
pub fn parameters_changed(seen: &Seen) -> Option<Timestamp> {
    change_id(seen)?.parse().ok()
}

/// The same as it is written: it names the change.
pub fn change_id(seen: &Seen) -> Option<&str> {
    seen.lock_annotation(&seen.names().config(), CHANGED_ANNOTATION)
}

/// Which parameters the operator has ever changed; None: nobody noted that, it may be any.
pub fn changed_names(seen: &Seen) -> Option<BTreeSet<String>> {
    match seen.lock_annotation(&seen.names().config(), CHANGED_NAMES_ANNOTATION) {
        Some(text) => serde_json::from_str(text).ok(),
        None => change_id(seen).is_none().then(BTreeSet::new),
    }
}
