//! Documents about the cluster as a whole: members, dynamic configuration, failsafe topology.

use matriarch_ha::history;
use matriarch_ha::store::record::{Failover, When};
use matriarch_ha::types::Lsn;
use matriarch_ha::view::MemberView;
use serde_json::{Map, Value, json};

use super::Answer;
use super::seen::Seen;

/// Of a member's status, passed on as they are.
const PASSED_ON: [&str; 5] = ["timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags"];

/// `GET /cluster`: all members by name.
pub fn cluster(seen: &Seen) -> Answer {
    let view = seen.view;
    let mut members: Vec<&MemberView> = view.members.iter().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let members: Vec<Value> = members.into_iter().map(|one| member(seen, one)).collect();
    let mut document = json!({"members": members, "scope": seen.site.scope});
    if view.paused {
        document["pause"] = json!(true);
    }
    if let Some(Failover { leader, member, when: When::At(at) }) = &view.switchover {
        let mut scheduled = Map::from_iter([("at".to_owned(), json!(at.to_string()))]);
        scheduled.extend(leader.iter().map(|from| ("from".to_owned(), json!(from))));
        scheduled.extend(member.iter().map(|to| ("to".to_owned(), json!(to))));
        document["scheduled_switchover"] = Value::Object(scheduled);
    }
    Answer::json(200, document)
}

fn member(seen: &Seen, member: &MemberView) -> Value {
    let text = |key: &str| member.status.get(key).and_then(Value::as_str).unwrap_or_default();
    let role = role(seen, member);
    let replicates = if role == "leader" { "" } else { text("replication_state") };
    let state = if replicates.is_empty() { text("state") } else { replicates };
    let mut row = Map::new();
    row.insert("name".into(), json!(member.name));
    row.insert("role".into(), json!(role));
    row.insert("state".into(), json!(state));
    row.insert("api_url".into(), json!(text("api_url")));
    if let Some((host, port)) = host_and_port(text("conn_url")) {
        row.insert("host".into(), json!(host));
        if let Some(port) = port {
            row.insert("port".into(), json!(port));
        }
    }
    for key in PASSED_ON {
        if let Some(value) = member.status.get(key) {
            row.insert(key.into(), value.clone());
        }
    }
    let places = Places::of(seen, member);
    row.insert("lsn".into(), shown(places.any));
    if !member.leader {
        let head = head(seen);
        row.insert("lag".into(), lag(head, places.any));
        row.insert("receive_lsn".into(), shown(places.received));
        row.insert("receive_lag".into(), lag(head, places.received));
        row.insert("replay_lsn".into(), shown(places.replayed));
        row.insert("replay_lag".into(), lag(head, places.replayed));
    }
    Value::Object(row)
}

fn role(seen: &Seen, member: &MemberView) -> &'static str {
    match (member.leader, seen.view.sync_mode.as_str()) {
        (true, _) if seen.standby_cluster() => "standby_leader",
        (true, _) => "leader",
        (false, "quorum") if member.sync => "quorum_standby",
        (false, "on") if member.sync => "sync_standby",
        (false, _) => "replica",
    }
}

/// Where a member is: what its annotation says, or what we know better.
#[derive(Default)]
struct Places {
    any: Option<Lsn>,
    received: Option<Lsn>,
    replayed: Option<Lsn>,
}

impl Places {
    fn of(seen: &Seen, member: &MemberView) -> Self {
        if member.name == seen.view.name
            && let Some(server) = &seen.view.server
        {
            return if server.in_recovery {
                let any = server.received.max(server.replayed);
                Self { any: Some(any), received: Some(server.received), replayed: Some(server.replayed) }
            } else {
                Self { any: Some(server.flush), ..Self::default() }
            };
        }
        let lsn = |key: &str| member.status.get(key).and_then(Value::as_u64).map(Lsn);
        // The annotation is written when a state changes; a primary sees every position as it is.
        let streamed = seen.view.standbys.iter().find(|row| row.member == member.name).map(|row| row.flush);
        Self {
            any: lsn("xlog_location").max(streamed),
            received: lsn("receive_lsn").max(streamed),
            replayed: lsn("replay_lsn"),
        }
    }
}

/// The leader's position.
fn head(seen: &Seen) -> Lsn {
    let own = if seen.leader() { seen.primary().map(|server| server.flush) } else { None };
    seen.view.leader_lsn.max(own.unwrap_or_default())
}

fn shown(lsn: Option<Lsn>) -> Value {
    lsn.map_or_else(|| json!("unknown"), |lsn| json!(lsn.to_string()))
}

fn lag(head: Lsn, lsn: Option<Lsn>) -> Value {
    lsn.map_or_else(|| json!("unknown"), |lsn| json!(head.0.saturating_sub(lsn.0)))
}

/// Of `postgres://host:port/database`; an IPv6 address is in brackets.
pub fn host_and_port(url: &str) -> Option<(&str, Option<u16>)> {
    let (_, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?']).next()?;
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    (!host.is_empty()).then(|| (host, port.and_then(|port| port.parse().ok())))
}

/// `GET /config`: the dynamic configuration as stored.
pub fn config(seen: &Seen) -> Answer {
    match &seen.view.config {
        Some(config) => Answer::json(200, (**config).clone()),
        None => Answer::text(502, "no dynamic configuration is stored, or the store was not heard of yet"),
    }
}

/// `GET /failsafe`: who is asked before a leader goes on without the store.
pub fn failsafe(seen: &Seen) -> Answer {
    if seen.view.failsafe_members.is_empty() {
        return Answer::text(502, "no failsafe topology is stored");
    }
    Answer::json(200, json!(seen.view.failsafe_members))
}

/// `GET /history`: the lines of the timeline history, as stored.
pub fn history(seen: &Seen) -> Answer {
    Answer::json(200, serde_json::from_str(&history::text(&seen.view.history)).unwrap_or_else(|_| json!([])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_url_gives_host_and_port() {
        assert_eq!(host_and_port("postgres://h.x.svc:5432/postgres"), Some(("h.x.svc", Some(5432))));
        assert_eq!(host_and_port("postgres://u:p@h:5433"), Some(("h", Some(5433))));
        assert_eq!(host_and_port("postgres://[fd00::1]:5432/x"), Some(("fd00::1", Some(5432))));
        assert_eq!(host_and_port("postgres://h/x"), Some(("h", None)));
        assert_eq!(host_and_port(""), None);
    }
}
