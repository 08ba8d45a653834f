//! Where the configuration is written: a file, a folder of files, `PATRONI_CONFIGURATION`; merged with `PATRONI_*` variables.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Error, environment};

/// The whole document. Without a path it comes from `PATRONI_CONFIGURATION` alone, or from the other variables.
pub fn read(path: Option<&Path>) -> Result<Value, Error> {
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let Some(path) = path else {
        if let Some((name, text)) = env.iter().find(|(name, text)| name == "PATRONI_CONFIGURATION" && !text.is_empty())
        {
            return parse(Path::new(name), text);
        }
        let document = with_environment(Value::Object(Map::new()), env)?;
        return non_empty(document, "no file and no PATRONI_* variable");
    };
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut document = Value::Object(Map::new());
    for file in files(path).map_err(failed)? {
        let text = std::fs::read_to_string(&file).map_err(|source| Error::Read { path: file.clone(), source })?;
        merge(&mut document, parse(&file, &text)?);
    }
    non_empty(with_environment(document, env)?, &path.display().to_string())
}

/// One file, or all `*.yml` and `*.yaml` of a folder by name.
pub(super) fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// YAML as a value; its top is a mapping.
pub fn parse(path: &Path, text: &str) -> Result<Value, Error> {
    let bad = |message: String| Error::Parse { path: path.to_owned(), message };
    match super::value::yaml(text).map_err(|error| bad(error.to_string()))? {
        Value::Null => Ok(Value::Object(Map::new())),
        document @ Value::Object(_) => Ok(document),
        _ => Err(bad("it must be a mapping, such as `scope: orders`".to_owned())),
    }
}

/// `document` with what the environment says, which wins.
pub fn with_environment(mut document: Value, env: impl IntoIterator<Item = (String, String)>) -> Result<Value, Error> {
    merge(&mut document, environment::document(env)?);
    Ok(document)
}

fn non_empty(document: Value, place: &str) -> Result<Value, Error> {
    match &document {
        Value::Object(map) if map.is_empty() => Err(Error::Empty { place: place.to_owned() }),
        _ => Ok(document),
    }
}

/// Mappings are merged, null deletes, everything else replaces.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                if value.is_null() {
                    into.remove(&name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_is_merged_by_name_and_null_deletes() {
        let dir = std::env::temp_dir().join(format!("matriarch-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("b.yaml"), "scope: b\nrestapi: {listen: null}\ntags: {x: 1}").unwrap();
        std::fs::write(dir.join("a.yml"), "scope: a\nname: n\nrestapi: {listen: '1:1', certfile: c}").unwrap();
        std::fs::write(dir.join("c.txt"), "scope: c").unwrap();
        let document = read(Some(&dir)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(document["scope"], "b");
        assert_eq!(document["name"], "n");
        assert_eq!(document["restapi"], json!({"certfile": "c"}));
        assert_eq!(document["tags"]["x"], 1);
    }

    #[test]
    fn what_is_no_mapping_is_said_so() {
        assert!(parse(Path::new("p.yml"), "- a").unwrap_err().to_string().contains("mapping"));
        assert!(parse(Path::new("p.yml"), "a: [").unwrap_err().to_string().contains("p.yml"));
        assert_eq!(parse(Path::new("p.yml"), "# nothing").unwrap(), json!({}));
        assert!(read(Some(Path::new("/nonexistent.yml"))).is_err());
    }
}
