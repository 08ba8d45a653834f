//! What a cluster costs that nobody uses: memory, and requests to the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::list::On;
use super::memory;
use super::report::Row;
use super::runner;
use super::world::{OPERATOR_NAMESPACE, World};

/// For how long requests are counted.
const MINUTE: Duration = Duration::from_mins(1);
/// What an idle cluster may write in a minute: one renewal each two seconds.
const WRITES: u64 = 31;

/// Counts for a minute.
pub async fn idle(world: &World, row: &mut Row) -> Result<()> {
    let herd = runner::herd_on(world, On::ConfigMaps).await?;
    herd.steady(Duration::from_mins(2)).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let since = Timestamp::now();
    tokio::time::sleep(MINUTE).await;
    let requests = world.cluster.api_requests(since, Timestamp::now())?;
    let ours = [
        "system:serviceaccount:".to_owned() + &world.namespace.name,
        format!("system:serviceaccount:{OPERATOR_NAMESPACE}"),
    ];
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    let mut writes = 0;
    for (request, count) in requests {
        let Some(own) = ours.iter().find(|prefix| request.user.starts_with(*prefix)) else { continue };
        let user = if *own == ours[0] { "agents" } else { "operator" };
        *lines.entry(format!("{user} {} {}", request.verb, request.resource)).or_default() += count;
        if request.is_write() && user == "agents" {
            writes += count;
        }
    }
    let verdict = if writes > WRITES { format!(" (aim: at most {WRITES})") } else { String::new() };
    row.note(format!("{writes} writes of agents a minute{verdict}"));
    row.note(lines.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", "));
    let (agent, supervisor) = memory::largest(&herd).await?;
    row.note(format!("agent {agent} (aim: PSS 12); supervisor {supervisor} (aim: PSS 3)"));
    Ok(())
}
