//! Section `kubernetes`: where the cluster's objects are and how they are labelled.

use std::collections::BTreeMap;

use matriarch_crds::names;
use serde::Deserialize;

use super::value;

/// Section `kubernetes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    /// Where the objects are.
    pub namespace: Option<String>,
    /// Labels of every object of the cluster, without the scope label.
    pub labels: BTreeMap<String, String>,
    /// Label with the cluster's name.
    pub scope_label: String,
    /// Label of pods with their role.
    pub role_label: String,
    /// Value of the role label on the leader.
    pub leader_label_value: String,
    /// Value of the role label on the leader of a standby cluster.
    pub standby_leader_label_value: String,
    /// Value of the role label on running standbys.
    pub follower_label_value: String,
    /// Labels of a pod whose member makes the cluster or its copy.
    pub bootstrap_labels: BTreeMap<String, String>,
    /// A second label with the role, in Patroni's words whatever values the first one has.
    pub tmp_role_label: Option<String>,
    /// The lock lies in Endpoints, not in ConfigMaps.
    #[serde(deserialize_with = "value::flag")]
    pub use_endpoints: bool,
    /// Our address in the Endpoints.
    pub pod_ip: Option<String>,
    /// Ports of the Endpoints and the EndpointSlice.
    pub ports: Vec<Port>,
    /// Context of the kubeconfig, outside of a cluster; none: its current one.
    pub context: Option<String>,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            namespace: None,
            labels: BTreeMap::from([(names::APPLICATION_LABEL.to_owned(), names::APPLICATION.to_owned())]),
            scope_label: names::SCOPE_LABEL.to_owned(),
            role_label: names::ROLE_LABEL.to_owned(),
            leader_label_value: names::ROLE_PRIMARY.to_owned(),
            standby_leader_label_value: names::ROLE_PRIMARY.to_owned(),
            follower_label_value: names::ROLE_REPLICA.to_owned(),
            bootstrap_labels: BTreeMap::new(),
            tmp_role_label: None,
            use_endpoints: false,
            pod_ip: None,
            ports: Vec::new(),
            context: None,
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Its name, as in the Service.
    #[serde(default)]
    pub name: Option<String>,
    /// Its number.
    #[serde(default = "default_port")]
    pub port: u16,
    /// TCP unless said otherwise.
    #[serde(default)]
    pub protocol: Option<String>,
}

fn default_port() -> u16 {
    names::POSTGRES_PORT
}
