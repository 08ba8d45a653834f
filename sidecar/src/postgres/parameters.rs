//! Parameters that PostgreSQL would not start with are left out of its configuration, and said so.
//!
//! The judge is PostgreSQL itself: `postgres -C` reads a candidate file as a start would, and names every line that it does
//! not like. That happens before the server's own file is touched, and only when the parameters have changed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::conf::{Place, controlled};
use super::{Error, tool};
use crate::supervisor::Supervisor;

/// Candidates that are tried; each leaves out all that the former was refused for.
const TRIES: usize = 8;

/// The last answer.
#[derive(Default)]
pub struct Checked {
    last: Mutex<Last>,
}

#[derive(Default, Clone)]
struct Last {
    asked: Option<BTreeMap<String, String>>,
    invalid: BTreeMap<String, String>,
}

impl Checked {
    /// What was left out, and why.
    pub fn invalid(&self) -> BTreeMap<String, String> {
        self.last().invalid.clone()
    }

    /// Everything is to be asked again.
    pub fn forget(&self) {
        self.last().asked = None;
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `wanted` without what PostgreSQL refuses.
    pub async fn check(
        &self,
        supervisor: &Supervisor,
        place: &Place,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Error> {
        let last = self.last().clone();
        let invalid = if last.asked.as_ref() == Some(wanted) {
            last.invalid
        } else {
            let invalid = ask(supervisor, place, wanted).await?;
            *self.last() = Last { asked: Some(wanted.clone()), invalid: invalid.clone() };
            invalid
        };
        Ok(wanted
            .iter()
            .filter(|(name, _)| !invalid.contains_key(*name))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect())
    }
}

async fn ask(
    supervisor: &Supervisor,
    place: &Place,
    wanted: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut invalid = BTreeMap::new();
    let mut rest: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in wanted {
        if controlled(name) {
            continue;
        }
        if is_name(name) {
            rest.insert(name.clone(), value.clone());
        } else {
            invalid.insert(name.clone(), format!("{name:?} is no name of a parameter: remove it"));
        }
    }
    let path = place.candidate();
    for _ in 0..TRIES {
        supervisor.write(path.clone(), super::conf::lines(&rest), 0o600).await?;
        let arguments = [
            "-C".to_owned(),
            "data_directory".to_owned(),
            "-D".to_owned(),
            place.data_dir.to_string_lossy().into_owned(),
            "-c".to_owned(),
            format!("config_file={}", path.display()),
        ];
        let finished = supervisor.run(tool("postgres", arguments.to_vec())).await?;
        if finished.success() {
            break;
        }
        let refused: Vec<(String, String)> = complaints(&finished.output.stderr)
            .into_iter()
            .filter_map(|(name, why)| {
                let name = rest.keys().find(|key| key.eq_ignore_ascii_case(&name))?.clone();
                Some((name, why))
            })
            .collect();
        if refused.is_empty() {
            // Not for one of ours (a broken postgresql.auto.conf, say): the start itself will tell.
            tracing::warn!("the parameters cannot be checked: {}", finished.reason());
            break;
        }
        for (name, why) in refused {
            let sentence =
                format!("PostgreSQL refuses {name} = {:?}: {why}", rest.get(&name).map_or("", String::as_str));
            tracing::warn!(parameter = %name, "{sentence}");
            rest.remove(&name);
            invalid.insert(name, sentence);
        }
    }
    Ok(invalid)
}

/// What the lexer of postgresql.conf takes as a name; anything else would be another line.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    // `include` and its kin are no parameters, and would read any file.
    name.len() < 64
        && !name.to_ascii_lowercase().starts_with("include")
        && name.split('.').count() <= 2
        && name.split('.').all(part)
}

/// Parameters that a log names, with the sentence: `… LOG:  unrecognized configuration parameter "x" in file …`.
fn complaints(log: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in log.lines() {
        let text = |line: &str| line.split_once(":  ").map_or(line, |(_, text)| text).trim().to_owned();
        if line.contains("HINT:  ") || line.contains("DETAIL:  ") {
            if let Some((_, why)) = found.last_mut() {
                why.push_str("; ");
                why.push_str(&text(line));
            }
            continue;
        }
        let Some((_, rest)) = line.split_once("parameter \"") else { continue };
        let Some((name, _)) = rest.split_once('"') else { continue };
        let mut why = text(line);
        if let Some(at) = why.find(" in file \"") {
            why.truncate(at);
        }
        if !found.iter().any(|(other, _)| other == name) {
            found.push((name.to_owned(), why));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_in_the_log() {
        let log = "\
2024-01-01 00:00:00.000 UTC [1] LOG:  unrecognized configuration parameter \"foo\" in file \"/v/c.conf\" line 1
2024-01-01 00:00:00.000 UTC [1] LOG:  invalid value for parameter \"work_mem\": \"lots\"
2024-01-01 00:00:00.000 UTC [1] HINT:  Valid units for this parameter are \"B\", \"kB\".
2024-01-01 00:00:00.000 UTC [1] FATAL:  configuration file \"/v/c.conf\" contains errors
";
        assert_eq!(
            complaints(log),
            [
                ("foo".to_owned(), "unrecognized configuration parameter \"foo\"".to_owned()),
                (
                    "work_mem".to_owned(),
                    "invalid value for parameter \"work_mem\": \"lots\"; Valid units for this parameter are \"B\", \"kB\"."
                        .to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_name_is_no_other_line() {
        assert!(is_name("work_mem") && is_name("pg_stat_statements.max"));
        assert!(!is_name("a = 1\nb") && !is_name("include") && !is_name("include_dir"));
        assert!(!is_name("") && !is_name("1a") && !is_name("a b") && !is_name("a.b.c"));
    }
}
