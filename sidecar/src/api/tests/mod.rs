//! What all tests of the API share: a leader and a standby as the core publishes them, one second after its last cycle.

mod certificates;
mod commands;
mod contract;
mod documents;
mod end_to_end;
mod health;
mod metrics;
mod probes;
mod robust;
mod states;
mod tls;

use std::sync::Arc;

use matriarch_ha::event::{Now, ServerStatus};
use matriarch_ha::types::{Boot, Lsn, Timeline, Wall};
use matriarch_ha::view::{MemberView, View};
use serde_json::json;

use super::Site;
use super::query::Query;
use super::seen::Seen;

const NOW: Now = Now { boot: Boot(1_000_000_000), wall: Wall(1_719_918_402_123_456) };
const SECOND: u64 = 1_000_000;

fn site() -> Site {
    Site { scope: "orders".into(), ..Site::default() }
}

fn common(name: &str) -> View {
    let member = |name: &str, leader: bool| MemberView {
        name: name.into(),
        leader,
        status: json!({
            "conn_url": format!("postgres://{name}.orders-pods.x.svc:5432/postgres"),
            "api_url": format!("https://{name}.orders-pods.x.svc:8008/patroni"),
            "state": "running", "role": if leader { "primary" } else { "replica" }, "xlog_location": 900, "timeline": 3,
        }),
        ..MemberView::default()
    };
    View {
        name: name.into(),
        pod_uid: format!("uid-of-{name}"),
        state: "running".into(),
        leader_name: Some("orders-0".into()),
        leader_lsn: Lsn(1000),
        sync_mode: "off".into(),
        members: Arc::new(vec![member("orders-1", false), member("orders-0", true)]),
        config: Some(Arc::new(json!({"ttl": 10}))),
        store_seen: Boot(NOW.boot.0 - SECOND),
        cycle_at: Boot(NOW.boot.0 - SECOND),
        rule: "some.rule".into(),
        reason: "as it should be".into(),
        ttl_ms: 10_000,
        max_lag: 1_048_576,
        timeline: Timeline(3),
        ..View::default()
    }
}

fn leader() -> View {
    View {
        role: "primary".into(),
        leader: true,
        leader_until: Boot(NOW.boot.0 + 7 * SECOND),
        server: Some(ServerStatus {
            system_id: "7268616322854375442".into(),
            timeline: Timeline(3),
            flush: Lsn(1000),
            started: "2024-07-02 11:00:00.000000+00".into(),
            version: 150_018,
            ..ServerStatus::default()
        }),
        ..common("orders-0")
    }
}

fn standby() -> View {
    View {
        role: "replica".into(),
        server: Some(ServerStatus {
            in_recovery: true,
            system_id: "7268616322854375442".into(),
            timeline: Timeline(3),
            received: Lsn(1000),
            replayed: Lsn(900),
            streaming: true,
            version: 150_018,
            ..ServerStatus::default()
        }),
        ..common("orders-1")
    }
}

/// `/path?key=value&…` as the filters hand it on.
fn target(text: &str) -> (String, Query) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    (path.to_owned(), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn get(view: &View, site: &Site, text: &str) -> super::Answer {
    let (path, query) = target(text);
    super::read::response(&Seen { view, now: NOW, site }, &path, &query)
}

fn head(view: &View, site: &Site, text: &str) -> super::Answer {
    let (path, query) = target(text);
    super::read::status_only(&Seen { view, now: NOW, site }, &path, &query)
}
