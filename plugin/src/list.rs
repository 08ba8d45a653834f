//! `kubectl matriarch list`.

use clap::ValueEnum;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use matriarch_crds::PostgresCluster;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::table;
use crate::view::{Cluster, Member, Store};

/// What to show and how.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster; all clusters of the namespace when absent.
    cluster: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Pretty)]
    output: Output,
}

/// How it is printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum Output {
    /// A table.
    Pretty,
    /// One list of rows.
    Json,
    /// The same in YAML.
    Yaml,
    /// Columns with tabs between.
    Tsv,
}

const COLUMNS: [&str; 7] = ["Cluster", "Member", "Host", "Role", "State", "TL", "Lag in MB"];
const RIGHT: [&str; 2] = ["TL", "Lag in MB"];

/// Shows them.
pub async fn run(client: &Client, namespace: &str, args: &Args) -> Result<(), Error> {
    let mut clusters = Vec::new();
    for (namespace, name) in named(client, namespace, args).await? {
        clusters.push(Store::open(client, &namespace, &name).await?.view().await?);
    }
    println!("{}", print(&clusters, args.output)?);
    Ok(())
}

async fn named(client: &Client, namespace: &str, args: &Args) -> Result<Vec<(String, String)>, Error> {
    if let (Some(cluster), false) = (&args.cluster, args.all_namespaces) {
        return Ok(vec![(namespace.to_owned(), cluster.clone())]);
    }
    let api: Api<PostgresCluster> =
        if args.all_namespaces { Api::all(client.clone()) } else { Api::namespaced(client.clone(), namespace) };
    let list = api.list(&ListParams::default()).await.map_err(Error::call("list", "the PostgresClusters"))?;
    let found: Vec<_> = list
        .iter()
        .map(|c| (c.namespace().unwrap_or_default(), c.name_any()))
        .filter(|(_, name)| args.cluster.as_ref().is_none_or(|c| c == name))
        .collect();
    if found.is_empty() {
        let place =
            if args.all_namespaces { "in any namespace".to_owned() } else { format!("in the namespace {namespace}") };
        return Err(Error::Refused(format!("there is no such PostgresCluster {place}")));
    }
    Ok(found)
}

/// The clusters, as text.
pub fn print(clusters: &[Cluster], output: Output) -> Result<String, Error> {
    let failed = |e: &dyn std::error::Error| Error::Output(e.to_string());
    match output {
        Output::Pretty => Ok(clusters.iter().map(pretty).collect::<Vec<_>>().join("\n\n")),
        Output::Json => serde_json::to_string_pretty(&documents(clusters)).map_err(|e| failed(&e)),
        Output::Yaml => {
            serde_saphyr::to_string(&documents(clusters)).map(|t| t.trim_end().to_owned()).map_err(|e| failed(&e))
        }
        Output::Tsv => {
            let head = COLUMNS.join("\t");
            let rows = clusters.iter().flat_map(|c| {
                c.members.iter().map(|m| {
                    let mut cells = vec![c.name.clone()];
                    cells.extend(cells_of(c, m));
                    cells.join("\t")
                })
            });
            Ok(std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn cells_of(cluster: &Cluster, m: &Member) -> Vec<String> {
    let leads = cluster.leader.as_deref() == Some(&m.name);
    vec![
        m.name.clone(),
        m.host.clone(),
        m.role.clone(),
        m.state.clone(),
        m.timeline.map(|t| t.to_string()).unwrap_or_default(),
        match m.lag {
            Some(bytes) => megabytes(bytes).to_string(),
            None if leads => String::new(),
            None => "unknown".to_owned(),
        },
    ]
}

/// Rounded to whole MB, as patronictl does.
fn megabytes(bytes: i64) -> i64 {
    (bytes + 524_288) / 1_048_576
}

fn pretty(cluster: &Cluster) -> String {
    let mut head = COLUMNS[1..].to_vec();
    let pending = cluster.members.iter().any(|m| m.pending_restart);
    if pending {
        head.push("Pending restart");
    }
    let rows: Vec<Vec<String>> = cluster
        .members
        .iter()
        .map(|m| {
            let mut row = cells_of(cluster, m);
            if pending {
                row.push(if m.pending_restart { "*" } else { "" }.to_owned());
            }
            row
        })
        .collect();
    let title = format!(" Cluster: {} ({}) ", cluster.name, cluster.identifier);
    let mut text = table::draw(&title, &head, &RIGHT, &rows);
    if cluster.paused {
        text.push_str("\n Maintenance mode: on");
    }
    if let Some([from, to, at]) = &cluster.switchover {
        let when =
            if at.is_empty() { " Switchover wanted".to_owned() } else { format!(" Switchover scheduled at: {at}") };
        text.extend(["\n", &when]);
        for (word, name) in [("from", from), ("to", to)].into_iter().filter(|(_, name)| !name.is_empty()) {
            text.extend(["\n   ", word, ": ", name]);
        }
    }
    for m in cluster.members.iter().filter(|m| !m.ready && !m.reason.is_empty()) {
        text.extend(["\n ", &m.name, ": ", &m.reason]);
    }
    text
}

/// Rows as patronictl gives them to programs: empty values are left out.
fn documents(clusters: &[Cluster]) -> Vec<Value> {
    let mut rows = Vec::new();
    for cluster in clusters {
        for m in &cluster.members {
            let mut row = Map::new();
            let mut put = |key: &str, value: Value| {
                if value != json!("") && value != Value::Null {
                    row.insert(key.to_owned(), value);
                }
            };
            put("Cluster", json!(cluster.name));
            put("Member", json!(m.name));
            put("Host", json!(m.host));
            put("Role", json!(m.role));
            put("State", json!(m.state));
            put("TL", json!(m.timeline));
            put("Lag in MB", json!(m.lag.map(megabytes)));
            put("Pending restart", json!(m.pending_restart.then_some("*")));
            rows.push(Value::Object(row));
        }
    }
    rows
}
