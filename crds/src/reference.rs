//! `docs/reference.md`: every field of a `PostgresCluster`, from the same schema that the API server checks.

use std::fmt::Write;

use serde_json::Value;

use crate::generated::crd;

/// Fields whose inside is Kubernetes' own.
const KUBERNETES: &[(&str, &str)] = &[
    ("spec.affinity", "affinity-v1-core"),
    ("spec.tolerations[]", "toleration-v1-core"),
    ("spec.topologySpreadConstraints[]", "topologyspreadconstraint-v1-core"),
    ("spec.networkPolicy.from[]", "networkpolicypeer-v1-networking-k8s-io"),
    ("spec.pod.env[]", "envvar-v1-core"),
    ("spec.pod.volumes[]", "volume-v1-core"),
    ("spec.pod.volumeMounts[]", "volumemount-v1-core"),
    ("spec.pod.containers[]", "container-v1-core"),
];

const HEAD: &str = "\
# Every field of a PostgresCluster

Made from the schema by `make generate`; do not edit. The API server refuses what breaks a rule, with the rule's
sentence. `kubectl explain postgrescluster.spec` shows the same.

```yaml
apiVersion: matriarch.dev/v1alpha1
kind: PostgresCluster
metadata: {name: orders}
spec:
  instances: 3
  image: docker.io/library/postgres:17
  storage: {size: 20Gi}
```

Only `image` and `storage.size` must be there; all else has the default that is shown.
";

/// The page.
pub fn reference() -> String {
    let schema = serde_json::to_value(crd()).unwrap_or_default();
    let root = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut page = HEAD.to_owned();
    page.push_str("\n## Rules for the whole object\n\n");
    rules(root, &mut page);
    page.push_str("\n## spec\n\n");
    table(&root["properties"]["spec"], "spec", &mut page);
    page.push_str("\nRules:\n\n");
    rules(&root["properties"]["spec"], &mut page);
    inside(&root["properties"]["spec"], "spec", &mut page);
    page.push_str("\n## status\n\nWhat the operator reports; nobody else writes it.\n\n");
    table(&root["properties"]["status"], "status", &mut page);
    inside(&root["properties"]["status"], "status", &mut page);
    page
}

/// The sections of fields that have fields.
fn inside(schema: &Value, path: &str, page: &mut String) {
    for (name, field) in properties(schema) {
        let (field, path) = match field.get("items") {
            Some(items) => (items, format!("{path}.{name}[]")),
            None => (field, format!("{path}.{name}")),
        };
        if kubernetes(&path).is_some() || field["properties"].as_object().is_none_or(serde_json::Map::is_empty) {
            continue;
        }
        let _ = write!(page, "\n### {path}\n\n"); // writing to a String cannot fail
        table(field, &path, page);
        if field["x-kubernetes-validations"].is_array() {
            page.push_str("\nRules:\n\n");
            rules(field, page);
        }
        inside(field, &path, page);
    }
}

fn table(schema: &Value, path: &str, page: &mut String) {
    page.push_str("| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in properties(schema) {
        let default = match field.get("default") {
            Some(Value::Object(_)) => String::new(),
            Some(value) => format!("`{value}`"),
            None if required.iter().any(|r| r == name.as_str()) => "required".to_owned(),
            None => String::new(),
        };
        let mut meaning = one_line(field["description"].as_str().unwrap_or_default());
        let elements = format!("{path}.{name}[]");
        let link = kubernetes(&format!("{path}.{name}")).or_else(|| kubernetes(&elements));
        if let Some(anchor) = link {
            let _ = write!(
                meaning,
                " [Kubernetes' fields](https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#{anchor})."
            );
        }
        // What has fields has a section of its own, with its rules.
        let section = [field, &field["items"]].into_iter().any(|f| f["properties"].is_object());
        for message in messages(field).chain(messages(&field["items"])).filter(|_| !section) {
            let _ = write!(meaning, "<br>*{}*", one_line(message));
        }
        let _ = writeln!(page, "| `{name}` | {} | {default} | {meaning} |", kind(field));
    }
}

fn rules(schema: &Value, page: &mut String) {
    for message in messages(schema) {
        let _ = writeln!(page, "* {}", one_line(message));
    }
}

fn messages(schema: &Value) -> impl Iterator<Item = &str> {
    schema["x-kubernetes-validations"].as_array().into_iter().flatten().filter_map(|rule| rule["message"].as_str())
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn kubernetes(path: &str) -> Option<&'static str> {
    KUBERNETES.iter().find(|(at, _)| *at == path).map(|(_, anchor)| *anchor)
}

fn kind(field: &Value) -> String {
    if let Some(words) = field["enum"].as_array() {
        let words: Vec<String> =
            words.iter().filter(|w| !w.is_null()).map(|w| format!("`{}`", w.as_str().unwrap_or_default())).collect();
        return words.join(", ");
    }
    if field["x-kubernetes-int-or-string"] == true {
        return "number or string".to_owned();
    }
    match field["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}", kind(&field["items"])),
        "object" => match field.get("additionalProperties") {
            Some(values) => format!("map to {}", kind(values)),
            None => "object".to_owned(),
        },
        "integer" => "number".to_owned(),
        other => other.to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == reference(), "docs/reference.md is stale: run `make generate`");
    }

    #[test]
    fn every_field_says_what_it_is() {
        fn look(schema: &Value, path: &str, silent: &mut Vec<String>) {
            for (name, field) in properties(schema) {
                let (inner, at) = match field.get("items") {
                    Some(items) => (items, format!("{path}.{name}[]")),
                    None => (field, format!("{path}.{name}")),
                };
                if field["description"].as_str().is_none_or(str::is_empty) {
                    silent.push(at.clone());
                }
                if kubernetes(&at).is_none() {
                    look(inner, &at, silent);
                }
            }
        }
        let schema = serde_json::to_value(crd()).unwrap();
        let root = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut silent = Vec::new();
        look(&root["spec"], "spec", &mut silent);
        look(&root["status"], "status", &mut silent);
        assert!(silent.is_empty(), "without a description: {silent:?}");
    }
}
