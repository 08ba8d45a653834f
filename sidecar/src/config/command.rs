//! Commands and options as the configuration writes them: Patroni's lists, mappings and command lines.

use serde_json::{Map, Value};

/// A command line as words, by the rules of a shell, without a shell.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    match shlex::split(text) {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err("is empty: write a command".to_owned()),
        None => Err(format!("{text:?} has a quote without its end")),
    }
}

/// `--k=v` for every key of a section but the reserved ones.
pub fn parameters(section: &Map<String, Value>, reserved: &[&str]) -> Vec<String> {
    let given = section.iter().filter(|(name, _)| !reserved.contains(&name.as_str()));
    given.filter_map(|(name, value)| Some(format!("--{name}={}", word(value)?))).collect()
}

/// Options as a list (`data-checksums`, `{encoding: UTF8}`) or a mapping, without those that are ours.
pub fn options(value: &Value, ours: &[&str]) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut push = |name: &str, value: Option<String>| -> Result<(), String> {
        if ours.contains(&name) {
            return Err(format!("{name} is set by Matriarch: remove it from the list"));
        }
        all.push(value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}")));
        Ok(())
    };
    let bad = |item: &Value| format!("{item} is no option: write `- data-checksums` or `- encoding: UTF8`");
    match value {
        Value::Null => {}
        Value::Array(list) => {
            for item in list {
                match item {
                    Value::String(name) => push(name, None)?,
                    Value::Object(map) if map.len() == 1 => {
                        for (name, value) in map {
                            push(name, Some(word(value).ok_or_else(|| bad(item))?))?;
                        }
                    }
                    _ => return Err(bad(item)),
                }
            }
        }
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Null | Value::Bool(true) => push(name, None)?,
                    Value::Bool(false) => {}
                    value => push(name, Some(word(value).ok_or_else(|| bad(value))?))?,
                }
            }
        }
        other => return Err(bad(other)),
    }
    Ok(all)
}

/// A scalar as a word of a command line.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn command_lines_are_words() {
        assert_eq!(split("/bin/sh -c 'exit 0'"), Ok(vec!["/bin/sh".into(), "-c".into(), "exit 0".into()]));
        assert!(split("'").is_err() && split(" ").is_err());
    }

    #[test]
    fn options_are_lists_or_mappings() {
        let list = json!(["verbose", {"max-rate": "100M"}, {"n": 3}]);
        assert_eq!(options(&list, &[]).unwrap(), ["--verbose", "--max-rate=100M", "--n=3"]);
        let map = json!({"max-rate": "100M", "verbose": true, "progress": null, "no-verify": false});
        assert_eq!(options(&map, &[]).unwrap(), ["--max-rate=100M", "--progress", "--verbose"]);
        assert!(options(&json!(["pgdata"]), &["pgdata"]).unwrap_err().contains("remove it"));
        assert!(options(&json!([["x"]]), &[]).is_err() && options(&json!(3), &[]).is_err());
    }
}
