//! Whether a live object already has everything that we would apply.

use serde_json::Value;

/// Whether `live` has every field of `wanted` with its value. Lists must have the same length; quantities are
/// compared as numbers, for the API server rewrites them (`1000m` to `1`); empty and absent are the same.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| contains(live.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| contains(l, w))
        }
        (Value::Null, wanted) => is_empty(wanted),
        (live, wanted) => live == wanted || quantity(live).is_some_and(|q| Some(q) == quantity(wanted)),
    }
}

/// Whether a value says nothing: null, an empty list, an object of which no field says anything.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

/// A quantity in thousandths (Kubernetes' own smallest unit that we meet), if it is one.
pub fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.len() > 3 {
        return None;
    }
    let thousandths = whole.parse::<i128>().ok()? * 1000 + format!("{fraction:0<3}").parse::<i128>().ok()?;
    let (up, down): (i128, i128) = match suffix {
        "" => (1, 1),
        "m" => (1, 1000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        _ => return None,
    };
    Some(thousandths.checked_mul(up)? / down)
}

/// FNV-1a of the JSON: stable across releases and platforms, and nothing depends on it being hard to forge.
pub fn hash(value: &Value) -> String {
    let hash = value
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_live_object_contains_what_the_api_server_rewrote() {
        let wanted = json!({"cpu": "1000m", "size": "1Gi", "empty": {}, "none": null, "list": [{"a": 1}]});
        let live = json!({"cpu": "1", "size": "1024Mi", "list": [{"a": 1, "default": true}], "more": 1});
        assert!(contains(&live, &wanted));
    }

    #[test]
    fn what_says_nothing_is_empty() {
        for empty in [json!(null), json!([]), json!({}), json!({"a": {"b": []}, "c": null})] {
            assert!(is_empty(&empty) && contains(&json!(null), &empty), "{empty}");
        }
        for said in [json!(0), json!(""), json!(false), json!([null]), json!({"a": {"b": ""}})] {
            assert!(!is_empty(&said) && !contains(&json!(null), &said), "{said}");
        }
    }

    #[test]
    fn it_does_not_contain_another_value_or_a_shorter_list() {
        for (live, wanted) in [
            (json!({"a": 1}), json!({"a": 2})),
            (json!({"a": [1]}), json!({"a": [1, 2]})),
            (json!({"a": [1, 2]}), json!({"a": [1]})),
            (json!({}), json!({"a": ""})),
            (json!({"a": "1Gi"}), json!({"a": "2Gi"})),
        ] {
            assert!(!contains(&live, &wanted), "{live} {wanted}");
        }
    }
}
