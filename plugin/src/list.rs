//! `kubectl matriarch list` and `topology`: members in patronictl's table.

use futures::stream::{self, StreamExt, TryStreamExt};
use matriarch_crds::PostgresCluster;
use serde_json::{Map, Value, json};

use crate::access::Session;
use crate::completion;
use crate::error::{Error, instead};
use crate::output::{Data, Format, say};
use crate::store::{Store, clusters};
use crate::table;
use crate::view::{Cluster, Member};

/// What to show and how.
#[derive(clap::Args)]
pub struct Args {
    /// The clusters; all of the namespace when none is named.
    #[arg(add = completion::clusters())]
    clusters: Vec<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only clusters with these labels, e.g. team=shop.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
    output: Format,
}

/// Of one cluster, as a tree.
#[derive(clap::Args)]
pub struct TopologyArgs {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
}

/// Clusters that are looked at side by side.
const AT_ONCE: usize = 8;

const COLUMNS: [&str; 7] = ["Cluster", "Member", "Host", "Role", "State", "TL", "Lag in MB"];
const RIGHT: [&str; 2] = ["TL", "Lag in MB"];

/// Shows them.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let stores: Vec<Store> = named(session, args).await?.into_iter().map(|one| Store::of(session, one)).collect();
    // Names need no look inside.
    let names = args.output == Format::Name;
    let look = |store| async move { look(store, names).await };
    let seen: Vec<Cluster> = stream::iter(&stores).map(look).buffered(AT_ONCE).try_collect().await?;
    say(&print(&seen, args.output)?)
}

async fn look(store: &Store, stored: bool) -> Result<Cluster, Error> {
    if stored { store.stored().await } else { store.view().await }
}

/// Who follows whom.
pub async fn run_topology(session: &Session, args: &TopologyArgs) -> Result<(), Error> {
    let cluster = Store::open(session, args.cluster.as_deref()).await?.view().await?;
    say(&topology(&cluster))
}

async fn named(session: &Session, args: &Args) -> Result<Vec<PostgresCluster>, Error> {
    let all = clusters(session, args.all_namespaces, args.selector.as_deref()).await?;
    let place = if args.all_namespaces {
        "in any namespace".to_owned()
    } else {
        format!("in the namespace {}", session.namespace)
    };
    let names: Vec<&str> = all.iter().filter_map(|c| c.metadata.name.as_deref()).collect();
    if let Some(missing) = args.clusters.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        return Err(Error::NotFound(format!(
            "there is no PostgresCluster {missing} {place}: {}",
            instead(missing, &names)
        )));
    }
    if all.is_empty() {
        let labels = args.selector.as_ref().map(|l| format!(" with the labels {l}")).unwrap_or_default();
        return Err(Error::NotFound(format!("there is no PostgresCluster{labels} {place}")));
    }
    let chosen = |c: &PostgresCluster| {
        args.clusters.is_empty() || c.metadata.name.as_ref().is_some_and(|name| args.clusters.contains(name))
    };
    Ok(all.into_iter().filter(chosen).collect())
}

/// The clusters, as text.
pub fn print(clusters: &[Cluster], output: Format) -> Result<String, Error> {
    Ok(match output {
        Format::Pretty => clusters.iter().map(|c| pretty(c, false)).collect::<Vec<_>>().join("\n\n"),
        Format::Wide => clusters.iter().map(|c| pretty(c, true)).collect::<Vec<_>>().join("\n\n"),
        Format::Json => Data::Json.print(&documents(clusters))?,
        Format::Yaml => Data::Yaml.print(&documents(clusters))?,
        Format::Name => {
            clusters.iter().map(|c| format!("postgrescluster.matriarch.dev/{}", c.name)).collect::<Vec<_>>().join("\n")
        }
        Format::Tsv => {
            let head = COLUMNS.join("\t");
            let rows = clusters.iter().flat_map(|c| {
                c.members.iter().map(|m| {
                    let mut cells = vec![c.name.clone()];
                    cells.extend(cells_of(c, m));
                    cells.join("\t")
                })
            });
            std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
        }
    })
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

fn pretty(cluster: &Cluster, wide: bool) -> String {
    let members: Vec<(usize, &Member)> = cluster.members.iter().map(|m| (0, m)).collect();
    let mut text = drawn(cluster, &members, wide);
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
    if wide {
        text.extend(["\n Lag: ", &cluster.positions]);
    }
    text
}

/// The table; names are set in by so many steps.
fn drawn(cluster: &Cluster, members: &[(usize, &Member)], wide: bool) -> String {
    let mut head = COLUMNS[1..].to_vec();
    let pending = wide || members.iter().any(|(_, m)| m.pending_restart);
    let scheduled = members.iter().any(|(_, m)| m.scheduled_restart.is_some());
    let tags = wide || members.iter().any(|(_, m)| !m.tags.is_empty());
    head.extend(pending.then_some("Pending restart"));
    head.extend(scheduled.then_some("Scheduled restart"));
    head.extend(tags.then_some("Tags"));
    if wide {
        head.extend(["LSN", "Version", "Node", "Restarts"]);
    }
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|(depth, m)| {
            let mut row = cells_of(cluster, m);
            if *depth > 0 {
                row[0] = format!("{}+ {}", "  ".repeat(depth - 1), m.name);
            }
            row.extend(pending.then(|| if m.pending_restart { "*" } else { "" }.to_owned()));
            let at = m.scheduled_restart.as_ref().and_then(|r| r["schedule"].as_str()).unwrap_or_default();
            row.extend(scheduled.then(|| at.to_owned()));
            row.extend(tags.then(|| tags_of(m)));
            if wide {
                let lsn = m.lsn.clone().unwrap_or_default();
                row.extend([lsn, m.version.clone(), m.node.clone(), m.restarts.to_string()]);
            }
            row
        })
        .collect();
    table::draw(&format!(" Cluster: {} ({}) ", cluster.name, cluster.identifier), &head, &RIGHT, &rows)
}

fn tags_of(member: &Member) -> String {
    let one = |(key, value): (&String, &Value)| {
        format!("{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    member.tags.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The leader, who follows it, who follows them; members that follow nobody known come last.
pub fn topology(cluster: &Cluster) -> String {
    let upstream = |m: &Member| {
        if cluster.leader.as_ref() == Some(&m.name) {
            return None;
        }
        let tagged = m.tags.get("replicatefrom").and_then(Value::as_str);
        let there = |name: &&str| *name != m.name && cluster.members.iter().any(|other| other.name == *name);
        tagged.filter(there).map(str::to_owned).or_else(|| cluster.leader.clone())
    };
    let mut rows: Vec<(usize, &Member)> = Vec::new();
    let mut todo: Vec<(usize, &Member)> = cluster.leading().map(|m| (0, m)).into_iter().collect();
    while let Some((depth, member)) = todo.pop() {
        if rows.iter().any(|(_, m)| m.name == member.name) {
            continue;
        }
        rows.push((depth, member));
        let below = cluster.members.iter().rev().filter(|m| upstream(m).as_ref() == Some(&member.name));
        todo.extend(below.map(|m| (depth + 1, m)));
    }
    let alone: Vec<&Member> = cluster.members.iter().filter(|m| !rows.iter().any(|(_, r)| r.name == m.name)).collect();
    rows.extend(alone.into_iter().map(|m| (0, m)));
    drawn(cluster, &rows, false)
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
            put("Scheduled restart", m.scheduled_restart.as_ref().map(|r| r["schedule"].clone()).unwrap_or_default());
            put("Tags", if m.tags.is_empty() { Value::Null } else { json!(m.tags) });
            rows.push(Value::Object(row));
        }
    }
    rows
}
