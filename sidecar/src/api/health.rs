//! Health checks of load balancers: the paths that say by their status alone whether a member is what is looked for.

use matriarch_ha::event::ServerStatus;
use matriarch_ha::types::Lsn;
use serde_json::Value;

use super::query::{self, Query};
use super::seen::Seen;
use super::{Answer, status};

/// The check that `path` asks for, with the status document as its body; 503 for paths that nothing is known of.
///
/// Paths are matched as Patroni does: most by a word that they contain, in this order.
pub fn response(seen: &Seen, path: &str, query: &Query) -> Answer {
    Answer::json(code(seen, path, query), status::document(seen))
}

/// Its status.
pub fn code(seen: &Seen, path: &str, query: &Query) -> u16 {
    if passes(seen, path, query) { 200 } else { 503 }
}

/// Who we are, in three words that exclude nothing.
struct Leads {
    leader: bool,
    primary: bool,
    standby_leader: bool,
}

fn leads(seen: &Seen) -> Leads {
    let role = seen.role();
    if !seen.store_known() && seen.view.paused {
        // A person steers: what runs is what counts.
        let (primary, standby_leader) = (role == "primary", role == "standby_leader");
        return Leads { leader: primary || standby_leader, primary, standby_leader };
    }
    let (leader, standby_cluster) = (seen.leader(), seen.standby_cluster());
    Leads {
        leader,
        primary: leader && !standby_cluster,
        standby_leader: leader && standby_cluster && matches!(role, "replica" | "standby_leader"),
    }
}

fn passes(seen: &Seen, path: &str, query: &Query) -> bool {
    let leads = leads(seen);
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        return leads.standby_leader;
    }
    if has("leader") {
        return leads.leader;
    }
    if path == "/" || path.is_empty() || has("master") || has("primary") || has("read-write") {
        return leads.primary;
    }
    let replica = || replica(seen, query) && !(leads.leader && seen.standby_cluster());
    let writes = leads.primary || leads.standby_leader;
    let (sync, quorum) = (seen.sync_standby(), seen.quorum_standby());
    let found = if has("replica") {
        replica()
    } else if has("read-only") && !has("sync") && !has("quorum") {
        writes || replica()
    } else if has("health") {
        seen.running()
    } else if seen.store_known() {
        match path {
            "/sync" | "/synchronous" => sync && replica(),
            "/quorum" => quorum && replica(),
            "/async" | "/asynchronous" => !sync && !quorum && replica(),
            "/read-only-sync" | "/read-only-synchronous" => writes || sync && replica(),
            "/read-only-quorum" => writes || quorum && replica(),
            _ => false,
        }
    } else {
        false
    };
    found && tags(seen, query)
}

/// A standby that reads may go to: it runs, is no further behind than `lag`, and nobody tagged it away.
fn replica(seen: &Seen, query: &Query) -> bool {
    let replayed = seen.standby().map_or(Lsn(0), |standby| standby.replayed);
    let lags = query::value(query, "lag").and_then(query::bytes).is_some_and(|limit| seen.lags(replayed, limit));
    let state = seen.standby().and_then(ServerStatus::replication_state);
    let streams = query::value(query, "replication_state").is_none_or(|wanted| state == Some(wanted));
    seen.role() == "replica" && seen.running() && !seen.site.tag("noloadbalance") && !lags && streams
}

/// Every `tag_…` must be a tag of ours with that value.
fn tags(seen: &Seen, query: &Query) -> bool {
    let asked = query.iter().filter_map(|(key, value)| Some((key.strip_prefix("tag_")?, value)));
    asked.into_iter().all(|(key, value)| match seen.site.tags.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => text == value,
        Some(other) => other.to_string().to_lowercase() == *value,
    })
}
