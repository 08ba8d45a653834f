//! The operator's process: installed with its shipped roles, started, looked at.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};

use crate::bare::{ControlPlane, until};
use crate::cluster::apply_yaml;
use crate::host::run::run;
use crate::scenarios::memory::{self, Memory};

/// Its namespace and the name of all of its objects.
const NAMESPACE: &str = "matriarch-system";
const NAME: &str = "matriarch-operator";
/// As the audit log has it.
pub const USER: &str = "system:serviceaccount:matriarch-system:matriarch-operator";

/// What is needed to start it.
pub struct Operator {
    program: PathBuf,
    kubeconfig: PathBuf,
    log: PathBuf,
}

/// A running one; dropping it kills it.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors say that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Operator {
    /// Applies what `matriarch-operator manifests` prints. Nobody makes a pod of its Deployment.
    pub async fn install(plane: &ControlPlane, root: &Path, binaries: &Path) -> Result<Self> {
        let program = binaries.join("matriarch-operator");
        let text = program.display().to_string();
        let manifests = run(&[&text, "manifests", "--operator-image", "operator:1", "--sidecar-image", "sidecar:1"])?;
        apply_yaml(&plane.client, "default", &manifests).await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(plane.client.clone());
        until("PostgresCluster is a known kind", Duration::from_secs(20), async || {
            let object = definitions.get("postgresclusters.matriarch.dev").await?;
            let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
            let known = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
            Ok(if known { Ok(()) } else { Err("not established".to_owned()) })
        })
        .await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(plane.client.clone(), NAMESPACE);
        let wanted = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(7_200), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(NAME, &PostParams::default(), &wanted).await?;
        let kubeconfig = root.join("operator.json");
        plane.write_kubeconfig(&kubeconfig, &answer.status.context("no token")?.token)?;
        Ok(Self { program, kubeconfig, log: root.join("operator.log") })
    }

    /// Starts it, with what it is shipped with: one worker thread a core, log level info.
    pub fn start(&self) -> Result<Running> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args([
                "run",
                "--sidecar-image",
                "sidecar:1",
                "--lease-namespace",
                NAMESPACE,
                "--identity",
                "scale",
                "--listen",
                "127.0.0.1:0",
            ])
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("unable to start the operator")?;
        Ok(Running(child))
    }

    /// The end of its log, for a failure.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Running {
    /// Its memory now.
    pub fn memory(&self) -> Result<Memory> {
        memory::read(self.0.id())
    }

    /// The processor time that it has used, in hundredths of a second.
    pub fn ticks(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let (_, rest) = text.rsplit_once(") ").context("an unexpected /proc/PID/stat")?;
        let field = |n: usize| rest.split(' ').nth(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        Ok(field(11) + field(12))
    }
}
