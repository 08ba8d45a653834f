//! The declared roles and databases, as the leader's agent reads them: a Secret, for it holds passwords.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{diff, metadata};
use crate::kinds::Kind;
use crate::observe::{Seen, entry};

/// A password that the spec names and that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The role.
    pub role: String,
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

/// Roles and databases with passwords, and which passwords are missing.
pub fn state(seen: &Seen) -> (Value, Vec<Lacking>) {
    let spec = &seen.cluster.spec;
    let mut lacking = Vec::new();
    let mut versions = Vec::new();
    let mut roles = Vec::new();
    for role in &spec.roles {
        let mut value = json!(role);
        if let Some(object) = value.as_object_mut() {
            object.remove("passwordSecret");
        }
        if let Some(wanted) = &role.password_secret {
            let secret = seen.named_secrets.get(&wanted.name).and_then(Option::as_ref);
            match secret.and_then(|s| entry(s, &wanted.key)) {
                Some(password) => value["password"] = json!(password),
                None => lacking.push(Lacking {
                    role: role.name.clone(),
                    secret: wanted.name.clone(),
                    key: wanted.key.clone(),
                }),
            }
            versions.push(json!([wanted.name, secret.map(|s| s["metadata"]["resourceVersion"].clone())]));
        }
        roles.push(value);
    }
    // The agents repeat the generation where more people may read: it says which Secrets, not what is in them.
    let generation = diff::hash(&json!([spec.roles, spec.databases, versions]));
    (json!({"generation": generation, "roles": roles, "databases": spec.databases}), lacking)
}

/// The Secret; none as long as nothing was ever declared.
pub fn object(seen: &Seen) -> Option<Value> {
    let spec = &seen.cluster.spec;
    let name = seen.names().declared_secret();
    if spec.roles.is_empty() && spec.databases.is_empty() && seen.object(Kind::Secret, &name).is_none() {
        return None;
    }
    let text = state(seen).0.to_string();
    Some(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(seen, &name),
        "type": "Opaque",
        "data": {"declared.json": ByteString(text.into_bytes())},
    }))
}
