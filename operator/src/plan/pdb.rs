//! The PodDisruptionBudgets: a drain takes one standby at a time, and the leader only after it has handed over.
//!
//! No pod may be in two budgets (the eviction API then refuses for good), so one is for the primary and one for the
//! others, told apart by the label `role`. The primary's is there only where the operator sees nodes: it is what makes
//! room for a drain, by a switchover. Where it does not, one budget for all members lets an evicted leader hand over by
//! itself. A single member, and a cluster that sleeps, has none, for it would only block drains.

use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, ROLE_LABEL, ROLE_PRIMARY, SCOPE_LABEL};
use serde_json::{Value, json};

use super::{Write, metadata};
use crate::kinds::Kind;
use crate::observe::Seen;

/// Those that there shall be.
pub fn objects(seen: &Seen) -> Vec<Value> {
    let spec = &seen.cluster.spec;
    if spec.instances < 2 || spec.hibernate {
        return Vec::new();
    }
    let members = json!({(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()});
    if seen.nodes.is_none() {
        return vec![object(seen, &seen.name(), &json!({"maxUnavailable": 1, "selector": {"matchLabels": members}}))];
    }
    let mut primary = members.clone();
    primary[ROLE_LABEL] = json!(ROLE_PRIMARY);
    let mut all = vec![object(
        seen,
        &seen.names().primary_budget(),
        &json!({"minAvailable": 1, "selector": {"matchLabels": primary}}),
    )];
    // A number and not maxUnavailable, which counts against all replicas of the StatefulSet, the primary among them.
    if spec.instances > 2 {
        let others = json!({
            "matchLabels": members,
            "matchExpressions": [{"key": ROLE_LABEL, "operator": "NotIn", "values": [ROLE_PRIMARY]}],
        });
        all.push(object(seen, &seen.name(), &json!({"minAvailable": spec.instances - 2, "selector": others})));
    }
    all
}

fn object(seen: &Seen, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(seen, name), "spec": spec})
}

/// Those that there shall be no longer.
pub fn surplus(seen: &Seen) -> Vec<Write> {
    let wanted: Vec<Value> = objects(seen);
    seen.objects
        .iter()
        .filter(|((kind, name), live)| {
            *kind == Kind::PodDisruptionBudget
                && [seen.name(), seen.names().primary_budget()].contains(name)
                && wanted.iter().all(|w| w["metadata"]["name"] != json!(name))
                && live["metadata"]["deletionTimestamp"].is_null()
        })
        .filter_map(|((kind, name), live)| {
            let uid = live["metadata"]["uid"].as_str()?.to_owned();
            Some(Write::Delete { kind: *kind, name: name.clone(), uid })
        })
        .collect()
}
