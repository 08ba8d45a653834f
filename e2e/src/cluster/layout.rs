//! Names, addresses and folders of a cluster: everything else asks here, so that `down` knows all that `up` makes.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::process::{read_record, write_record};

/// All clusters of this machine have a folder here.
pub const STATE: &str = "/var/lib/matriarch-e2e";
/// The virtual address of the API server inside the cluster.
pub const API_SERVICE: &str = "10.96.0.1";
/// The virtual address of the cluster's DNS.
pub const DNS_SERVICE: &str = "10.96.0.10";
/// Virtual addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Addresses of pods; node n has 10.88.n.0/24. Two clusters may use the same, for they share no namespace.
pub const POD_RANGE: &str = "10.88.0.0/16";

/// What a cluster is; stored as `cluster.json` before anything is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layout {
    /// The cluster's name.
    pub name: String,
    /// A small number of its own: picks the subnet 10.89.INDEX.0/24.
    pub index: u8,
    /// How many nodes.
    pub nodes: u8,
    /// How many volumes of `volume_mib` each node has from the start.
    pub volumes: u16,
    /// The size of a volume.
    pub volume_mib: u32,
}

impl Layout {
    /// Reads what `up` stored.
    pub fn load(name: &str) -> Result<Self> {
        check_name(name)?;
        read_record(&folder_of(name).join("cluster.json"))
            .with_context(|| format!("there is no cluster {name:?}: `matriarch-e2e cluster up --name {name}`"))
    }

    /// Stores it.
    pub fn save(&self) -> Result<()> {
        std::fs::create_dir_all(self.folder())?;
        write_record(&self.folder().join("cluster.json"), self)
    }

    /// The folder of everything that the cluster keeps on disk.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.name)
    }

    /// Where processes' output goes.
    pub fn logs(&self) -> PathBuf {
        self.folder().join("logs")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.folder().join("pki")
    }

    /// The kubeconfig of a user: `admin`, `kubelet-node-1` …
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder().join(format!("{user}.kubeconfig"))
    }

    /// The API server's log of requests.
    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    /// The cgroup above all of the cluster's processes.
    pub fn cgroup(&self) -> PathBuf {
        cgroup_of(&self.name)
    }

    /// The cgroup of the control plane.
    pub fn control_plane_cgroup(&self) -> PathBuf {
        self.cgroup().join("control-plane")
    }

    /// The network namespace of the control plane, whose bridge joins the nodes.
    pub fn fabric(&self) -> String {
        format!("{}fabric", netns_prefix(&self.name))
    }

    /// The host's end of the cable to the fabric; at most 15 characters.
    pub fn host_link(&self) -> String {
        format!("mte2e-{}", self.index)
    }

    /// The address of API server, etcd and DNS.
    pub fn control_plane_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, self.index, 1)
    }

    /// The host's address in the cluster's network.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, self.index, 254)
    }

    /// The API server as host and nodes reach it.
    pub fn api_url(&self) -> String {
        format!("https://{}:6443", self.control_plane_address())
    }

    /// All nodes.
    pub fn all_nodes(&self) -> Vec<Node> {
        (1..=self.nodes).map(|number| self.node(number)).collect()
    }

    /// One node, by its number from 1.
    pub fn node(&self, number: u8) -> Node {
        Node {
            name: format!("node-{number}"),
            number,
            netns: format!("{}{number}", netns_prefix(&self.name)),
            address: Ipv4Addr::new(10, 89, self.index, 10 + number),
            pods: format!("10.88.{number}.0/24"),
            port: format!("port-{number}"),
            folder: self.folder().join(format!("node-{number}")),
            cgroup: self.cgroup().join(format!("node-{number}")),
        }
    }

    /// One node, by its name.
    pub fn node_named(&self, name: &str) -> Result<Node> {
        self.all_nodes().into_iter().find(|node| node.name == name).with_context(|| format!("no node {name:?}"))
    }
}

/// A node's names, addresses and folders.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node-1`.
    pub name: String,
    /// From 1.
    pub number: u8,
    /// Its network namespace.
    pub netns: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its pods' subnet.
    pub pods: String,
    /// The fabric's end of its cable.
    pub port: String,
    /// What it keeps on disk.
    pub folder: PathBuf,
    /// Above its daemons (`system`) and pods (`kubepods`).
    pub cgroup: PathBuf,
}

impl Node {
    /// The cgroup of containerd, kubelet and kube-proxy.
    pub fn system_cgroup(&self) -> PathBuf {
        self.cgroup.join("system")
    }

    /// containerd's root, state and configuration.
    pub fn containerd(&self) -> PathBuf {
        self.folder.join("containerd")
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.containerd().join("containerd.sock")
    }

    /// Where its volumes are mounted.
    pub fn volumes(&self) -> PathBuf {
        self.folder.join("volumes")
    }
}

/// The machine's settings before the first cluster.
pub fn sysctls() -> PathBuf {
    Path::new(STATE).join(".sysctls.json")
}

/// The folder of a cluster, whether or not it exists.
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(STATE).join(name)
}

/// The cgroup of a cluster, whether or not it exists.
pub fn cgroup_of(name: &str) -> PathBuf {
    Path::new("matriarch-e2e").join(name)
}

/// What the names of a cluster's network namespaces begin with. The dot keeps `a` apart from `a-b`.
pub fn netns_prefix(name: &str) -> String {
    format!("matriarch-{name}.")
}

/// Names become parts of paths, cgroups and interface names.
pub fn check_name(name: &str) -> Result<()> {
    let fine = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !fine || name.is_empty() || name.len() > 20 {
        bail!("a cluster's name has 1 to 20 of a-z, 0-9 and '-': {name:?} is none");
    }
    Ok(())
}

/// The names of all clusters that have a folder.
pub fn existing() -> Vec<String> {
    let entries = std::fs::read_dir(STATE).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The smallest index that no other cluster uses.
pub fn free_index() -> Result<u8> {
    let used: Vec<u8> = existing().iter().filter_map(|name| Layout::load(name).ok()).map(|other| other.index).collect();
    (0..=250).find(|index| !used.contains(index)).context("250 clusters are enough")
}
