//! Names and types of metrics, as committed: people's dashboards and alerts rest on them.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::api::Body;

const GOLDEN: &str = include_str!("metrics.golden");

fn text(words: &str) -> String {
    let (view, site, _) = states::state(words, NOW.boot);
    let Body::Plain(text) = get(&view, &site, "/metrics").body else { panic!("no text") };
    text
}

/// `name type labels` of all samples, whatever the state.
fn described() -> String {
    let mut all = BTreeSet::new();
    for words in ["primary+streamed", "standby", "standby-leader", "standby+mute"] {
        let text = text(words);
        let kind = |name: &str| {
            let prefix = format!("# TYPE {name} ");
            text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("?").to_owned()
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, _) = rest.rsplit_once('}').unwrap();
            let labels: Vec<&str> = labels.split(',').filter_map(|pair| pair.split_once('=').map(|(l, _)| l)).collect();
            all.insert(format!("{name} {} {}\n", kind(name), labels.join(",")));
        }
    }
    all.into_iter().collect()
}

#[test]
fn names_and_types_are_those_that_are_committed() {
    let found = described();
    if std::env::var_os("MATRIARCH_GENERATE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/tests/metrics.golden");
        std::fs::write(path, &found).unwrap();
        return;
    }
    assert_eq!(found, GOLDEN, "if this is meant: MATRIARCH_GENERATE=1 cargo test -p matriarch-sidecar metrics");
    for name in PATRONI {
        assert!(found.lines().any(|line| line.split(' ').next() == Some(name)), "Patroni 4.1 has {name}");
    }
}

/// Of Patroni 4.1.
const PATRONI: [&str; 26] = [
    "patroni_version",
    "patroni_postgres_running",
    "patroni_postmaster_start_time",
    "patroni_primary",
    "patroni_xlog_location",
    "patroni_standby_leader",
    "patroni_replica",
    "patroni_sync_standby",
    "patroni_quorum_standby",
    "patroni_xlog_received_location",
    "patroni_xlog_replayed_location",
    "patroni_xlog_replayed_timestamp",
    "patroni_xlog_paused",
    "patroni_postgres_streaming",
    "patroni_postgres_in_archive_recovery",
    "patroni_postgres_server_version",
    "patroni_cluster_unlocked",
    "patroni_failsafe_mode_is_active",
    "patroni_failsafe_mode_enabled",
    "patroni_failsafe_member",
    "patroni_postgres_timeline",
    "patroni_dcs_last_seen",
    "patroni_pending_restart",
    "patroni_is_paused",
    "patroni_postgres_state",
    "patroni_failover_priority",
];

#[test]
fn values_are_what_the_node_is() {
    for (words, lines) in [
        (
            "primary+streamed",
            &[
                "patroni_version{scope=\"orders\",name=\"orders-0\"} 040104",
                "patroni_postmaster_start_time{scope=\"orders\",name=\"orders-0\"} 1719918000.000000",
                "patroni_xlog_location{scope=\"orders\",name=\"orders-0\"} 1000",
                "patroni_postgres_state{scope=\"orders\",name=\"orders-0\"} 5",
                "matriarch_state{scope=\"orders\",name=\"orders-0\",state=\"running\"} 1",
                "matriarch_state{scope=\"orders\",name=\"orders-0\",state=\"stopped\"} 0",
                "matriarch_rule_info{scope=\"orders\",name=\"orders-0\",rule=\"some.rule\"} 1",
                "matriarch_fence_deadline_seconds{scope=\"orders\",name=\"orders-0\"} 60.000",
                "matriarch_streaming_standbys{scope=\"orders\",name=\"orders-0\"} 1",
            ][..],
        ),
        (
            "standby",
            &[
                "patroni_primary{scope=\"orders\",name=\"orders-1\"} 0",
                "patroni_replica{scope=\"orders\",name=\"orders-1\"} 1",
                "patroni_postgres_streaming{scope=\"orders\",name=\"orders-1\"} 1",
                "patroni_xlog_replayed_timestamp{scope=\"orders\",name=\"orders-1\"} 1719918300.500000",
                "matriarch_receive_lag_bytes{scope=\"orders\",name=\"orders-1\"} 0",
                "matriarch_replay_lag_bytes{scope=\"orders\",name=\"orders-1\"} 100",
                "matriarch_role{scope=\"orders\",name=\"orders-1\",role=\"replica\"} 1",
            ],
        ),
        (
            "standby+mute",
            &[
                "patroni_postgres_state{scope=\"orders\",name=\"orders-1\"} -1",
                "patroni_postmaster_start_time{scope=\"orders\",name=\"orders-1\"} 0",
                "patroni_postgres_timeline{scope=\"orders\",name=\"orders-1\"} 0",
            ],
        ),
    ] {
        let text = text(words);
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{words}: {line}\n{text}");
        }
        assert_eq!(text.matches("# HELP").count(), text.matches("# TYPE").count());
    }
}
