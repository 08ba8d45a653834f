//! Edits of the dynamic configuration: Patroni's merge, in which a null deletes.

use serde_json::{Map, Value};

/// Merges `patch` into `document`, objects key by key; true if something changed. As Patroni, a value that reads the same in another
/// type is no change, and nulls inside of a value that is new are kept.
pub fn patch(document: &mut Map<String, Value>, patch: &Map<String, Value>) -> bool {
    let mut changed = false;
    for (name, wanted) in patch {
        let is_new = match (document.get_mut(name), wanted) {
            (None, Value::Null) => false,
            (Some(_), Value::Null) => {
                changed |= document.remove(name).is_some_and(|former| !former.is_null());
                false
            }
            (Some(Value::Object(present)), Value::Object(wanted)) => {
                changed |= self::patch(present, wanted);
                false
            }
            (Some(present), wanted) => !same(present, wanted),
            (None, _) => true,
        };
        if is_new {
            document.insert(name.clone(), wanted.clone());
            changed = true;
        }
    }
    changed
}

/// `10` and `"10"` are the same to Patroni, which compares what Python prints.
fn same(one: &Value, other: &Value) -> bool {
    match (printed(one), printed(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn printed(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(if *value { "True" } else { "False" }.to_owned()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Null => Some("None".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn patched(document: &Value, change: &Value) -> (bool, Value) {
        let mut merged = document.as_object().cloned().unwrap_or_default();
        let changed = super::patch(&mut merged, change.as_object().unwrap());
        (changed, Value::Object(merged))
    }

    #[test]
    fn a_merge_is_patronis() {
        let document = json!({"ttl": 30, "pause": true, "gone": null, "slots": {"a": {"type": "physical"}},
            "postgresql": {"parameters": {"max_connections": 100, "work_mem": "4MB"}}});
        for (change, changed, key, value) in [
            (json!({"ttl": 20}), true, "/ttl", json!(20)),
            (json!({"ttl": "30"}), false, "/ttl", json!(30)),
            (json!({"pause": "True"}), false, "/pause", json!(true)),
            (json!({"pause": null}), true, "/pause", Value::Null),
            (json!({"gone": null}), false, "/gone", Value::Null),
            (json!({"never": null}), false, "/never", Value::Null),
            (json!({"new": {"a": null}}), true, "/new", json!({"a": null})),
            (json!({"slots": {"a": null, "b": {}}}), true, "/slots", json!({"b": {}})),
            (json!({"slots": null}), true, "/slots", Value::Null),
            (json!({"slots": [1]}), true, "/slots", json!([1])),
            (json!({"ttl": {"a": 1}}), true, "/ttl", json!({"a": 1})),
            (
                json!({"postgresql": {"parameters": {"work_mem": null, "max_connections": "100"}}}),
                true,
                "/postgresql/parameters",
                json!({"max_connections": 100}),
            ),
        ] {
            let (really, merged) = patched(&document, &change);
            assert_eq!(really, changed, "{change}");
            assert_eq!(merged.pointer(key).cloned().unwrap_or_default(), value, "{change}");
        }
    }
}
