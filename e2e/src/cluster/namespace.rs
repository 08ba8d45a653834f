//! A namespace of its own for each scenario: removed when the scenario succeeds, dumped when it fails.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};

use super::Cluster;
use super::exec::Output;
use crate::deps::cache::crate_folder;

/// A cluster and one namespace in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// The cluster.
    pub cluster: Cluster,
    /// The namespace's name.
    pub name: String,
}

impl Namespace {
    /// Applies YAML in the namespace.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        self.cluster.apply_in(&self.name, yaml).await
    }

    /// Runs a command in a container.
    pub async fn exec(&self, pod: &str, container: &str, argv: &[&str]) -> Result<Output> {
        self.cluster.exec(&self.name, pod, container, argv).await
    }

    /// An API of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// Waits until a pod is ready.
    pub async fn pod_ready(&self, pod: &str, deadline: Duration) -> Result<()> {
        let what = format!("pod {pod} is ready");
        self.cluster
            .wait(&what, deadline, async || {
                let status = self.cluster.pod(&self.name, pod).await?.status.unwrap_or_default();
                let conditions = status.conditions.clone().unwrap_or_default();
                if conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True") {
                    return Ok(None);
                }
                let reasons: Vec<String> = conditions.into_iter().filter_map(|one| one.message).collect();
                Ok(Some(format!("{}: {}", status.phase.unwrap_or_default(), reasons.join("; "))))
            })
            .await
    }
}

impl Cluster {
    /// Runs `scenario` in a fresh namespace of that name. On success the namespace goes and its volumes are wiped; on
    /// failure all is dumped to `target/e2e/<name>/` and left for a look until the next run.
    pub async fn with_namespace<T>(&self, name: &str, scenario: impl AsyncFnOnce(Namespace) -> Result<T>) -> Result<T> {
        self.delete_namespace(name).await?;
        self.recycle_volumes().await?;
        self.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
        let namespace = Namespace { cluster: self.clone(), name: name.to_owned() };
        self.wait(&format!("namespace {name} has its ServiceAccount"), Duration::from_secs(15), async || {
            let api: Api<k8s_openapi::api::core::v1::ServiceAccount> = namespace.api();
            Ok(api.get_opt("default").await?.is_none().then(|| "no default account".to_owned()))
        })
        .await?;
        let outcome = scenario(namespace).await;
        if outcome.is_ok() {
            self.delete_namespace(name).await?;
            self.recycle_volumes().await?;
            return outcome;
        }
        let folder = dump_folder(name);
        let dumped = self.dump(name, &folder).await;
        outcome.with_context(|| match dumped {
            Ok(()) => format!("scenario {name} failed; see {}", folder.display()),
            Err(error) => format!("scenario {name} failed, and so did the dump to {}: {error:#}", folder.display()),
        })
    }

    /// Deletes a namespace and waits until it is gone; fine when there is none.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client());
        let Some(object) = namespaces.get_opt(name).await? else { return Ok(()) };
        let same = Preconditions { uid: object.metadata.uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        namespaces.delete(name, &params).await.with_context(|| format!("unable to delete namespace {name}"))?;
        self.wait(&format!("namespace {name} is gone"), Duration::from_secs(90), async || {
            let Some(object) = namespaces.get_opt(name).await? else { return Ok(None) };
            let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
            let reasons: Vec<String> =
                conditions.into_iter().filter(|one| one.status == "True").filter_map(|one| one.message).collect();
            Ok(Some(reasons.join("; ")))
        })
        .await
    }
}

/// Where a scenario's dump goes.
pub fn dump_folder(name: &str) -> PathBuf {
    crate_folder().join("../target/e2e").join(name)
}
