//! docs/quick-start.md, word by word, in a clean cluster: what a new user does.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Stage;
use crate::deps::cache::{Cache, crate_folder};
use crate::host::run::run_command;

/// Runs every block of commands in order, in one shell, and checks what the page promises.
pub(super) async fn run(stage: &Stage) -> Result<()> {
    // The page uses the chart's own image names; here the images come from no registry.
    let version = env!("CARGO_PKG_VERSION");
    for (image, name) in [(&stage.images.operator, "operator"), (&stage.images.sidecar, "sidecar")] {
        stage.cluster.tag_image(&image.reference, &format!("matriarch.dev/{name}:{version}"))?;
    }
    stage.cluster.ensure_volumes(3).await?;
    let page = std::fs::read_to_string(crate_folder().join("../docs/quick-start.md"))?;
    let commands = blocks(&page);
    ensure!(commands.len() >= 5, "docs/quick-start.md has only {} blocks of commands", commands.len());
    let path = format!(
        "{}:{}:{}",
        Cache::open()?.bin().display(),
        stage.images.binaries.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &commands.join("\n")]);
    command.current_dir(crate_folder().parent().context("the crate lies in the workspace")?);
    command.env("PATH", path).env("KUBECONFIG", stage.cluster.layout().kubeconfig("admin"));
    for (name, value) in stage.helm.environment() {
        command.env(name, value);
    }
    let said = tokio::task::spawn_blocking(move || run_command(&mut command)).await??;
    for promised in ["orders-0", "Leader", "PostgreSQL 18", "postgresql://"] {
        ensure!(said.contains(promised), "the commands of docs/quick-start.md show no {promised:?}:\n{said}");
    }
    stage.cluster.recycle_volumes().await.map(drop)
}

/// What stands between ```sh and ```.
fn blocks(page: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match (&mut open, line.trim_end()) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => all.extend(open.take()),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_of_commands_are_run() {
        let page = "Do:\n```sh\na\nb\n```\nIt says:\n```\nnot this\n```\n```sh\nc\n```\n";
        assert_eq!(blocks(page), ["a\nb\n", "c\n"]);
    }
}
