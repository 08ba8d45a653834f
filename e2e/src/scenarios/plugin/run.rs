//! The real kubectl, which finds the plugin by its name in PATH.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::deps::cache::Cache;
use crate::scenarios::World;

/// What a call wrote, and how it ended.
#[derive(Debug)]
pub struct Said {
    line: String,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit code.
    pub code: i32,
}

impl Said {
    /// It ended so, and said all of this.
    pub fn is(self, code: i32, parts: &[&str]) -> Result<Self> {
        let all = format!("{}{}", self.out, self.err);
        ensure!(self.code == code, "`{}` ended with {} instead of {code}: {all}", self.line, self.code);
        for part in parts {
            ensure!(all.contains(part), "`{}` does not say {part:?}: {all}", self.line);
        }
        Ok(self)
    }
}

/// How kubectl is called.
pub struct Kubectl {
    path: String,
    kubeconfig: PathBuf,
    namespace: String,
    calls: AtomicU32,
}

impl Kubectl {
    /// With all rights, in the clusters' namespace.
    pub fn new(world: &World) -> Result<Self> {
        let bin = Cache::open()?.bin();
        let path = format!(
            "{}:{}:{}",
            world.images.binaries.display(),
            bin.display(),
            std::env::var("PATH").context("no PATH")?
        );
        let kubeconfig = world.cluster.layout().kubeconfig("admin");
        Ok(Self { path, kubeconfig, namespace: world.namespace.name.clone(), calls: AtomicU32::new(0) })
    }

    /// How often.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// `kubectl matriarch` with these words, nothing on standard input and no terminal.
    pub async fn run(&self, line: &str) -> Result<Said> {
        self.with_input(line, "").await
    }

    /// The same, with something on standard input. Words are split as a shell does.
    pub async fn with_input(&self, line: &str, input: &str) -> Result<Said> {
        let words = shlex::split(line).context("unbalanced quotes")?;
        let mut command = Command::new("kubectl");
        command.arg("matriarch").args(words);
        self.finish(command, line, input).await
    }

    /// The same on a terminal, made by script(1), with an editor.
    pub async fn on_a_terminal(&self, line: &str, editor: &str) -> Result<Said> {
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &format!("kubectl matriarch {line}"), "/dev/null"]);
        command.env("KUBE_EDITOR", editor).env("TERM", "xterm");
        self.finish(command, line, "").await
    }

    async fn finish(&self, mut command: Command, line: &str, input: &str) -> Result<Said> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let config = self.config()?;
        command.env("PATH", &self.path).env("KUBECONFIG", config);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (line, input) = (line.to_owned(), input.to_owned());
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().with_context(|| format!("unable to start {command:?}"))?;
            if let Some(mut pipe) = child.stdin.take() {
                std::io::Write::write_all(&mut pipe, input.as_bytes())?;
            }
            let output = child.wait_with_output()?;
            Ok(Said {
                line,
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
                code: output.status.code().unwrap_or(-1),
            })
        })
        .await?
    }

    /// A copy whose context names our namespace, as a user's does.
    fn config(&self) -> Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("matriarch-plugin-{}.yaml", std::process::id()));
        if !path.exists() {
            let text = std::fs::read_to_string(&self.kubeconfig)?;
            let mut config: serde_json::Value = serde_saphyr::from_str(&text)?;
            for one in config["contexts"].as_array_mut().into_iter().flatten() {
                one["context"]["namespace"] = serde_json::json!(self.namespace);
            }
            std::fs::write(&path, serde_json::to_string(&config)?)?;
        }
        Ok(path)
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ =
            std::fs::remove_file(std::env::temp_dir().join(format!("matriarch-plugin-{}.yaml", std::process::id())));
    }
}
