//! `kubectl matriarch history`: the timelines that ended: where, why, when, and who led the next one.

use serde_json::json;

use crate::access::Session;
use crate::completion;
use crate::error::Error;
use crate::output::{Data, say};
use crate::store::Store;
use crate::table;
use crate::view::Cluster;

/// Of which cluster.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// For programs.
    #[arg(short, long, value_enum)]
    output: Option<Data>,
}

const COLUMNS: [&str; 5] = ["TL", "LSN", "Reason", "Timestamp", "New Leader"];

/// Shows it.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let cluster = Store::open(session, args.cluster.as_deref()).await?.stored().await?;
    match args.output {
        None => say(&screen(&cluster)),
        Some(data) => {
            let row = |e: &crate::view::Ended| json!({"TL": e.timeline, "LSN": e.lsn, "Reason": e.reason, "Timestamp": e.at, "New Leader": e.leader});
            say(&data.print(&cluster.history.iter().map(row).collect::<Vec<_>>())?)
        }
    }
}

/// For people.
pub fn screen(cluster: &Cluster) -> String {
    if cluster.history.is_empty() {
        return format!("{} is on its first timeline: no failover and no switchover yet", cluster.title());
    }
    let rows: Vec<Vec<String>> = cluster
        .history
        .iter()
        .map(|e| {
            let (at, leader) = (e.at.clone().unwrap_or_default(), e.leader.clone().unwrap_or_default());
            vec![e.timeline.to_string(), e.lsn.clone(), e.reason.clone(), at, leader]
        })
        .collect();
    table::draw("", &COLUMNS, &["TL", "LSN"], &rows)
}
