//! The kinds of objects that the operator makes or looks at.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::{ApiResource, GroupVersionKind};

/// A kind of object that belongs to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1; the lock objects and the agent's configuration.
    ConfigMap,
    /// core/v1; the lock objects in Endpoints mode.
    Endpoints,
    /// discovery.k8s.io/v1; behind the primary's Service.
    EndpointSlice,
    /// networking.k8s.io/v1; who may connect to the members.
    NetworkPolicy,
    /// core/v1; the data volumes.
    PersistentVolumeClaim,
    /// core/v1; the members.
    Pod,
    /// monitoring.coreos.com/v1, the Prometheus operator's: not every Kubernetes knows it.
    PodMonitor,
    /// policy/v1.
    PodDisruptionBudget,
    /// rbac.authorization.k8s.io/v1; the agents' rights.
    Role,
    /// rbac.authorization.k8s.io/v1.
    RoleBinding,
    /// core/v1; credentials and certificates.
    Secret,
    /// core/v1.
    Service,
    /// core/v1; the agents'.
    ServiceAccount,
    /// apps/v1.
    StatefulSet,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::ConfigMap,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::PersistentVolumeClaim,
        Self::Pod,
        Self::PodMonitor,
        Self::PodDisruptionBudget,
        Self::Role,
        Self::RoleBinding,
        Self::Secret,
        Self::Service,
        Self::ServiceAccount,
        Self::StatefulSet,
    ];

    /// Whether a Kubernetes may do without: it is looked for once in a while.
    pub fn is_optional(self) -> bool {
        self == Self::PodMonitor
    }

    /// Group, version and names for the API.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Endpoints => ApiResource::erase::<Endpoints>(&()),
            Self::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::PodMonitor => {
                ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor"))
            }
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Role => ApiResource::erase::<Role>(&()),
            Self::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        }
    }
}
