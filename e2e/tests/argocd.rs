//! The health script for Argo CD, run by Lua on statuses as the operator writes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use matriarch_e2e::host::run::{find_program, run_with_input};
use matriarch_operator::next_step::Step;
use matriarch_operator::plan::{example, example_spec};
use matriarch_operator::status::{Outcome, status};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gitops/argocd-health.lua");

/// What Argo CD shows: status and message. None where there is no Lua.
fn health(object: &Value) -> Option<(String, String)> {
    if find_program("lua5.4").is_none() {
        assert!(std::env::var_os("MATRIARCH_REQUIRE_POSTGRES").is_none(), "there is no lua5.4: run `make deps`");
        eprintln!("\n*** SKIPPED: there is no lua5.4: run `make deps`\n");
        return None;
    }
    let program = format!("obj = {}\nlocal h = dofile({SCRIPT:?})\nprint(h.status)\nprint(h.message)\n", lua(object));
    let said = run_with_input(&["lua5.4", "-"], &program).unwrap();
    let (state, message) = said.trim_end().split_once('\n').unwrap();
    Some((state.to_owned(), message.to_owned()))
}

/// As Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
        }
        Value::Array(list) => format!("{{{}}}", list.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(key, value)| format!("[{key:?}] = {}", lua(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// A cluster with these conditions beside the usual ones.
fn with(conditions: &[(&str, &str, &str)]) -> Value {
    let usual = [
        ("Ready", "True", "AllMembersReady"),
        ("Progressing", "False", "Stable"),
        ("ConfigurationApplied", "True", "Applied"),
        ("Reconciled", "True", "Reconciled"),
    ];
    let mut all: Vec<Value> = Vec::new();
    for (kind, status, reason) in
        usual.iter().filter(|(kind, _, _)| conditions.iter().all(|(own, _, _)| own != kind)).chain(conditions)
    {
        all.push(json!({
            "type": kind, "status": status, "reason": reason, "message": format!("about {kind}"),
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3,
        }));
    }
    json!({
        "apiVersion": "matriarch.dev/v1alpha1",
        "kind": "PostgresCluster",
        "metadata": {"name": "orders", "generation": 3},
        "spec": {"instances": 3},
        "status": {"observedGeneration": 3, "conditions": all},
    })
}

#[test]
fn each_state_has_its_colour() {
    for (object, state, message) in [
        (with(&[]), "Healthy", "AllMembersReady: about Ready"),
        (with(&[("Stalled", "False", "NotStalled"), ("Reconciling", "False", "Stable")]), "Healthy", "AllMembersReady"),
        (with(&[("Progressing", "True", "RollingUpdate")]), "Progressing", "RollingUpdate: about Progressing"),
        (with(&[("Reconciling", "True", "AgentUpgrade")]), "Progressing", "AgentUpgrade: about Reconciling"),
        (with(&[("Ready", "False", "NoPrimary")]), "Progressing", "NoPrimary: about Ready"),
        (
            with(&[("Ready", "False", "ImagePullFailed"), ("Stalled", "True", "UpgradeStuck")]),
            "Degraded",
            "UpgradeStuck",
        ),
        (with(&[("Reconciled", "False", "ApplyFailed")]), "Degraded", "ApplyFailed: about Reconciled"),
        (with(&[("ConfigurationApplied", "False", "InvalidParameters")]), "Degraded", "InvalidParameters"),
        (with(&[("ConfigurationApplied", "False", "PendingRestart")]), "Healthy", "AllMembersReady"),
        (with(&[("DeclaredStateApplied", "False", "Applying")]), "Healthy", "AllMembersReady"),
        (with(&[("DeclaredStateApplied", "False", "Failed")]), "Degraded", "Failed: about DeclaredStateApplied"),
        (with(&[("Ready", "False", "Hibernated"), ("Hibernated", "True", "Hibernated")]), "Suspended", "Hibernated"),
        (with(&[("Progressing", "True", "Paused")]), "Suspended", "Paused: about Progressing"),
    ] {
        let Some((is, said)) = health(&object) else { return };
        assert_eq!(is, state, "{object}");
        assert!(said.starts_with(message), "{said}");
    }
}

#[test]
fn what_the_operator_has_not_seen_is_under_way() {
    let mut fresh = with(&[]);
    fresh["metadata"]["generation"] = json!(4);
    let mut deleted = with(&[]);
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let unseen = json!({"metadata": {"name": "orders", "generation": 1}, "spec": {}});
    for (object, message) in [
        (fresh, "Waiting until the operator"),
        (unseen, "Waiting until the operator"),
        (deleted, "The cluster is being deleted"),
    ] {
        let Some((state, said)) = health(&object) else { return };
        assert_eq!(state, "Progressing");
        assert!(said.starts_with(message), "{said}");
    }
}

/// Not only with conditions of this test's own: with those that the operator computes.
#[test]
fn the_operators_own_statuses_are_understood() {
    let mut seen = example(example_spec(false));
    seen.cluster.metadata.generation = Some(1);
    let object = |outcome: &Outcome| {
        let status = status(&seen, &Step::Create, outcome);
        json!({"metadata": seen.cluster.metadata, "spec": seen.cluster.spec, "status": status})
    };
    let Some((state, said)) = health(&object(&Outcome::Done)) else { return };
    assert_eq!((state.as_str(), said.split(':').next()), ("Progressing", Some("Creating")), "{said}");
    let failed = Outcome::Failed { category: "ApplyFailed", message: "cannot apply: \"quota\" \\ exceeded".to_owned() };
    let (state, said) = health(&object(&failed)).unwrap();
    assert_eq!((state.as_str(), said.as_str()), ("Degraded", "ApplyFailed: cannot apply: \"quota\" \\ exceeded"));
}
