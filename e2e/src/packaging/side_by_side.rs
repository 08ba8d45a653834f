//! Two operators, each with its own namespaces; the second has no right in the cluster as a whole.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{Timestamp, ToSpan as _};

use super::helm::{self, chart};
use super::{Running, SHOP, Stage};
use crate::scenarios::Herd;

/// Namespace of the second operator, and of its clusters.
pub(super) const SYSTEM: &str = "second-system";
pub(super) const BANK: &str = "bank";
/// Nobody's namespace.
const ELSEWHERE: &str = "elsewhere";

/// The first is told its namespace, a second is installed; each cluster has its own operator, a third has none.
pub(super) async fn two(stage: &Stage, running: &Running) -> Result<()> {
    let chart = chart().display().to_string();
    let only = format!("watchNamespaces={{{SHOP}}}");
    stage.helm_release("upgrade", &chart, &["--set", &only]).await?;
    for name in [BANK, ELSEWHERE] {
        stage.namespace(name).await?;
    }
    install_second(stage, &chart).await?;
    nothing_cluster_wide(stage).await?;

    let since = Timestamp::now();
    stage.cluster.ensure_volumes(1).await?;
    let nobodys = Herd::create(stage.namespace(ELSEWHERE).await?, &stage.wanted("orders", 1)).await?;
    let own = Herd::create(stage.namespace(BANK).await?, &stage.wanted("accounts", 1)).await?;
    own.steady(Duration::from_mins(2)).await?;
    running.herd.steady(Duration::from_mins(2)).await?;
    let seen = nobodys.status().await?.observed_generation;
    ensure!(
        seen == Some(matriarch_crds::generated::NEVER_SEEN),
        "somebody took care of a cluster in a namespace of nobody's"
    );

    let counts = stage.cluster.api_requests(since, Timestamp::now() + 1.second())?;
    for (operator, system, watched) in [("matriarch-operator", super::SYSTEM, SHOP), ("second-operator", SYSTEM, BANK)]
    {
        let user = format!("system:serviceaccount:{system}:{operator}");
        let asked: Vec<_> = counts.keys().filter(|one| one.user == user).collect();
        ensure!(!asked.is_empty(), "{user} did nothing");
        let strays: Vec<_> = asked
            .into_iter()
            .filter(|one| ![watched, system].contains(&one.namespace.as_str()))
            // Which API groups there are, and what every operator asks of nodes where it may.
            .filter(|one| !one.namespace.is_empty() || one.is_write())
            .collect();
        ensure!(strays.is_empty(), "{user} left its namespaces: {strays:?}");
    }
    nobodys.delete().await?;
    own.delete().await?;
    stage.helm.run(&["uninstall", "second", "--namespace", SYSTEM, "--wait", "--timeout", "2m"]).await?;
    running.untouched().await
}

async fn install_second(stage: &Stage, chart: &str) -> Result<()> {
    let images = helm::images(&stage.images.operator.reference, &stage.images.sidecar.reference)?;
    let only = format!("watchNamespaces={{{BANK}}}");
    let mut words = vec!["install", "second", chart, "--namespace", SYSTEM, "--create-namespace"];
    words.extend(["--wait", "--timeout", "2m", "--set", "namespaced=true,crds.enabled=false", "--set", &only]);
    words.extend(images.iter().map(String::as_str));
    stage.helm.run(&words).await.map(drop)
}

async fn nothing_cluster_wide(stage: &Stage) -> Result<()> {
    let rbac = "rbac.authorization.k8s.io";
    for (group, kind) in [
        (rbac, "ClusterRole"),
        (rbac, "ClusterRoleBinding"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ] {
        let found = stage.labelled((group, "v1", kind), "app.kubernetes.io/instance=second").await?;
        ensure!(found.is_empty(), "the second release made a {kind}");
    }
    for right in ["list pods", "list secrets", "list postgresclusters.matriarch.dev"] {
        let mut words = vec!["auth", "can-i"];
        words.extend(right.split(' '));
        words.extend(["--all-namespaces", "--as", "system:serviceaccount:second-system:second-operator"]);
        // kubectl ends with 1 for a no.
        ensure!(stage.kubectl(&words).await.is_err(), "the second operator may {right} everywhere");
    }
    Ok(())
}
