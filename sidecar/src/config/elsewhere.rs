//! Sections of Patroni's configuration that put the cluster's state where we do not look: with them a running cluster would be taken
//! for one that does not exist.

use serde_json::Value;

use super::Error;

/// Patroni's other stores.
const STORES: [&str; 6] = ["consul", "etcd", "etcd3", "exhibitor", "raft", "zookeeper"];

/// Refuses what cannot be taken over.
pub fn refuse(document: &Value) -> Result<(), Error> {
    let written = |key: &str| document.get(key).is_some_and(|section| !section.is_null());
    if let Some(store) = STORES.into_iter().find(|key| written(key)) {
        return Err(Error::value(
            store,
            "this cluster keeps its state there, and Matriarch keeps it in Kubernetes: leave this member to Patroni. To move the \
             data, make a new cluster with `standby_cluster:` that follows the old one, and promote it (docs/migrating-from-patroni.md)",
        ));
    }
    match ["citus", "mpp"].into_iter().find(|key| written(key)) {
        Some(section) => Err(Error::value(
            section,
            "Citus clusters have objects for each group, which Matriarch does not read: leave this member to Patroni",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_with_another_store_is_left_alone() {
        for section in ["etcd", "etcd3", "consul", "zookeeper", "exhibitor", "raft", "citus"] {
            let error = refuse(&json!({"scope": "a", "kubernetes": {}, section: {"host": "h"}})).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{section}: ")), "{error}");
            assert!(refuse(&json!({"scope": "a", section: null})).is_ok());
        }
        assert!(refuse(&json!({"scope": "a", "kubernetes": {"use_endpoints": true}})).is_ok());
    }
}
