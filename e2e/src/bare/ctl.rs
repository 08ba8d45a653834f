//! `patronictl` as a person runs it: with a configuration of its own, by its output.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::member::PASSWORD;
use super::patroni::Patroni;
use super::stage::Stage;
use super::team::Team;

/// One person's `patronictl`.
#[derive(Debug)]
pub struct Ctl {
    patroni: Patroni,
    config: PathBuf,
    kubeconfig: PathBuf,
}

/// What it said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// On stdout.
    pub out: String,
    /// On stderr.
    pub err: String,
}

impl Ctl {
    /// For a team. `login` is the REST API's user and password.
    pub fn new(stage: &Stage, team: &Team<'_>, login: Option<(&str, &str)>) -> Result<Self> {
        let mut kubernetes = team.plan.patroni(&team.members[0])["kubernetes"].clone();
        kubernetes["context"] = json!("admin");
        let mut config = json!({"scope": team.plan.name, "kubernetes": kubernetes});
        if let Some((username, password)) = login {
            config["ctl"] = json!({"authentication": {"username": username, "password": password}});
        }
        let who = login.map_or_else(|| "nobody".to_owned(), |(user, password)| format!("{user}-{}", password.len()));
        let path = team.folder().join(format!("patronictl-{who}.yml"));
        std::fs::write(&path, serde_saphyr::to_string(&config)?)?;
        let kubeconfig = stage.root.join("control-plane/admin.json");
        Ok(Self { patroni: stage.patroni.clone(), config: path, kubeconfig })
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Said> {
        self.run_with_input(arguments, "").await
    }

    /// Runs a command and types `input`.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut command = self.patroni.patronictl();
        command.env("KUBECONFIG", &self.kubeconfig).env("PGPASSWORD", PASSWORD).env("HOME", "/nonexistent");
        command.arg("-c").arg(&self.config).args(arguments);
        let input = input.to_owned();
        let said = tokio::task::spawn_blocking(move || talk(command, &input)).await??;
        eprintln!("    patronictl {}: {}", arguments.join(" "), said.line());
        Ok(said)
    }

    /// Runs a command that has to work.
    pub async fn done(&self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments).await?;
        ensure!(said.code == Some(0) && !said.failed(), "patronictl {arguments:?} said {said:?}");
        Ok(said.out)
    }

    /// Runs a command that has to say this, wherever.
    pub async fn says(&self, arguments: &[&str], what: &str) -> Result<Said> {
        let said = self.run(arguments).await?;
        ensure!(said.has(what), "patronictl {arguments:?} does not say {what:?}: {said:?}");
        Ok(said)
    }

    /// Runs a command that patronictl itself refuses, with this among its words.
    pub async fn refuses(&self, arguments: &[&str], what: &str) -> Result<()> {
        let said = self.says(arguments, what).await?;
        ensure!(said.code == Some(1) && said.err.starts_with("Error: "), "patronictl {arguments:?} said {said:?}");
        Ok(())
    }

    /// `list` as JSON: each member's row by its name.
    pub async fn list(&self) -> Result<BTreeMap<String, Value>> {
        let text = self.done(&["list", "--format", "json"]).await?;
        let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        rows.into_iter()
            .map(|row| Ok((row["Member"].as_str().context("a row without a member")?.to_owned(), row)))
            .collect()
    }
}

impl Said {
    /// It says this on either channel.
    pub fn has(&self, what: &str) -> bool {
        self.out.contains(what) || self.err.contains(what)
    }

    /// patronictl often exits with 0 when what it asked for was refused.
    fn failed(&self) -> bool {
        self.out.lines().any(|line| line.starts_with("Failed: ") || line.contains(" failed, details: "))
            || self.has("Traceback")
    }

    /// The last line, for the log of the test.
    fn line(&self) -> String {
        let last = |text: &str| text.trim_end().lines().last().unwrap_or_default().to_owned();
        format!("{:?} {} {}", self.code.unwrap_or(-1), last(&self.out), last(&self.err))
    }
}

/// Runs a program that is told `input`.
pub fn talk(mut command: Command, input: &str) -> Result<Said> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("unable to start patronictl")?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// The cells of a table that is drawn with lines, its header first.
pub fn drawn(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The row of a member in a drawn table, by column; lags go by the column before them.
pub fn drawn_row(text: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let mut rows = drawn(text).into_iter();
    let header = rows.next().with_context(|| format!("no table: {text}"))?;
    let Some(row) = rows.find(|row| row.first().is_some_and(|cell| cell.trim_start_matches(['+', ' ']) == name)) else {
        bail!("no row of {name}: {text}");
    };
    let mut before = String::new();
    let mut named = BTreeMap::new();
    for (column, cell) in header.into_iter().zip(row) {
        let column = if column == "Lag" { before.replace("LSN", "Lag") } else { column };
        before.clone_from(&column);
        named.insert(column, cell);
    }
    Ok(named)
}
