//! How clients and other machines reach the members.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Services for clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// `<name>`: the primary.
    #[serde(default)]
    pub primary: ServiceTemplate,
    /// `<name>-ro`: the standbys.
    #[serde(default)]
    pub read_only: ServiceTemplate,
}

/// How one Service is.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.loadBalancerClass) || self.type == 'LoadBalancer'")
        .message("loadBalancerClass is for Services of the type LoadBalancer: write type: LoadBalancer beside it"),
    validation = Rule::new("!has(self.loadBalancerSourceRanges) || self.type == 'LoadBalancer'")
        .message("loadBalancerSourceRanges are for Services of the type LoadBalancer: write type: LoadBalancer beside it"),
    validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'")
        .message("nodePort is for Services of the types NodePort and LoadBalancer: write type: NodePort beside it"),
    validation = Rule::new("!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'")
        .message("externalTrafficPolicy is for Services of the types NodePort and LoadBalancer: write type: LoadBalancer beside it")
)]
pub struct ServiceTemplate {
    /// Its type.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Labels. Those that Matriarch sets stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub labels: BTreeMap<String, String>,
    /// Annotations, e.g. for a cloud's load balancer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub annotations: BTreeMap<String, String>,
    /// Which load balancer makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// Networks that may use the load balancer. All when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 49)))]
    #[x_kube(validation = Rule::new("self.all(range, isCIDR(range))")
        .message("loadBalancerSourceRanges must be networks: write e.g. loadBalancerSourceRanges: [10.0.0.0/8]"))]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether nodes without the pod pass connections on (`Cluster`) or not (`Local`, which keeps clients' addresses).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// The port on every node. Chosen by Kubernetes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 65535").message("nodePort must be a port in the range of the Kubernetes cluster, usually 30000 to 32767: write e.g. nodePort: 30432"))]
    pub node_port: Option<i32>,
}

/// Type of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Inside of the Kubernetes cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// A port on every node.
    NodePort,
    /// A load balancer of the cloud.
    LoadBalancer,
}

impl ServiceType {
    /// Kubernetes' own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Where connections from outside may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// On any node.
    Cluster,
    /// On the node that they came to.
    Local,
}

impl TrafficPolicy {
    /// Kubernetes' own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// TLS of `PostgreSQL`. It is always on; the certificate is issued by the operator and renewed without a restart.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.caSecret) || has(self.secret)")
        .message("tls.caSecret goes with a certificate of your own: write tls.secret beside it")
)]
pub struct Tls {
    /// A Secret with `tls.crt` and `tls.key` for connections of clients, and `ca.crt` if clients have certificates. Issued
    /// by Matriarch when absent. A renewed certificate is loaded without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,

    /// Another Secret for `ca.crt`: the authority of clients' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret: Option<String>,

    /// More names that the certificate is good for, e.g. of a load balancer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 253)))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^([*][.])?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$'))")
        .message("tls.extraNames must be DNS names: write e.g. extraNames: [orders.example.com]"))]
    pub extra_names: Vec<String>,
}

/// A `NetworkPolicy` for the members' pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether it is made.
    #[serde(default)]
    pub enabled: bool,
    /// Who may connect to `PostgreSQL`. Everybody when empty; members always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub from: Vec<NetworkPolicyPeer>,
}

/// What is made for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Whether a `PodMonitor` is made; it needs the Prometheus operator's CRDs.
    #[serde(default)]
    pub pod_monitor: bool,
    /// Labels of the `PodMonitor`, by which a Prometheus finds it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub labels: BTreeMap<String, String>,
}
