//! Volumes.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The data volume of each member.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClass) == has(oldSelf.storageClass) && (!has(self.storageClass) || self.storageClass == oldSelf.storageClass)")
        .message("storage.storageClass cannot change, for Kubernetes cannot move a volume between classes: keep it as it was, or make a new cluster with the other class and copy the data")
)]
pub struct Storage {
    /// Size of the volume, e.g. `20Gi`. It may grow if the storage class allows it, and never shrinks.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
        .message("storage.size must be a quantity above zero: write e.g. size: 20Gi"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
        .message("storage.size cannot shrink, for Kubernetes cannot shrink a volume: write the former size or a larger one"))]
    pub size: String,

    /// Storage class of the volumes. The default class of the Kubernetes cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class: Option<String>,
}
