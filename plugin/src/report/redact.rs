//! Takes secrets out of what goes into a report: by the names of keys, and by what text looks like. Pure.

use serde_json::Value;

/// In the place of a secret.
pub const HIDDEN: &str = "(hidden)";
/// A key that ends so has a secret for its value.
const KEYS: [&str; 7] = ["password", "passwd", "passphrase", "token", "secret", "secretkey", "credentials"];
/// In text, a value that follows one of these is a secret.
const WORDS: [&str; 5] = ["password", "passwd", "passphrase", "token", "secret"];
/// Annotations that repeat the whole object.
const REPEATED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A Kubernetes object, or any document.
pub fn document(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("managedFields");
            map.remove(REPEATED);
            // {name: PGPASSWORD, value: …} of a container's environment.
            let named = map.get("name").and_then(Value::as_str).is_some_and(secret_key);
            for (key, value) in map.iter_mut() {
                if (secret_key(key) || (named && key == "value")) && (value.is_string() || value.is_number()) {
                    *value = Value::String(HIDDEN.to_owned());
                } else {
                    document(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(document),
        Value::String(text) => {
            // Annotations carry documents as text.
            match serde_json::from_str::<Value>(text) {
                Ok(mut inner) if inner.is_object() || inner.is_array() => {
                    document(&mut inner);
                    *text = inner.to_string();
                }
                _ => *text = self::text(text),
            }
        }
        _ => {}
    }
}

fn secret_key(key: &str) -> bool {
    let plain: String = key.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    KEYS.iter().any(|end| plain.ends_with(end))
}

/// A log, or any text.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("PRIVATE KEY-----") {
            in_key = line.contains("-----BEGIN") && !line.contains("-----END");
            out.push_str(HIDDEN);
            out.push('\n');
        } else if !in_key {
            out.push_str(&urls(&verifiers(&words(line))));
        }
    }
    out
}

/// `scheme://user:password@host`: the password.
fn urls(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/\"'`".contains(c)).unwrap_or(after.len());
        let (place, tail) = after.split_at(end);
        match place.rsplit_once('@').map(|(login, host)| (login.split_once(':'), host)) {
            Some((Some((user, _)), host)) => out.push_str(&format!("{user}:{HIDDEN}@{host}")),
            _ => out.push_str(place),
        }
        rest = tail;
    }
    out + rest
}

/// What PostgreSQL stores of a password, and bearer tokens.
fn verifiers(line: &str) -> String {
    ["SCRAM-SHA-256$", "Bearer "].iter().fold(line.to_owned(), |line, mark| {
        let mut out = String::new();
        let mut rest = line.as_str();
        while let Some(at) = rest.find(mark) {
            let (before, after) = rest.split_at(at + mark.len());
            out.push_str(before);
            out.push_str(HIDDEN);
            rest = &after[after.find(|c: char| c.is_whitespace() || "\"'`,".contains(c)).unwrap_or(after.len())..];
        }
        out + rest
    })
}

/// `password=x`, `"password": "x"`, `PASSWORD 'x'`: the value. `password authentication failed` has none.
fn words(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut out = String::new();
    let mut done = 0;
    while done < line.len() {
        let next = WORDS.iter().filter_map(|word| lower[done..].find(word).map(|at| done + at + word.len())).min();
        let Some(end) = next else { break };
        let Some((start, stop)) = value_after(line, end) else {
            out.push_str(&line[done..end]);
            done = end;
            continue;
        };
        out.push_str(&line[done..start]);
        out.push_str(HIDDEN);
        done = stop;
    }
    out + &line[done..]
}

/// Where the value of a word that ends at `end` begins and ends.
fn value_after(line: &str, end: usize) -> Option<(usize, usize)> {
    let rest = &line[end..];
    let quotes = ['"', '\'', '\\'];
    let trimmed = rest.trim_start_matches(quotes).trim_start();
    let (separated, value) = match trimmed.strip_prefix(['=', ':']) {
        Some(value) => (true, value.trim_start()),
        None => (false, trimmed),
    };
    let start = line.len() - value.len();
    let open = value.trim_start_matches('\\');
    let Some(quote) = open.chars().next().filter(|c| "\"'".contains(*c)) else {
        let stop = value.find(|c: char| c.is_whitespace() || ",;}&".contains(c)).unwrap_or(value.len());
        return (separated && stop > 0).then_some((start, start + stop));
    };
    let begin = line.len() - open.len() + 1;
    let stop = line[begin..].find(quote).map_or(line.len(), |at| begin + at);
    Some((begin, stop))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_secret_stays_in_text() {
        for line in [
            "conninfo host=h password=hunter2 user=u",
            "ALTER ROLE app PASSWORD 'hunter2'",
            "create role x password\t\"hunter2\";",
            r#"{"password": "hunter2", "user": "u"}"#,
            r#"{\"password\": \"hunter2\"}"#,
            "passfile: x, PGPASSWORD=hunter2",
            "postgres://app:hunter2@h:5432/app?x=1",
            "Authorization: Bearer hunter2",
            "SCRAM-SHA-256$4096:hunter2$hunter2:hunter2 next",
            "client_secret: hunter2",
            "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\nend",
        ] {
            let said = text(line);
            assert!(!said.contains("hunter2") && said.contains(HIDDEN), "{line} became {said}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for line in [
            "FATAL: password authentication failed for user \"app\"\n",
            "password_encryption = scram-sha-256\n",
            "GET https://10.96.0.1:443/api/v1/pods?x=y\n",
            "postgres://orders-0.orders-pods.shop.svc:5432/postgres",
            "ends with password",
        ] {
            assert_eq!(text(line), line);
        }
    }

    #[test]
    fn objects_lose_their_secrets_and_nothing_else() {
        let mut object = json!({
            "metadata": {"managedFields": [], "annotations": {
                REPEATED: "{\"password\":\"hunter2\"}",
                "config": "{\"ttl\":10,\"postgresql\":{\"authentication\":{\"password\":\"hunter2\"}}}",
            }},
            "spec": {"containers": [{"env": [{"name": "PGPASSWORD", "value": "hunter2"}, {"name": "A", "value": "b"}],
                "args": ["--password=hunter2"]}], "volumes": [{"secret": {"secretName": "orders-app"}}]},
        });
        document(&mut object);
        let said = object.to_string();
        assert!(!said.contains("hunter2") && said.contains("orders-app") && said.contains("\\\"ttl\\\":10"), "{said}");
        assert_eq!(object["spec"]["containers"][0]["env"][1]["value"], "b");
        assert!(object["metadata"].get("managedFields").is_none());
    }
}
