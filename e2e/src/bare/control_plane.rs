//! etcd and the API server, and nothing else of Kubernetes: Pod objects are what somebody writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::sandbox::API;
use super::wait::until;
use crate::deps::cache::Cache;
use crate::host::child::Running;

/// The context of the members' kubeconfig; another one, which is current there, leads nowhere.
pub const CONTEXT: &str = "members";
/// The user of the members, who has Patroni's rights in the test's namespace.
const USER: &str = "member";
const READY: Duration = Duration::from_mins(1);

/// A running control plane. Dropped, the API server ends before its store.
pub struct ControlPlane {
    folder: PathBuf,
    cache: Cache,
    server: Mutex<Option<Running>>,
    _etcd: Running,
    /// As cluster administrator.
    pub client: kube::Client,
}

impl ControlPlane {
    /// Starts it and waits until it is ready.
    pub async fn start(root: &Path, cache: &Cache) -> Result<Self> {
        let folder = root.join("control-plane");
        fs::create_dir_all(&folder)?;
        certificates(&folder)?;
        fs::write(
            folder.join("tokens.csv"),
            format!("admin-token,admin,admin,\"system:masters\"\n{USER}-token,{USER},{USER}\n"),
        )?;
        fs::write(folder.join("admin.json"), kubeconfig(&folder, "admin", "admin-token")?)?;
        fs::write(folder.join("audit-policy.yaml"), AUDIT_POLICY)?;
        // Readable for the agents' user.
        fs::write(root.join("kubeconfig"), kubeconfig(&folder, USER, &format!("{USER}-token"))?)?;
        let etcd = spawn(&folder, "etcd", &etcd_command(&folder, cache))?;
        let kubeconfig = Kubeconfig::read_from(folder.join("admin.json"))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        let plane = Self { folder, cache: cache.clone(), server: Mutex::default(), _etcd: etcd, client };
        plane.start_api_server()?;
        plane.ready().await?;
        Ok(plane)
    }

    /// Starts the API server; fine when it runs.
    pub fn start_api_server(&self) -> Result<()> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_none() {
            *server = Some(spawn(&self.folder, "kube-apiserver", &api_command(&self.folder, &self.cache))?);
        }
        Ok(())
    }

    /// Kills the API server: calls under way end without an answer.
    pub fn stop_api_server(&self) {
        drop(self.server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Starts the controller that makes the pods of StatefulSets, and no other; dropping what it returns ends it.
    pub fn start_stateful_set_controller(&self) -> Result<Running> {
        let argv = vec![
            self.cache.program("kube-controller-manager"),
            format!("--kubeconfig={}", self.admin_kubeconfig().display()),
            "--controllers=statefulset-controller".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--kube-api-qps=1000".to_owned(),
            "--kube-api-burst=2000".to_owned(),
            "--concurrent-statefulset-syncs=10".to_owned(),
        ];
        spawn(&self.folder, "kube-controller-manager", &argv)
    }

    /// The cluster administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.json")
    }

    /// A kubeconfig of somebody who has a token.
    pub fn write_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        Ok(fs::write(path, kubeconfig(&self.folder, "token", token)?)?)
    }

    /// The API server's log of the operator's requests; of nobody else's.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Waits until it answers.
    pub async fn ready(&self) -> Result<()> {
        until("the API server is ready", READY, async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let answer = self.client.request_text(request).await?;
            Ok(if answer == "ok" { Ok(()) } else { Err(answer) })
        })
        .await
    }
}

fn spawn(folder: &Path, name: &str, argv: &[String]) -> Result<Running> {
    let (program, arguments) = argv.split_first().context("no program")?;
    Running::start(Command::new(program).args(arguments), &folder.join(format!("{name}.log")))
}

fn etcd_command(folder: &Path, cache: &Cache) -> Vec<String> {
    vec![
        cache.program("etcd"),
        format!("--data-dir={}", folder.join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_command(folder: &Path, cache: &Cache) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        cache.program("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={API}"),
        format!("--bind-address={API}"),
        "--secure-port=6443".to_owned(),
        "--service-cluster-ip-range=10.78.0.0/16".to_owned(),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--authorization-mode=RBAC".to_owned(),
        // Nobody makes the accounts that it would wait for.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--audit-policy-file={}", file("audit-policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
        "--profiling=false".to_owned(),
    ]
}

/// One line for each request of the operator, which only some tests start.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:matriarch-system:matriarch-operator"]
- level: None
"#;

fn certificates(folder: &Path) -> Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, "matriarch-e2e bare");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    fs::write(folder.join("ca.crt"), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    let mut server = CertificateParams::new(vec![API.to_string(), "kubernetes.default.svc".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    fs::write(folder.join("server.crt"), server.signed_by(&key, &issuer)?.pem())?;
    fs::write(folder.join("server.key"), key.serialize_pem())?;
    let accounts = KeyPair::generate()?;
    fs::write(folder.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
    Ok(())
}

fn kubeconfig(folder: &Path, user: &str, token: &str) -> Result<String> {
    let current = if user == USER { "elsewhere" } else { user };
    let context = if user == USER { CONTEXT } else { user };
    Ok(serde_json::to_string_pretty(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [
            {"name": "here", "cluster": {"server": format!("https://{API}:6443"), "certificate-authority": folder.join("ca.crt")}},
            {"name": "nowhere", "cluster": {"server": "https://10.77.0.99:6443"}},
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [
            {"name": context, "context": {"cluster": "here", "user": user}},
            {"name": "elsewhere", "context": {"cluster": "nowhere", "user": user}},
        ],
    }))?)
}

/// A namespace with Patroni's Role for the members.
pub fn namespace(name: &str) -> [serde_json::Value; 3] {
    let verbs = ["create", "get", "list", "patch", "update", "watch"];
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "patroni", "namespace": name},
            "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs},
                {"apiGroups": [""], "resources": ["endpoints"], "verbs": verbs},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update", "watch"]},
                // Endpoints with addresses of its own are written by those who may do so.
                {"apiGroups": [""], "resources": ["endpoints/restricted"], "verbs": ["create"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "patroni", "namespace": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patroni"},
            "subjects": [{"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}],
        }),
    ]
}
