//! Alerts and the dashboard: they name only metrics that exist, Prometheus reads them, and they fire when they should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::BTreeSet;

use matriarch_e2e::host::run::{find_program, run};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).expect(path)
}

/// Words that are ours, as a series is called.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("matriarch_") || word.starts_with("patroni_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let mut there = named(&read("sidecar/src/api/tests/metrics.golden"));
    there.extend(named(&read("operator/src/metrics/golden.txt")));
    for part in ["bucket", "sum", "count"] {
        there.insert(format!("matriarch_operator_reconcile_duration_seconds_{part}"));
    }
    let rules: Value = serde_saphyr::from_str(&read("charts/matriarch/files/alerts.yaml")).unwrap();
    let dashboard: Value = serde_json::from_str(&read("charts/matriarch/files/dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        expressions.push(rule["expr"].as_str().unwrap().to_owned());
        for part in ["summary", "description"] {
            assert!(rule["annotations"][part].is_string(), "{} has no {part}", rule["alert"]);
        }
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        expressions.extend(panel["targets"].as_array().unwrap().iter().map(|t| t["expr"].as_str().unwrap().to_owned()));
    }
    assert!(expressions.len() > 25, "only {} expressions", expressions.len());
    for expression in expressions {
        let names = named(&expression);
        assert!(!names.is_empty(), "{expression} names no metric");
        for name in names {
            assert!(there.contains(&name), "{expression} names {name}, which neither agent nor operator has");
        }
    }
}

#[test]
fn alerts_fire_when_they_should() {
    if find_program("promtool").is_none() {
        assert!(std::env::var_os("MATRIARCH_REQUIRE_POSTGRES").is_none(), "there is no promtool: run `make deps`");
        eprintln!("\n*** SKIPPED: there is no promtool: run `make deps`\n");
        return;
    }
    run(&["promtool", "check", "rules", &format!("{ROOT}/charts/matriarch/files/alerts.yaml")]).unwrap();
    run(&["promtool", "test", "rules", &format!("{ROOT}/e2e/tests/alerts/test.yaml")]).unwrap();
}
