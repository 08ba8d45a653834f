//! What `declared.json` says. One object that cannot be read does not keep the others from being made.

use std::collections::BTreeMap;

use matriarch_crds::cluster::{Database, Role};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The whole file.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Which version of it this is, in its writer's words.
    pub generation: String,
    /// Roles.
    pub roles: Vec<DesiredRole>,
    /// Databases.
    pub databases: Vec<Database>,
    /// What of it cannot be read: object to reason.
    pub unreadable: BTreeMap<String, String>,
}

/// A role with its password; none: the password is left as it is.
#[derive(Debug, Clone, Deserialize)]
pub struct DesiredRole {
    /// As in the `PostgresCluster`.
    #[serde(flatten)]
    pub role: Role,
    /// In plain text.
    #[serde(default)]
    pub password: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    generation: String,
    #[serde(default)]
    roles: Vec<Value>,
    #[serde(default)]
    databases: Vec<Value>,
}

impl Desired {
    /// From the file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut unreadable = BTreeMap::new();
        let roles = each("role", file.roles, &mut unreadable);
        let databases = each("database", file.databases, &mut unreadable);
        Ok(Self { generation: file.generation, roles, databases, unreadable })
    }
}

fn each<T: DeserializeOwned>(kind: &str, all: Vec<Value>, unreadable: &mut BTreeMap<String, String>) -> Vec<T> {
    let mut read = Vec::new();
    for one in all {
        let name = one.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
        match serde_json::from_value(one) {
            Ok(one) => read.push(one),
            // The message names the field, and never its value.
            Err(error) => drop(unreadable.insert(format!("{kind}/{name}"), format!("it cannot be read: {error}"))),
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_and_left_out() {
        let desired = Desired::parse(
            r#"{"generation": "g", "roles": [{"name": "a", "login": true, "inRoles": ["b"], "password": "x"}, {"name": "c", "login": 5}],
                "databases": [{"name": "d", "extensions": [{"name": "e", "version": "1"}]}]}"#,
        )
        .unwrap();
        assert_eq!((desired.roles.len(), desired.databases.len()), (1, 1));
        assert_eq!(desired.roles[0].password.as_deref(), Some("x"));
        assert!(desired.roles[0].role.login && desired.roles[0].role.inherit);
        assert!(desired.unreadable["role/c"].contains("cannot be read"), "{:?}", desired.unreadable);
        assert!(Desired::parse("[").is_err());
    }
}
