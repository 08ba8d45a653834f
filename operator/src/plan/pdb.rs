//! The PodDisruptionBudget: a drain takes one member at a time.

use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, SCOPE_LABEL};
use serde_json::{Value, json};

use super::metadata;
use crate::observe::Seen;

/// Of all members; a single one needs none, for it would only block drains.
pub fn object(seen: &Seen) -> Option<Value> {
    (seen.cluster.spec.instances > 1).then(|| {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(seen, &seen.name()),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": {(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()}},
            },
        })
    })
}
