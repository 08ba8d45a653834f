//! `kubectl matriarch version`: of this program, of Kubernetes, and of each member's agent and PostgreSQL.

use std::time::Duration;

use serde_json::{Value, json};

use crate::access::Session;
use crate::completion;
use crate::error::Error;
use crate::output::{Data, say};
use crate::store::Store;
use crate::table;

/// For an answer of the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of what.
#[derive(clap::Args)]
pub struct Args {
    /// The members of this cluster as well.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// Only of this program: nothing is asked of anybody.
    #[arg(long)]
    client: bool,
    /// For programs.
    #[arg(short, long, value_enum)]
    output: Option<Data>,
}

/// Shows them.
pub async fn run(session: Result<Session, Error>, args: &Args) -> Result<(), Error> {
    let mut document = json!({"client": env!("CARGO_PKG_VERSION")});
    if !args.client {
        let session = session?;
        document["kubernetes"] = match tokio::time::timeout(PATIENCE, session.client.apiserver_version()).await {
            Ok(Ok(info)) => json!(info.git_version),
            Ok(Err(error)) if args.cluster.is_none() => json!(format!("not known: {error}")),
            Ok(Err(error)) => return Err(Error::call("get", "/version", "the API server")(error)),
            Err(_) => return Err(Error::Agent("the API server does not answer".to_owned())),
        };
        if let Some(name) = &args.cluster {
            document["cluster"] = json!(name);
            document["members"] = Value::Array(members(&session, name).await?);
        }
    }
    match args.output {
        Some(data) => say(&data.print(&document)?),
        None => say(&screen(&document)),
    }
}

async fn members(session: &Session, cluster: &str) -> Result<Vec<Value>, Error> {
    let store = Store::open(session, Some(cluster)).await?;
    let seen = store.stored().await?;
    Ok(seen.members.iter().map(|m| json!({"name": m.name, "agent": m.agent, "postgresql": m.version})).collect())
}

/// For people.
pub fn screen(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!("kubectl matriarch {}", text(&document["client"]))];
    if let Some(kubernetes) = document["kubernetes"].as_str() {
        lines.push(format!("Kubernetes {kubernetes}"));
    }
    if let Some(members) = document["members"].as_array() {
        let rows: Vec<Vec<String>> =
            members.iter().map(|m| ["name", "agent", "postgresql"].map(|key| text(&m[key])).to_vec()).collect();
        lines.push(table::draw("", &["Member", "Agent", "PostgreSQL"], &[], &rows));
    }
    lines.join("\n")
}
