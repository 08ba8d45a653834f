//! Server-side apply of YAML, as `kubectl apply --server-side` does it.

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use serde_json::Value;

use super::Cluster;

/// The field manager of everything that tests apply.
const MANAGER: &str = "matriarch-e2e";

/// Applies every document of `yaml`; objects without a namespace go to `namespace`.
pub async fn apply_yaml(client: &Client, namespace: &str, yaml: &str) -> Result<Vec<DynamicObject>> {
    let mut applied = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(yaml).context("unable to parse the YAML")? {
        if !document.is_null() {
            applied.push(apply_one(client, namespace, document).await?);
        }
    }
    Ok(applied)
}

async fn apply_one(client: &Client, namespace: &str, document: Value) -> Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(document).context("not a Kubernetes object")?;
    let (Some(types), Some(name)) = (object.types.clone(), object.metadata.name.clone()) else {
        bail!("an object needs apiVersion, kind and metadata.name")
    };
    let api = api_of(client, &types, object.metadata.namespace.as_deref().unwrap_or(namespace)).await?;
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object))
        .await
        .with_context(|| format!("unable to apply {} {name}", types.kind))
}

async fn api_of(client: &Client, types: &TypeMeta, namespace: &str) -> Result<Api<DynamicObject>> {
    let kind = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = pinned_kind(client, &kind)
        .await
        .with_context(|| format!("the API server does not know {} {}", types.api_version, types.kind))?;
    Ok(match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    })
}

impl Cluster {
    /// Applies every document of `yaml`; objects without a namespace go to `default`.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        self.apply_in("default", yaml).await
    }

    /// As [`apply`](Self::apply); objects without a namespace go to `namespace`.
    pub async fn apply_in(&self, namespace: &str, yaml: &str) -> Result<Vec<DynamicObject>> {
        apply_yaml(&self.client, namespace, yaml).await
    }

    /// The API of a kind that is known by name only; `namespace` is ignored for kinds that live in none.
    pub async fn api_of(&self, types: &TypeMeta, namespace: &str) -> Result<Api<DynamicObject>> {
        api_of(&self.client, types, namespace).await
    }
}
