//! What all scenarios share: the control plane, PostgreSQL, our programs.

use std::path::{Path, PathBuf};

use anyhow::Result;

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
}
