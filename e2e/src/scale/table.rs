//! What was measured, as a table in Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Lines of what and how much.
#[derive(Debug, Clone)]
pub struct Table {
    clusters: usize,
    lines: Vec<(&'static str, String)>,
}

impl Table {
    /// An empty one.
    pub fn new(clusters: usize) -> Self {
        Self { clusters, lines: Vec::new() }
    }

    /// Adds a line, and prints it.
    pub fn add(&mut self, what: &'static str, value: impl Into<String>) {
        let value = value.into();
        eprintln!("    {what}: {value}");
        self.lines.push((what, value));
    }

    /// The table.
    pub fn text(&self) -> String {
        let width = self.lines.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
        let mut text = format!("| {:<width$} | {} clusters of 3 members |\n", "", self.clusters);
        let _ = writeln!(text, "|-{}-|---|", "-".repeat(width));
        for (what, value) in &self.lines {
            let _ = writeln!(text, "| {what:<width$} | {value} |");
        }
        text
    }

    /// Writes it to a file, under what it was measured with.
    pub fn write(&self, path: &Path) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let head = format!(
            "# One operator, many clusters\n\nMeasured by `matriarch-e2e scale`: {} clusters of three members on one API server, on one machine of \
             {cores} cores that runs etcd, the API server, the StatefulSet controller, the operator and a program that plays kubelets \
             and agents. The pods are objects only; the operator, its rights and its requests are the real ones.",
            self.clusters
        );
        std::fs::write(path, format!("{head}\n\n{}", self.text())).with_context(|| path.display().to_string())
    }
}
