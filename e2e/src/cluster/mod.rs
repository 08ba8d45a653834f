//! A real Kubernetes of one or more nodes on this machine, and what a test does with it.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use matriarch_e2e::cluster::{Cluster, Options};
//! let cluster = Cluster::up(&Options { name: "mine".into(), nodes: 2, ..Options::default() }).await?;
//! cluster.with_namespace("first-look", async |ns| ns.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}").await).await?;
//! Cluster::down("mine")?;
//! # Ok(()) }
//! ```

mod apply;
mod audit;
mod certs;
mod control_plane;
mod csi;
mod daemons;
mod down;
mod dump;
mod exec;
mod faults;
mod images;
mod layout;
mod namespace;
mod network;
mod node;
mod pods;
mod up;
mod volumes;
mod wait;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use apply::apply_yaml;
pub use audit::{Access, Request, RequestCounts, read as read_audit_log};
pub use csi::GROWING;
pub use down::leftovers;
pub use exec::Output;
pub use layout::{Layout, Node, existing};
pub use namespace::{Namespace, dump_folder};
pub use up::{Options, is_ready};

/// A running cluster. Dropping it leaves the cluster up.
#[derive(Clone)]
pub struct Cluster {
    layout: Layout,
    client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes a new cluster and waits until pods can run on all of its nodes.
    pub async fn up(options: &Options) -> Result<Self> {
        up::up(options).await
    }

    /// A cluster that is up.
    pub async fn attach(name: &str) -> Result<Self> {
        let layout = Layout::load(name)?;
        let kubeconfig = Kubeconfig::read_from(layout.kubeconfig("admin"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { layout, client: Client::try_from(config).context("unable to make a client")? })
    }

    /// The cluster if it is up, else a new one: for scenarios that can share one.
    pub async fn attach_or_up(options: &Options) -> Result<Self> {
        match Self::attach(&options.name).await {
            Ok(cluster) => Ok(cluster),
            Err(_) => Self::up(options).await,
        }
    }

    /// Removes all of a cluster, also of one that crashed; fine when there is none.
    pub fn down(name: &str) -> Result<()> {
        crate::deps::require_root()?;
        down::down(name)
    }

    /// Its names, addresses and folders.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}
