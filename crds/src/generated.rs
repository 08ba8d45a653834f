//! The CRD as YAML, as it is committed in `crds/postgresclusters.yaml` and installed in clusters.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

use crate::PostgresCluster;

/// `crds/postgresclusters.yaml`, made by `cargo run -p matriarch-crds --example generate`.
pub const CRD_YAML: &str = include_str!("../postgresclusters.yaml");

/// Of a cluster that no operator has seen yet: [`crd`] makes it the default, for kstatus (Flux, Helm) takes what has no status
/// for done.
pub const NEVER_SEEN: i64 = -1;

/// The definition of [`PostgresCluster`].
pub fn crd() -> CustomResourceDefinition {
    let mut crd = PostgresCluster::crd();
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(status) = root.and_then(|root| root.properties.as_mut()).and_then(|all| all.get_mut("status")) {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": NEVER_SEEN})));
        }
    }
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_crd_is_current() {
        let committed: serde_json::Value = serde_saphyr::from_str(CRD_YAML).unwrap();
        assert!(
            committed == serde_json::to_value(crd()).unwrap(),
            "stale: run `cargo run -p matriarch-crds --example generate`"
        );
    }

    #[test]
    fn every_rule_says_what_to_write_instead() {
        fn rules(value: &serde_json::Value, found: &mut usize) {
            if let Some(list) = value.get("x-kubernetes-validations").and_then(|v| v.as_array()) {
                for rule in list {
                    assert!(rule["message"].as_str().is_some_and(|m| m.len() > 30), "without a message: {rule}");
                    *found += 1;
                }
            }
            match value {
                serde_json::Value::Object(map) => map.values().for_each(|v| rules(v, found)),
                serde_json::Value::Array(list) => list.iter().for_each(|v| rules(v, found)),
                _ => {}
            }
        }
        let mut found = 0;
        rules(&serde_json::to_value(crd()).unwrap(), &mut found);
        assert!(found >= 12, "only {found} rules");
    }
}
