//! Section `bootstrap`: what a new cluster begins with.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;

/// Options of initdb that are Matriarch's.
const OURS: [&str; 9] =
    ["pgdata", "pwfile", "pwprompt", "username", "auth", "auth-local", "auth-host", "no-instructions", "version"];

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Bootstrap {
    dcs: Value,
    initdb: Value,
    pg_hba: Vec<String>,
}

impl Bootstrap {
    /// `bootstrap.dcs`; the lines of `bootstrap.pg_hba` count where it has none.
    pub fn dynamic(&self) -> Value {
        let mut dcs = if self.dcs.is_null() { Value::Object(Map::new()) } else { self.dcs.clone() };
        if !self.pg_hba.is_empty()
            && let Value::Object(map) = &mut dcs
        {
            let postgresql = map.entry("postgresql").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(postgresql) = postgresql {
                postgresql.entry("pg_hba").or_insert_with(|| self.pg_hba.clone().into());
            }
        }
        dcs
    }

    /// Patroni's list (`data-checksums`, `{encoding: UTF8}`) or mapping as arguments of initdb, without those that are ours.
    pub fn initdb_arguments(&self) -> Result<Vec<String>, Error> {
        let single = |map: &Map<String, Value>| map.clone().into_iter().map(|(name, value)| (name, Some(value)));
        let bad = |item: &Value| {
            let hint = format!("{item} is no option of initdb: write `- data-checksums` or `- encoding: UTF8`");
            Error::value("bootstrap.initdb", hint)
        };
        let mut options: Vec<(String, Option<Value>)> = Vec::new();
        match &self.initdb {
            Value::Null => {}
            Value::Object(map) => options.extend(single(map)),
            Value::Array(list) => {
                for item in list {
                    match item {
                        Value::String(name) => options.push((name.clone(), None)),
                        Value::Object(map) if map.len() == 1 => options.extend(single(map)),
                        _ => return Err(bad(item)),
                    }
                }
            }
            other => return Err(bad(other)),
        }
        options
            .into_iter()
            .map(|(name, value)| {
                argument(&name, value.as_ref()).ok_or_else(|| {
                    if OURS.contains(&name.as_str()) {
                        Error::value("bootstrap.initdb", format!("{name} is set by Matriarch: remove it from the list"))
                    } else {
                        bad(&Value::String(name))
                    }
                })
            })
            .collect()
    }
}

fn argument(name: &str, value: Option<&Value>) -> Option<String> {
    if OURS.contains(&name) {
        return None;
    }
    Some(match value {
        None | Some(Value::Bool(true)) => format!("--{name}"),
        Some(Value::String(text)) => format!("--{name}={text}"),
        Some(Value::Number(number)) => format!("--{name}={number}"),
        Some(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Bootstrap {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn options_of_initdb_are_lists_or_mappings() {
        let list = of(json!({"initdb": ["data-checksums", {"encoding": "UTF8"}, {"wal-segsize": 1}]}));
        assert_eq!(list.initdb_arguments().unwrap(), ["--data-checksums", "--encoding=UTF8", "--wal-segsize=1"]);
        let mapping = of(json!({"initdb": {"locale": "C", "data-checksums": true}}));
        assert_eq!(mapping.initdb_arguments().unwrap(), ["--data-checksums", "--locale=C"]);
        assert!(
            of(json!({"initdb": [{"pwfile": "x"}]})).initdb_arguments().unwrap_err().to_string().contains("remove it")
        );
        assert!(of(json!({"initdb": [[1]]})).initdb_arguments().is_err());
    }

    #[test]
    fn rules_of_the_bootstrap_count_where_the_dynamic_configuration_has_none() {
        let hba = json!(["host all all all md5"]);
        assert_eq!(of(json!({"pg_hba": hba})).dynamic()["postgresql"]["pg_hba"], hba);
        let own = of(json!({"pg_hba": hba, "dcs": {"ttl": 20, "postgresql": {"pg_hba": ["local all all peer"]}}}));
        assert_eq!(own.dynamic()["postgresql"]["pg_hba"], json!(["local all all peer"]));
    }
}
