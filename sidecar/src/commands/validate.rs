//! `--validate-config`: findings, one a line.

use std::io::Write;
use std::path::Path;

use crate::config::validate;

/// Prints all findings; fails if one of them is grave.
pub fn run(path: Option<&Path>, ignore_listen_port: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let findings = validate::check(path, ignore_listen_port);
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let grave = findings.iter().filter(|finding| finding.grave).count();
    if grave > 0 {
        anyhow::bail!("the configuration cannot be used: {grave} of {} findings must be mended", findings.len());
    }
    Ok(())
}
