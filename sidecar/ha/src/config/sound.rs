//! Values of the configuration that cannot be used: what was in force for the key stays so, and it is said what to write.

use serde_json::{Map, Value};

use super::{boolean, integer, milliseconds, parameters::least, scalar};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Seconds, or a text with a unit.
    Time,
    /// A number of at least this.
    Number(i64),
    /// A truth.
    Flag,
    /// A truth, or `quorum`.
    SyncMode,
    /// A mapping.
    Mapping,
    /// A list of lines.
    Lines,
    /// A list of members' names.
    Members,
    /// A list or a mapping.
    Either,
    /// A text, or a list of texts.
    Names,
}

/// Keys with values that can be wrong. Everything else is kept as it is, as Patroni does.
const KEYS: [(&str, Kind); 44] = [
    ("ttl", Kind::Time),
    ("loop_wait", Kind::Time),
    ("retry_timeout", Kind::Time),
    ("maximum_lag_on_failover", Kind::Number(0)),
    ("maximum_lag_on_syncnode", Kind::Number(-1)),
    ("max_timelines_history", Kind::Number(0)),
    ("primary_start_timeout", Kind::Time),
    ("primary_stop_timeout", Kind::Time),
    ("master_start_timeout", Kind::Time),
    ("master_stop_timeout", Kind::Time),
    ("primary_race_backoff", Kind::Time),
    ("member_slots_ttl", Kind::Time),
    ("synchronous_mode", Kind::SyncMode),
    ("synchronous_mode_strict", Kind::Flag),
    ("synchronous_node_count", Kind::Number(1)),
    ("failsafe_mode", Kind::Flag),
    ("check_timeline", Kind::Flag),
    ("pause", Kind::Flag),
    ("matriarch", Kind::Mapping),
    ("matriarch.fenced", Kind::Members),
    ("standby_cluster", Kind::Mapping),
    ("slots", Kind::Mapping),
    ("permanent_slots", Kind::Mapping),
    ("permanent_replication_slots", Kind::Mapping),
    ("ignore_slots", Kind::Either),
    ("postgresql", Kind::Mapping),
    ("postgresql.use_slots", Kind::Flag),
    ("postgresql.use_pg_rewind", Kind::Flag),
    ("postgresql.remove_data_directory_on_rewind_failure", Kind::Flag),
    ("postgresql.remove_data_directory_on_diverged_timelines", Kind::Flag),
    ("postgresql.pg_ctl_timeout", Kind::Time),
    ("postgresql.parameters", Kind::Mapping),
    ("postgresql.parameters_primary", Kind::Mapping),
    ("postgresql.parameters_replica", Kind::Mapping),
    ("postgresql.parameters_standby_leader", Kind::Mapping),
    ("postgresql.pg_hba", Kind::Lines),
    ("postgresql.pg_hba_primary", Kind::Lines),
    ("postgresql.pg_hba_replica", Kind::Lines),
    ("postgresql.pg_hba_standby_leader", Kind::Lines),
    ("postgresql.pg_ident", Kind::Lines),
    ("postgresql.recovery_conf", Kind::Mapping),
    ("postgresql.callbacks", Kind::Mapping),
    ("postgresql.create_replica_methods", Kind::Names),
    ("postgresql.basebackup", Kind::Either),
];

impl Kind {
    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Time => milliseconds(value).is_some(),
            Self::Number(least) => integer(value).is_some_and(|number| number >= least),
            Self::Flag => boolean(value).is_some(),
            Self::SyncMode => {
                boolean(value).is_some() || value.as_str().is_some_and(|s| s.eq_ignore_ascii_case("quorum"))
            }
            Self::Mapping => value.is_object(),
            Self::Lines | Self::Members => value.as_array().is_some_and(|lines| lines.iter().all(Value::is_string)),
            Self::Either => value.is_object() || value.is_array(),
            Self::Names => {
                value.is_string() || value.as_array().is_some_and(|names| names.iter().all(Value::is_string))
            }
        }
    }

    fn example(self) -> String {
        match self {
            Self::Time => "a number of seconds such as 30, or a text such as \"30s\" or \"5min\"".to_owned(),
            Self::Number(least) => format!("a whole number of at least {least}"),
            Self::Flag => "true or false".to_owned(),
            Self::SyncMode => "true, false or quorum".to_owned(),
            Self::Mapping => "a mapping, such as {name: value}".to_owned(),
            Self::Lines => "a list of lines, such as [\"host all all all scram-sha-256\"]".to_owned(),
            Self::Members => "a list of members' names, such as [\"orders-1\"]".to_owned(),
            Self::Either => "a list or a mapping".to_owned(),
            Self::Names => "a list of names".to_owned(),
        }
    }
}

/// `document` with every value that cannot be used as it is in `former`, where that has one, and a sentence for each of them.
pub fn sound(document: &Value, former: &Value) -> (Value, Vec<String>) {
    let mut sound = document.clone();
    let mut problems = Vec::new();
    for (key, kind) in KEYS {
        let path: Vec<&str> = key.split('.').collect();
        let Some(value) = at(document, &path).filter(|value| !value.is_null()) else { continue };
        if kind.takes(value) {
            continue;
        }
        let last = at(former, &path).filter(|last| kind.takes(last)).cloned();
        problems.push(refused(key, value, &kind.example(), last.as_ref()));
        put(&mut sound, &path, last);
    }
    for section in ["parameters", "parameters_primary", "parameters_replica", "parameters_standby_leader"] {
        let path = ["postgresql", section];
        let Some(Value::Object(all)) = at(document, &path) else { continue };
        for (name, value) in all {
            let Some(example) = wrong_parameter(name, value) else { continue };
            let last =
                at(former, &[path[0], path[1], name]).filter(|last| wrong_parameter(name, last).is_none()).cloned();
            problems.push(refused(&format!("postgresql.{section}.{name}"), value, &example, last.as_ref()));
            put(&mut sound, &[path[0], path[1], name], last);
        }
    }
    (sound, problems)
}

fn refused(key: &str, value: &Value, example: &str, last: Option<&Value>) -> String {
    let stays = last.map_or_else(|| "the default is used".to_owned(), |last| format!("{last} stays in force"));
    format!("{key}: {value} cannot be used: write {example}; {stays}")
}

/// What to write instead; none: it is fine.
fn wrong_parameter(name: &str, value: &Value) -> Option<String> {
    if value.is_null() {
        return None; // taken away
    }
    let Some(text) = scalar(value) else { return Some("one text or number".to_owned()) };
    let least = least(name)?;
    let number: Option<i64> = text.trim().parse().ok();
    number.is_none_or(|number| number < least).then(|| format!("a whole number of at least {least}"))
}

fn at<'a>(document: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, name| value.get(name))
}

fn put(document: &mut Value, path: &[&str], value: Option<Value>) {
    let (Some((first, rest)), Value::Object(map)) = (path.split_first(), document) else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => {
            map.insert((*first).to_owned(), value);
        }
        (true, None) => {
            map.remove(*first);
        }
        (false, value) => put(map.entry(*first).or_insert_with(|| Value::Object(Map::new())), rest, value),
    }
}

/// What is used otherwise than it is written, or than Patroni would: for the log.
pub fn notes(document: &Value) -> Vec<String> {
    let ms = |key: &str| document.get(key).and_then(milliseconds);
    let mut notes = Vec::new();
    for (key, least) in [("ttl", 20_000), ("loop_wait", 1_000), ("retry_timeout", 3_000)] {
        if let Some(written) = ms(key).filter(|written| *written < least) {
            notes.push(format!(
                "{key} of {} s is below Patroni's minimum of {} s: members that run Patroni use that",
                seconds(written),
                least / 1000
            ));
        }
    }
    let used = super::Dynamic::parse(document);
    for (key, used) in
        [("ttl", used.ttl_ms), ("loop_wait", used.loop_wait_ms), ("retry_timeout", used.retry_timeout_ms)]
    {
        if let Some(written) = ms(key).filter(|written| *written != used) {
            notes.push(format!(
                "{key} of {} s does not go with the other times (ttl at least 5 s, loop_wait between 0.5 s and a third of it, \
                 retry_timeout between 1 s and half of it): {} s is used",
                seconds(written),
                seconds(used)
            ));
        }
    }
    notes
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { (ms / 1000).to_string() } else { format!("{}.{:03}", ms / 1000, ms % 1000) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Dynamic;

    #[test]
    fn a_bad_value_keeps_the_last_good_one_and_is_told() {
        let former = json!({"ttl": 20, "pause": true, "postgresql": {"pg_hba": ["local all all peer"], "parameters": {"max_connections": 200}}});
        let document = json!({"ttl": "soon", "loop_wait": "2s", "pause": "perhaps", "synchronous_mode": [], "unknown": [1],
            "postgresql": {"pg_hba": "host", "parameters": {"max_connections": 3, "work_mem": {"a": 1}, "wal_level": "logical"}}});
        let (sound, problems) = sound(&document, &former);
        assert_eq!(
            sound,
            json!({"ttl": 20, "loop_wait": "2s", "pause": true, "unknown": [1],
                "postgresql": {"pg_hba": ["local all all peer"], "parameters": {"max_connections": 200, "wal_level": "logical"}}})
        );
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert_eq!(
            problems[0],
            "ttl: \"soon\" cannot be used: write a number of seconds such as 30, or a text such as \"30s\" or \"5min\"; 20 stays in force"
        );
        assert!(problems.iter().any(|p| p.starts_with("postgresql.parameters.max_connections: 3 cannot be used")));
        assert!(problems.iter().any(|p| p.ends_with("the default is used")));
        let dynamic = Dynamic::parse(&sound);
        assert!(dynamic.pause && dynamic.ttl_ms == 20_000 && dynamic.loop_wait_ms == 2_000);
    }

    #[test]
    fn a_section_that_is_none_stays_as_it_was() {
        let former = json!({"postgresql": {"parameters": {"work_mem": "1MB"}}, "slots": {"a": {}}});
        let (kept, problems) = sound(&json!({"postgresql": 3, "slots": "b"}), &former);
        assert_eq!((kept, problems.len()), (former.clone(), 2));
        // What is absent, or taken away, is no mistake.
        assert_eq!(sound(&json!({"slots": null}), &former), (json!({"slots": null}), Vec::new()));
    }

    #[test]
    fn times_below_patronis_are_never_silent() {
        let notes = notes(&json!({"ttl": 10, "loop_wait": 8, "retry_timeout": 3}));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("ttl of 10 s is below Patroni's minimum of 20 s"));
        assert!(
            notes[1].starts_with("loop_wait of 8 s does not go") && notes[1].ends_with("3.333 s is used"),
            "{notes:?}"
        );
        assert!(super::notes(&json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10})).is_empty());
    }
}
