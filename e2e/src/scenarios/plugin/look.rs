//! Commands that change nothing.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use serde_json::Value;

use super::Stage;

/// Each of them.
pub async fn all(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let leader = stage.herd.lock().await?.leader;
    kubectl.run("version --client").await?.is(0, &["kubectl matriarch"])?;
    kubectl.run(&format!("version {name}")).await?.is(0, &["Kubernetes v1.", &leader, "sidecar"])?;
    kubectl.run("version nowhere").await?.is(3, &["there is no PostgresCluster nowhere"])?;

    for format in ["pretty", "wide", "json", "yaml", "tsv"] {
        kubectl.run(&format!("list {name} -o {format}")).await?.is(0, &[&leader, "Leader", "streaming"])?;
    }
    kubectl.run("list -A -o name").await?.is(0, &[&format!("postgrescluster.matriarch.dev/{name}")])?;
    kubectl.run("list -l team=nobody").await?.is(3, &["with the labels team=nobody"])?;
    kubectl.run("list ordres").await?.is(3, &["did you mean orders?"])?;

    kubectl.run(&format!("status {name} --exit-code")).await?.is(0, &["OK", "3/3 ready", &leader, "ttl 10 s"])?;
    let said = kubectl.run(&format!("status {name} -o json")).await?.is(0, &[])?;
    let status: Value = serde_json::from_str(&said.out)?;
    ensure!(status["positions"] == "now", "the leader's agent was not asked: {}", status["positions"]);
    let lags = status["members"].as_array().context("no members")?.iter().filter(|m| m["lag"].is_i64()).count();
    ensure!(lags == 2, "{lags} of 2 standbys have a lag: {status}");
    ensure!(!said.out.contains('\u{1b}'), "there is colour in a pipe");
    kubectl.run("status nowhere").await?.is(3, &["there is no PostgresCluster"])?;
    let terminal = kubectl.on_a_terminal(&format!("status {name}"), "").await?.is(0, &[&leader])?;
    ensure!(terminal.out.contains('\u{1b}'), "there is no colour on a terminal: {terminal:?}");

    kubectl.run("topology").await?.is(0, &[&leader, "+ "])?;
    kubectl.run("topology nowhere").await?.is(3, &[])?;
    kubectl.run(&format!("watch {name} --count 1")).await?.is(0, &["UTC", &leader])?;
    kubectl.run("watch nowhere --count 1").await?.is(3, &[])?;
    kubectl.run(&format!("history {name}")).await?.is(0, &[])?;
    kubectl.run("history nowhere").await?.is(3, &[])?;
    kubectl.run(&format!("show-config {name}")).await?.is(0, &["ttl: 10", "synchronous_mode: quorum"])?;
    kubectl.run("show-config nowhere").await?.is(3, &[])?;
    for shell in ["bash", "zsh", "fish", "kubectl"] {
        kubectl.run(&format!("completion {shell}")).await?.is(0, &["kubectl-matriarch"])?;
    }
    kubectl.run("completion csh").await?.is(2, &["bash"])?;
    kubectl.run("__complete status ''").await?.is(0, &[name, ":4"])?;
    kubectl.run(&format!("__complete restart {name} ''")).await?.is(0, &[&leader, ":4"])?;
    logs(stage, &leader).await?;
    psql(stage).await
}

async fn logs(stage: &Stage<'_>, leader: &str) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let agent = format!("{leader} agent: ");
    kubectl.run(&format!("logs {name} --tail 50")).await?.is(0, &[&agent, &format!("{leader} postgres: ")])?;
    let all = kubectl.run(&format!("logs {name} --all -c agent --tail 3")).await?.is(0, &[&agent])?;
    for member in stage.herd.members().await? {
        ensure!(all.out.contains(&format!("{} agent: ", member.name)), "nothing of {}: {}", member.name, all.out);
    }
    kubectl.run(&format!("logs {name} {name}-9")).await?.is(3, &["has no member"]).map(drop)
}

async fn psql(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let asked = "SELECT current_user, pg_is_in_recovery()";
    kubectl.run(&format!("psql {name} -- -Atc '{asked}'")).await?.is(0, &["postgres|f"])?;
    kubectl.run(&format!("psql {name} --replica -- -Atc '{asked}'")).await?.is(0, &["postgres|t"])?;
    kubectl.run(&format!("psql {name} -U app -- -Atc '{asked}'")).await?.is(0, &["app|f"])?;
    kubectl.with_input(&format!("psql {name} -- -At"), "SELECT 6 * 7;\n").await?.is(0, &["42"])?;
    kubectl.run(&format!("psql {name} -- -c 'SELECT nothing'")).await?.is(1, &["does not exist"])?;
    kubectl.run(&format!("psql {name} --member {name}-9")).await?.is(3, &["has no member"])?;
    let leader = stage.herd.lock().await?.leader;
    let left = stage.herd.namespace.exec(&leader, "postgres", &["sh", "-c", "ls -A /tmp"]).await?.success()?;
    ensure!(!left.contains("psql"), "psql left something behind: {left}");
    Ok(())
}

/// The tar file has what support needs, and no secret.
pub async fn report(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let file = std::env::temp_dir().join(format!("matriarch-report-{}.tar", std::process::id()));
    kubectl.run(&format!("report {name} -f {}", file.display())).await?.is(0, &[".tar"])?;
    let tar = std::fs::read(&file)?;
    std::fs::remove_file(&file)?;
    let mut archive = tar::Archive::new(tar.as_slice());
    let paths: Vec<String> =
        archive.entries()?.map(|entry| Ok(entry?.path()?.display().to_string())).collect::<Result<_>>()?;
    let leader = stage.herd.lock().await?.leader;
    for wanted in [
        "status.txt".to_owned(),
        "events.json".to_owned(),
        "objects/pods.json".to_owned(),
        "objects/secrets-names-only.json".to_owned(),
        format!("logs/{leader}/agent.log"),
        format!("members/{leader}/snapshot.json"),
        "operator/deployments.json".to_owned(),
    ] {
        ensure!(paths.iter().any(|path| path.ends_with(&wanted)), "{wanted} is not among {paths:?}");
    }
    ensure!(!paths.iter().any(|path| path.ends_with("missing.txt")), "parts of the report are missing");
    let text = String::from_utf8_lossy(&tar);
    let secrets = stage.herd.namespace.api::<Secret>().list(&ListParams::default()).await?;
    for secret in secrets {
        for (key, value) in secret.data.unwrap_or_default() {
            let value = String::from_utf8_lossy(&value.0).into_owned();
            let public = ["username", "dbname", "database", "host", "port", "type", "provider", "tls.crt", "ca.crt"]
                .contains(&key.as_str());
            ensure!(public || value.len() < 6 || !text.contains(&value), "the report has {key} of a Secret");
        }
    }
    kubectl.run("report nowhere").await?.is(3, &[]).map(drop)
}
