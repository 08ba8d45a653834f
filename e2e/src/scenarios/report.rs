//! What came of the scenarios, as a table.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::workload::Verdict;

/// So much of a failure goes into the table; all of it is printed when it happens.
const FAILURE: usize = 300;

/// One scenario's line.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The scenario.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// What the checker said, if there was a workload.
    pub verdict: Option<Verdict>,
    /// The gap that we aim at.
    pub aim: Option<Duration>,
    /// Why it failed; none if it passed.
    pub failure: Option<String>,
    /// It was not run, for this reason.
    pub skipped: Option<String>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// All lines so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One for each scenario, in order.
    pub rows: Vec<Row>,
}

impl Row {
    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn cells(&self) -> [String; 8] {
        let number = |of: &dyn Fn(&Verdict) -> String| self.verdict.as_ref().map(of).unwrap_or_default();
        let gap = number(&|verdict| format!("{:.2}", verdict.gap_length().as_secs_f64()));
        let aim = self.aim.map(|aim| format!("{:.1}", aim.as_secs_f64())).unwrap_or_default();
        let mut notes = self.notes.clone();
        if let Some(verdict) = self.verdict.as_ref().filter(|verdict| verdict.behind_the_back > 0) {
            notes.push(format!("{} unacknowledged at the old primary afterwards", verdict.behind_the_back));
        }
        if let Some(verdict) = &self.verdict {
            notes.extend(verdict.overlaps.iter().map(ToString::to_string));
        }
        notes.extend(self.skipped.iter().map(|why| format!("skipped: {why}")));
        if let Some(failure) = &self.failure {
            let short: String = failure.chars().take(FAILURE).collect();
            notes.insert(0, format!("FAILED: {short}"));
        }
        [
            self.name.clone(),
            gap,
            aim,
            number(&|verdict| verdict.acknowledged.to_string()),
            number(&|verdict| verdict.lost.len().to_string()),
            number(&|verdict| {
                let total: Duration = verdict.overlaps.iter().map(|one| one.length).sum();
                format!("{:.2}", total.as_secs_f64())
            }),
            format!("{:.0}", self.took.as_secs_f64()),
            notes.join("; ").replace(['|', '\n'], " "),
        ]
    }

    /// One line for the terminal.
    pub fn line(&self) -> String {
        let [name, gap, aim, acked, lost, overlap, took, notes] = self.cells();
        let word = match (&self.failure, &self.skipped) {
            (Some(_), _) => "FAILED",
            (None, Some(_)) => "skipped",
            (None, None) => "passed",
        };
        let mut line = format!("{word} {name} ({took} s)");
        if self.verdict.is_some() {
            let aim = if aim.is_empty() { aim } else { format!(" (aim {aim} s)") };
            let _ = write!(line, ": gap {gap} s{aim}, {acked} acknowledged, lost={lost}, overlap {overlap} s");
        }
        if notes.is_empty() { line } else { format!("{line}; {notes}") }
    }
}

impl Report {
    /// A table in Markdown, and a closing line.
    pub fn text(&self) -> String {
        let header = ["scenario", "gap s", "aim s", "acked", "lost", "overlap s", "took s", "notes"].map(str::to_owned);
        let lines: Vec<[String; 8]> = std::iter::once(header).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..7).map(width).collect();
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(text, "| {cell:<width$} ");
            }
            let _ = writeln!(text, "| {} |", line[7]);
            if number == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
                let _ = writeln!(text, "|{}|---|", rule.join("|"));
            }
        }
        let _ = writeln!(text, "\n{} passed, {} failed", self.passed(), self.failed());
        text
    }

    /// How many passed.
    pub fn passed(&self) -> usize {
        self.rows.iter().filter(|row| row.failure.is_none() && row.skipped.is_none()).count()
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.failure.is_some()).count()
    }

    /// Prints the table, writes it where that is wanted, and tells whether nothing failed.
    pub fn conclude(&self, path: Option<&Path>, head: &str, begin: Instant) -> Result<bool> {
        println!("\n{}", self.text());
        if let Some(path) = path {
            self.write(path, head)?;
        }
        eprintln!("all of it took {:.0} s", begin.elapsed().as_secs_f32());
        Ok(self.failed() == 0)
    }

    /// Writes the table to a file, under what it was measured with.
    pub fn write(&self, path: &Path, head: &str) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, format!("{head}\n\n{}", self.text())).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_the_counts_on_a_line_of_their_own() {
        let fine = Row { name: "a".into(), verdict: Some(Verdict::default()), ..Row::default() };
        let bad = Row { name: "long-name".into(), failure: Some("two\nlines | bar".into()), ..Row::default() };
        let skipped = Row { name: "c".into(), skipped: Some("one node".into()), ..Row::default() };
        let report = Report { rows: vec![fine, bad, skipped] };
        let text = report.text();
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed"));
        assert!(text.contains("| a         | 0.00  |"), "{text}");
        assert!(text.contains("FAILED: two lines   bar"), "{text}");
        assert!(report.rows[2].line().starts_with("skipped c (0 s)"));
    }
}
