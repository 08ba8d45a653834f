//! What Argo CD and Flux do all day: apply the same again, and add labels and annotations of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use matriarch_crds::names::SCOPE_LABEL;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{A_MINUTE, SHOP, Stage};
use crate::scenarios::Herd;

/// What others write on everything.
const FOREIGN: [(&str, &str); 2] =
    [("argocd.argoproj.io/instance", "shop"), ("kustomize.toolkit.fluxcd.io/name", "shop")];

/// Applying the manifest again, and marks of others, change nothing that the operator owns, and it leaves the marks alone.
pub(super) async fn nothing_drifts(stage: &Stage, herd: &Herd) -> Result<()> {
    let manifest = herd.manifest(&stage.wanted("orders", 2));
    herd.apply(&manifest).await?;
    let first = herd.resource().await?.resource_version();
    herd.apply(&manifest).await?;
    ensure!(herd.resource().await?.resource_version() == first, "applying the same again changed the PostgresCluster");

    mark::<Service>(herd).await?;
    mark::<StatefulSet>(herd).await?;
    mark::<Secret>(herd).await?;
    mark::<ServiceAccount>(herd).await?;
    mark::<PodDisruptionBudget>(herd).await?;
    mark::<Role>(herd).await?;
    mark::<RoleBinding>(herd).await?;
    let marked = all(herd).await?;
    // The operator looks at everything anew, and has a reason to write: an annotation of the cluster, and a parameter.
    let annotate = json!({"metadata": {"annotations": {(FOREIGN[0].0): FOREIGN[0].1}}});
    herd.api().patch(herd.name(), &PatchParams::default(), &Patch::Merge(annotate)).await?;
    herd.patch(&json!({"postgresql": {"parameters": {"log_min_duration_statement": "5s"}}})).await?;
    let generation = herd.resource().await?.metadata.generation;
    stage
        .cluster
        .wait("the operator has seen the change", A_MINUTE, async || {
            let seen = herd.status().await?.observed_generation;
            Ok((seen != generation).then(|| format!("{seen:?} of {generation:?}")))
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let now = all(herd).await?;
    ensure!(
        marked == now,
        "the operator wrote what had not changed, or took marks of others away:\n{marked:?}\n{now:?}"
    );
    herd.steady(A_MINUTE).await
}

/// Helm 4 waits by kstatus, the same library as Flux: an installation is done when the cluster is ready, not before.
pub(super) async fn ready_for_kstatus(stage: &Stage) -> Result<()> {
    let chart = stage.cluster.layout().folder().join("wiki-chart");
    std::fs::create_dir_all(chart.join("templates"))?;
    std::fs::write(chart.join("Chart.yaml"), "{apiVersion: v2, name: wiki, version: 0.1.0}\n")?;
    stage.cluster.ensure_volumes(1).await?;
    let wanted = stage.wanted("wiki", 1);
    let herd = Herd::new(stage.namespace(SHOP).await?, &wanted);
    std::fs::write(chart.join("templates/cluster.yaml"), herd.manifest(&wanted))?;
    let chart = chart.display().to_string();
    stage.helm.run(&["install", "wiki", &chart, "--namespace", SHOP, "--wait", "--timeout", "2m"]).await?;
    let ready = herd.status().await?.conditions.into_iter().find(|one| one.type_ == "Ready");
    ensure!(
        ready.as_ref().is_some_and(|one| one.status == "True"),
        "kstatus took the cluster for done while its condition Ready was {ready:?}"
    );
    stage.helm.run(&["uninstall", "wiki", "--namespace", SHOP, "--wait", "--timeout", "2m"]).await?;
    herd.delete().await
}

async fn mark<K>(herd: &Herd) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = herd.namespace.api();
    let marks: BTreeMap<&str, &str> = FOREIGN.into();
    let patch = json!({"metadata": {"labels": marks, "annotations": marks}});
    for object in api.list(&ListParams::default().labels(&format!("{SCOPE_LABEL}={}", herd.name()))).await? {
        api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

/// Kind and name, to generation or version and the marks.
async fn all(herd: &Herd) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    collect::<Service>(herd, &mut found).await?;
    collect::<StatefulSet>(herd, &mut found).await?;
    collect::<Secret>(herd, &mut found).await?;
    collect::<ServiceAccount>(herd, &mut found).await?;
    collect::<PodDisruptionBudget>(herd, &mut found).await?;
    collect::<Role>(herd, &mut found).await?;
    collect::<RoleBinding>(herd, &mut found).await?;
    ensure!(found.len() >= 10, "only {found:?}");
    Ok(found)
}

async fn collect<K>(herd: &Herd, into: &mut BTreeMap<String, String>) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = herd.namespace.api();
    for object in api.list(&ListParams::default().labels(&format!("{SCOPE_LABEL}={}", herd.name()))).await? {
        // Controllers of Kubernetes write the status of sets and budgets, which counts as a version.
        let version = object.meta().generation.map_or_else(|| object.resource_version(), |n| Some(n.to_string()));
        let marks: Vec<bool> = FOREIGN
            .iter()
            .map(|(key, value)| {
                let both = [object.labels(), object.annotations()];
                both.iter().all(|map| map.get(*key).map(String::as_str) == Some(*value))
            })
            .collect();
        into.insert(
            format!("{} {}", K::kind(&K::DynamicType::default()), object.name_any()),
            format!("{version:?} {marks:?}"),
        );
    }
    Ok(())
}
