//! Credentials: generated once, passwords never overwritten, and kept as long as the volumes whose passwords they are.
//! What an application connects with is derived from its user's name and password, and follows a change of them.

use std::collections::BTreeMap;

use matriarch_crds::names::POSTGRES_PORT;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Write, kept_metadata};
use crate::kinds::Kind;
use crate::observe::{Seen, entry};

/// Says on a Secret why it outlives its cluster.
const KEPT_ANNOTATION: &str = "matriarch.dev/kept";
/// What may stand in a URI as it is.
const URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The Secrets that are missing and that the user does not provide, and the application's derived keys.
pub fn plan(seen: &Seen) -> Vec<Write> {
    let names = seen.names();
    let users = [("superuser", "postgres"), ("replication", "replicator"), ("rewind", "rewinder")];
    let application = seen.cluster.spec.application.owner.as_str();
    let own = |user: &str| seen.cluster.spec.secrets.by_user().iter().any(|(u, name)| *u == user && name.is_some());
    let mut writes: Vec<Write> = users
        .into_iter()
        .chain([("app", application)])
        .zip(&seen.passwords)
        .filter(|((user, _), _)| !own(user))
        .map(|((user, username), password)| (names.secret(user), user, username, password))
        .filter(|(name, ..)| seen.object(Kind::Secret, name).is_none())
        .map(|(name, user, username, password)| {
            let mut data = json!({"username": username, "password": password});
            if user == "app" {
                data = json!(connection(seen, username, password));
            }
            create(seen, &name, &data)
        })
        .collect();
    writes.extend(derived(seen));
    writes
}

fn create(seen: &Seen, name: &str, data: &Value) -> Write {
    let mut metadata = kept_metadata(seen, name);
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
}

/// `<name>-app` with what its own user and password make of it, or those of the Secret that the spec names instead.
fn derived(seen: &Seen) -> Option<Write> {
    let name = seen.names().secret("app");
    let live = seen.object(Kind::Secret, &name);
    let own = seen.cluster.spec.secrets.application.as_ref();
    let source = match own {
        Some(own) if *own == name => return None, // it is the user's, as it is
        Some(own) => seen.named_secrets.get(own)?.as_ref()?,
        None => live?,
    };
    let wanted = connection(seen, &entry(source, "username")?, &entry(source, "password")?);
    let Some(live) = live else { return Some(create(seen, &name, &json!(wanted))) };
    let changed: BTreeMap<_, _> =
        wanted.into_iter().filter(|(key, value)| entry(live, key).as_ref() != Some(value)).collect();
    (!changed.is_empty()).then(|| Write::Patch {
        kind: Kind::Secret,
        name,
        body: json!({
            "metadata": {"resourceVersion": live["metadata"]["resourceVersion"]},
            "stringData": changed,
        }),
    })
}

/// All that an application needs, ready made: keys of the service binding specification, a libpq URI, one for JDBC, and
/// a line for `~/.pgpass`, and one of `PgBouncer`'s `auth_file`.
fn connection(seen: &Seen, username: &str, password: &str) -> BTreeMap<&'static str, String> {
    let database = &seen.cluster.spec.application.database;
    let host = format!("{}.{}.svc", seen.names().service(), seen.namespace());
    let uri = |text: &str| utf8_percent_encode(text, URI).to_string();
    let (user, secret) = (uri(username), uri(password));
    let pgpass = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    BTreeMap::from([
        ("type", "postgresql".to_owned()),
        ("provider", "matriarch".to_owned()),
        ("username", username.to_owned()),
        ("password", password.to_owned()),
        ("host", host.clone()),
        ("port", POSTGRES_PORT.to_string()),
        ("database", database.clone()),
        ("dbname", database.clone()),
        ("uri", format!("postgresql://{user}:{secret}@{host}:{POSTGRES_PORT}/{database}")),
        ("jdbc-uri", format!("jdbc:postgresql://{host}:{POSTGRES_PORT}/{database}?user={user}&password={secret}")),
        ("pgpass", format!("{host}:{POSTGRES_PORT}:{database}:{}:{}\n", pgpass(username), pgpass(password))),
        ("userlist.txt", format!("{} {}\n", quoted(username), quoted(password))),
    ])
}
