//! `--validate-config`: findings, one a line.

use std::io::Write;
use std::path::Path;

use crate::config::{Config, validate};

/// Prints all findings; fails if one of them is grave. `print`: then the configuration as well, with the environment merged in.
pub fn run(path: Option<&Path>, ignore_listen_port: bool, print: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let findings = validate::check(path, ignore_listen_port);
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let grave = findings.iter().filter(|finding| finding.grave).count();
    if grave > 0 {
        anyhow::bail!("the configuration cannot be used: {grave} of {} findings must be mended", findings.len());
    }
    if print {
        write!(out, "{}", serde_saphyr::to_string(&Config::load(path)?.document)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_can_be_printed() {
        let path = std::env::temp_dir().join(format!("matriarch-print-{}.yml", std::process::id()));
        let run = |text: &str, print| {
            std::fs::write(&path, text).unwrap();
            let mut out = Vec::new();
            let done = run(Some(&path), true, print, &mut out);
            (done.is_ok(), String::from_utf8(out).unwrap())
        };
        assert_eq!(run(crate::commands::SAMPLE, false), (true, String::new()));
        let (good, printed) = run(crate::commands::SAMPLE, true);
        let document = crate::config::value::yaml(&printed).unwrap();
        assert!(good && document["scope"] == "orders" && document["log"]["type"] == "plain", "{printed}");
        let (good, printed) = run("scope: orders", true);
        assert!(!good && !printed.contains("scope: orders"), "{printed}");
        std::fs::remove_file(&path).unwrap();
    }
}
