//! Helm, as a user runs it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::deps::cache::{Cache, crate_folder};
use crate::host::run::run_command;

/// Helm for one cluster, with folders of its own.
#[derive(Debug, Clone)]
pub struct Helm {
    program: String,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// For a cluster.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        let layout = cluster.layout();
        let home = layout.folder().join("helm");
        std::fs::create_dir_all(&home)?;
        Ok(Self { program: Cache::open()?.program("helm"), kubeconfig: layout.kubeconfig("admin"), home })
    }

    /// Runs it.
    pub async fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(words).env("KUBECONFIG", &self.kubeconfig);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        tokio::task::spawn_blocking(move || run_command(&mut command)).await?
    }

    /// Its folders, so that nothing of the machine's user is read or written.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("HELM_CACHE_HOME", self.home.join("cache")),
            ("HELM_CONFIG_HOME", self.home.join("config")),
            ("HELM_DATA_HOME", self.home.join("data")),
        ]
    }
}

/// The chart in the work tree.
pub fn chart() -> PathBuf {
    crate_folder().join("../charts/matriarch")
}

/// A copy of the chart as an older release had it: its definition lacks the short name.
pub fn older_chart(cluster: &Cluster) -> Result<PathBuf> {
    let copy = cluster.layout().folder().join("older-chart");
    if copy.exists() {
        std::fs::remove_dir_all(&copy)?;
    }
    run_command(Command::new("cp").arg("-r").arg(chart()).arg(&copy))?;
    let file = copy.join("templates/crd.yaml");
    let text = std::fs::read_to_string(&file)?;
    let older = text.replacen("    shortNames:\n    - pgc\n", "", 1);
    anyhow::ensure!(older != text, "the definition has no short name pgc: choose something else to leave out");
    std::fs::write(&file, older).context("cannot write the older chart")?;
    Ok(copy)
}

/// `--set` of both images.
pub fn images(operator: &str, sidecar: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for (key, reference) in [("image", operator), ("sidecar.image", sidecar)] {
        let (repository, tag) = reference.rsplit_once(':').context("an image without a tag")?;
        // Tags may look like numbers.
        for (field, value) in [("repository", repository), ("tag", tag)] {
            words.extend(["--set-string".to_owned(), format!("{key}.{field}={value}")]);
        }
    }
    Ok(words)
}
