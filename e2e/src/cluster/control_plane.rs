//! etcd, API server, controller manager, scheduler and DNS, in the fabric's network namespace. Processes, not pods: the
//! loss of a node leaves them alone, and the API server can be stopped and started as a fault.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::daemons;
use super::layout::{API_SERVICE, DNS_SERVICE, Layout, SERVICE_RANGE};
use crate::deps::cache::Cache;
use crate::host::process::Spec;

/// Starts etcd and the API server; the API server waits for etcd by itself.
pub fn start_store(layout: &Layout, cache: &Cache) -> Result<()> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    let address = layout.control_plane_address();
    start(
        layout,
        "etcd",
        vec![
            cache.program("etcd"),
            format!("--data-dir={}", layout.folder().join("etcd").display()),
            "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )?;
    let policy = layout.folder().join("audit-policy.yaml");
    fs::write(&policy, AUDIT_POLICY)?;
    start(
        layout,
        "apiserver",
        vec![
            cache.program("kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={address}"),
            "--bind-address=0.0.0.0".to_owned(),
            "--secure-port=6443".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Off by default, on in OpenShift: whoever sets an owner that blocks its deletion must hold the right to.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", layout.audit_log().display()),
            "--profiling=false".to_owned(),
        ],
    )
}

/// Starts what needs a ready API server. Without leader election neither gives up in an outage of the API.
pub fn start_controllers(layout: &Layout, cache: &Cache) -> Result<()> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    start(
        layout,
        "controller-manager",
        vec![
            cache.program("kube-controller-manager"),
            format!("--kubeconfig={}", layout.kubeconfig("controller-manager").display()),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", pki("service-accounts.key")),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--cluster-signing-cert-file={}", pki("ca.crt")),
            "--node-monitor-grace-period=20s".to_owned(), // the default of 50 s makes every test of a lost node wait
        ],
    )?;
    start(
        layout,
        "scheduler",
        vec![
            cache.program("kube-scheduler"),
            format!("--kubeconfig={}", layout.kubeconfig("scheduler").display()),
            "--leader-elect=false".to_owned(),
        ],
    )?;
    let corefile = layout.folder().join("Corefile");
    fs::write(&corefile, corefile_of(layout))?;
    start(
        layout,
        "coredns",
        vec![cache.program("coredns"), "-quiet".to_owned(), "-conf".to_owned(), corefile.display().to_string()],
    )
}

/// The Service of the cluster's DNS: no selector, its one endpoint is the process started above.
pub fn dns_service(layout: &Layout) -> String {
    let address = layout.control_plane_address();
    format!(
        r"
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {DNS_SERVICE}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns, endpointslice.kubernetes.io/managed-by: matriarch-e2e}}
addressType: IPv4
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
endpoints:
- {{addresses: [{address}], conditions: {{ready: true}}}}
"
    )
}

/// The address under which pods reach the API server; for faults that cut only that.
pub fn api_addresses(layout: &Layout) -> [String; 2] {
    [API_SERVICE.to_owned(), layout.control_plane_address().to_string()]
}

fn corefile_of(layout: &Layout) -> String {
    format!(
        ".:53 {{\n  bind {}\n  errors\n  kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    kubeconfig {}\n  }}\n}}\n",
        layout.control_plane_address(),
        layout.kubeconfig("coredns").display()
    )
}

fn start(layout: &Layout, name: &str, argv: Vec<String>) -> Result<()> {
    daemons::start(
        layout,
        Spec {
            name: name.to_owned(),
            argv,
            env: Vec::new(),
            netns: layout.fabric(),
            cgroup: layout.control_plane_cgroup(),
            log: log_of(layout, name),
        },
    )?;
    Ok(())
}

fn log_of(layout: &Layout, name: &str) -> std::path::PathBuf {
    Path::new(&layout.logs()).join(format!("{name}.log"))
}

/// One line for each finished request; watches also when they begin. Left out: what the cluster's own parts do all the
/// time and nobody counts.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver, system:kube-scheduler, system:kube-proxy, coredns]
- level: None
  userGroups: [system:nodes]
  verbs: [get, list, watch]
- level: None
  nonResourceURLs: ["*"]
- level: Metadata
"#;
