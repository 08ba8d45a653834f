//! What every test of the operator does with it, in a pod or as a process: install its manifests, borrow its rights.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use tokio::time::timeout;

use crate::cluster::apply_yaml;
use crate::host::run::run;

/// Its namespace.
pub const NAMESPACE: &str = "matriarch-system";
/// Name of its Deployment, ServiceAccount, roles and Lease.
pub const NAME: &str = "matriarch-operator";
/// As the audit log has it.
pub const USER: &str = "system:serviceaccount:matriarch-system:matriarch-operator";
/// How long a new kind may be unknown.
const KNOWN: Duration = Duration::from_secs(20);

/// Applies what `program manifests` prints for these images, and waits until PostgresCluster is a known kind.
pub async fn install(client: &Client, program: &Path, operator: &str, sidecar: &str) -> Result<()> {
    let program = program.display().to_string();
    let manifests = run(&[&program, "manifests", "--operator-image", operator, "--sidecar-image", sidecar])?;
    // Custom resource definitions are known a moment later; nothing of this list is of their kind.
    apply_yaml(client, "default", &manifests).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let known = await_condition(definitions, "postgresclusters.matriarch.dev", conditions::is_crd_established());
    timeout(KNOWN, known).await.context("PostgresCluster is not yet a known kind")??;
    Ok(())
}

/// A token of its ServiceAccount.
pub async fn token(client: &Client, lifetime: Duration) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let seconds = i64::try_from(lifetime.as_secs())?;
    let wanted = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(NAME, &PostParams::default(), &wanted).await?;
    Ok(answer.status.context("no token")?.token)
}
