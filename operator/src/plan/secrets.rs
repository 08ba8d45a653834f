//! Credentials: generated once, never overwritten, and kept as long as the volumes whose passwords they are.

use matriarch_crds::names::POSTGRES_PORT;
use serde_json::{Value, json};

use super::{Write, kept_metadata};
use crate::kinds::Kind;
use crate::observe::Seen;

/// Says on a Secret why it outlives its cluster.
const KEPT_ANNOTATION: &str = "matriarch.dev/kept";

/// The Secrets that are missing and that the user does not provide.
pub fn plan(seen: &Seen) -> Vec<Write> {
    let names = seen.names();
    let users = [("superuser", "postgres"), ("replication", "replicator"), ("rewind", "rewinder")];
    let application = seen.cluster.spec.application.owner.as_str();
    users
        .into_iter()
        .chain([("app", application)])
        .zip(&seen.passwords)
        .filter(|((user, _), _)| {
            !seen.cluster.spec.secrets.by_user().iter().any(|(u, name)| u == user && name.is_some())
        })
        .map(|((user, username), password)| (names.secret(user), user, username, password))
        .filter(|(name, ..)| seen.object(Kind::Secret, name).is_none())
        .map(|(name, user, username, password)| {
            let mut data = json!({"username": username, "password": password});
            if user == "app" {
                connection(seen, username, password, &mut data);
            }
            let mut metadata = kept_metadata(seen, &name);
            metadata["annotations"] =
                json!({(KEPT_ANNOTATION): "holds a password of the data volumes: delete it together with them"});
            let object = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": metadata,
                "type": "kubernetes.io/basic-auth",
                "stringData": data,
            });
            Write::Create { kind: Kind::Secret, object }
        })
        .collect()
}

/// All that an application needs, ready made. Names and passwords are of characters that need no escaping in a URI.
fn connection(seen: &Seen, username: &str, password: &str, data: &mut Value) {
    let dbname = &seen.cluster.spec.application.database;
    let host = format!("{}.{}.svc", seen.names().service(), seen.namespace());
    data["dbname"] = json!(dbname);
    data["host"] = json!(host);
    data["port"] = json!(POSTGRES_PORT.to_string());
    data["uri"] = json!(format!("postgresql://{username}:{password}@{host}:{POSTGRES_PORT}/{dbname}"));
    data["jdbc-uri"] =
        json!(format!("jdbc:postgresql://{host}:{POSTGRES_PORT}/{dbname}?user={username}&password={password}"));
}
