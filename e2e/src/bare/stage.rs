//! What all scenarios share: the control plane, PostgreSQL, our programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::control_plane::ControlPlane;
use super::patroni::Patroni;
use super::postgres::Postgres;
use crate::deps::cache::Cache;

/// The stage.
pub struct Stage {
    /// Everything lies below it.
    pub root: PathBuf,
    /// etcd and the API server.
    pub plane: ControlPlane,
    /// Of the major under test.
    pub postgres: Postgres,
    /// Patroni itself.
    pub patroni: Patroni,
    /// The agent's program; the supervisor lies beside it.
    pub agent: PathBuf,
}

impl Stage {
    /// Prepares it. The programs are copied to where PostgreSQL's user can execute them.
    pub async fn prepare(root: &Path, binaries: &Path, major: &str) -> Result<Self> {
        let cache = Cache::open()?;
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin)?;
        for program in ["matriarch-sidecar", "matriarch-supervisor"] {
            std::fs::copy(binaries.join(program), bin.join(program))?;
        }
        let postgres = Postgres::find(root, &cache, major)?;
        let patroni = Patroni::find(root, &cache)?;
        let plane = ControlPlane::start(root, &cache).await?;
        Ok(Self { root: root.to_owned(), plane, postgres, patroni, agent: bin.join("matriarch-sidecar") })
    }

    /// The members' kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Creates an object in a namespace, or a namespace.
    pub async fn create(&self, namespace: &str, object: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.clone().context("no kind")?;
        let kind = GroupVersionKind::try_from(&types)?;
        let resource = ApiResource::from_gvk(&kind);
        let client = self.plane.client.clone();
        let api: Api<DynamicObject> = if types.kind == "Namespace" {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, namespace, &resource)
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("unable to create {} {name}", types.kind))?;
        Ok(())
    }
}
