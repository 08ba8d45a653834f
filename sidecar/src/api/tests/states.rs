//! The states of a node that the contract's rows name: `standby+sync+deaf`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use matriarch_ha::event::StandbyStatus;
use matriarch_ha::store::record::{Failover, When};

use super::*;
use crate::api::access::{Access, basic};
use crate::api::limits::Limits;

/// What the client of a row does in addition.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Header `Authorization`.
    pub authorization: Option<String>,
}

/// The view and configuration that a state's words mean, at `now`.
pub fn state(words: &str, now: Boot) -> (View, Site, Extra) {
    let mut words = words.split('+').map(str::trim);
    let base = words.next().unwrap_or_default();
    let mut view = match base {
        "primary" => View { leader: true, leader_until: Boot(now.0 + 60 * SECOND), ..leader() },
        "standby" => standby(),
        "standby-leader" => View {
            role: "standby_leader".into(),
            leader: true,
            leader_until: Boot(now.0 + 60 * SECOND),
            config: Some(Arc::new(json!({"ttl": 10, "standby_cluster": {"host": "elsewhere"}}))),
            ..View { name: "orders-0".into(), ..standby() }
        },
        other => panic!("no such state: {other}"),
    };
    view.store_seen = now;
    view.cycle_at = now;
    if let Some(server) = &mut view.server {
        server.started = "2024-07-02T11:00:00+00:00".into();
        if server.in_recovery {
            server.replayed_at = Some(Wall(1_719_918_300_500_000));
        }
    }
    let mut site = Site { started: Boot(1), ..site() };
    let mut extra = Extra::default();
    for word in words {
        change(word, &mut view, &mut site, &mut extra);
    }
    (view, site, extra)
}

fn change(word: &str, view: &mut View, site: &mut Site, extra: &mut Extra) {
    let moment = "2034-07-02T09:06:00Z".parse().unwrap();
    let access: &mut Access = &mut site.access;
    match word {
        "paused" => view.paused = true,
        "deaf" => view.store_seen = Boot(1),
        "expired" => view.leader_until = Boot(1),
        "mute" => view.server = None,
        "starting" => (view.server, view.state) = (None, "starting".into()),
        "stuck" => view.cycle_at = Boot(view.cycle_at.0.saturating_sub(15 * SECOND)),
        "sync" => {
            (view.sync_mode, view.sync_standby, Arc::make_mut(&mut view.members)[0].sync) = ("on".into(), true, true);
        }
        "quorum" => {
            (view.sync_mode, view.sync_standby, Arc::make_mut(&mut view.members)[0].sync) =
                ("quorum".into(), true, true);
        }
        "failsafe" => view.failsafe_active = true,
        "no-config" => view.config = None,
        "topology" => {
            view.failsafe_members.insert("orders-0".into(), "https://h:8008/patroni".into());
        }
        "restart-scheduled" => {
            view.scheduled_restart = Some(json!({"schedule": "2034-07-02T09:06:00+00:00", "role": "primary",
                "postmaster_start_time": "2024-07-02 11:00:00+00:00"}));
        }
        "switchover-scheduled" => {
            let (leader, member) = (Some("orders-0".into()), Some("orders-1".into()));
            view.switchover = Some(Failover { leader, member, when: When::At(moment) });
        }
        "streamed" => {
            view.standbys = vec![StandbyStatus {
                member: "orders-1".into(),
                state: "streaming".into(),
                sync_state: "quorum".into(),
                sync_priority: 1,
                user: "replicator".into(),
                address: Some("10.0.0.2".into()),
                flush: Lsn(1000),
            }];
        }
        "noloadbalance" => {
            site.tags.insert("noloadbalance".into(), json!(true));
        }
        "zone" => site.tags.extend([
            ("zone".to_owned(), json!("a")),
            ("fast".to_owned(), json!(true)),
            ("size".to_owned(), json!(7)),
        ]),
        "password" => access.authorization = Some(basic("admin", "open sesame")),
        "wrong" => extra.authorization = Some(basic("admin", "close sesame")),
        "right" => extra.authorization = Some(basic("admin", "open sesame")),
        "elsewhere" => access.networks = vec!["10.0.0.0/8".parse().unwrap()],
        "here" => access.networks.push("127.0.0.0/8".parse().unwrap()),
        "named" => access.names = vec!["localhost".into()],
        "members-only" => access.include_members = true,
        "neighbour" => {
            Arc::make_mut(&mut view.members)[0].status["api_url"] =
                json!(format!("http://{}:1/patroni", Ipv4Addr::LOCALHOST));
        }
        "impatient" => {
            let (short, shorter) = (Duration::from_millis(400), Duration::from_millis(200));
            site.limits =
                Limits { head: shorter, body: shorter, life: short, last_request: shorter, ..Limits::default() };
        }
        "headers" => {
            site.headers = vec![("x-frame-options".parse().unwrap(), "SAMEORIGIN".parse().unwrap())];
            site.server = "Patroni/4.1.4".parse().ok();
        }
        _ => server(word, view),
    }
}

/// What is different about PostgreSQL.
fn server(word: &str, view: &mut View) {
    let server = view.server.as_mut().unwrap();
    match word {
        "ahead" => server.upstream_end = Lsn(2000),
        "far" => view.leader_lsn = Lsn(9_000_000),
        "archive" => (server.streaming, server.from_archive) = (false, true),
        "nothing-received" => (server.received, server.replayed_at) = (Lsn(0), None),
        "replay-paused" => server.replay_paused = true,
        "pending" => {
            server.pending_restart = [("max_connections".into(), matriarch_ha::event::Pending::default())].into();
        }
        other => panic!("no such word: {other}"),
    }
}

/// Rows come from here.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
