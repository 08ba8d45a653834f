//! `synchronous_standby_names`, as far as we write it.

use serde::{Deserialize, Serialize};

/// The setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNames {
    /// Priority form `n (…)`, which is what Patroni writes in `synchronous_mode: on`; else `ANY n (…)`.
    pub first: bool,
    /// How many of `names` must have a commit.
    pub n: usize,
    /// Members, sorted; `*` alone: any standby.
    pub names: Vec<String>,
}

impl SyncNames {
    /// Any standby will do: strict mode before one is known.
    pub fn star(first: bool) -> Self {
        Self { first, n: 1, names: vec!["*".to_owned()] }
    }

    /// All of these must have each commit.
    pub fn all_of(names: Vec<String>) -> Self {
        Self { first: !names.is_empty(), n: names.len(), names }
    }

    /// Whoever streams is asked.
    pub fn is_star(&self) -> bool {
        self.names.len() == 1 && self.names[0] == "*"
    }

    /// For a reader of the setting: `ANY 1 ("a-0","a-1")`, `"a-0"`, `2 ("a-0","a-1")`, `*`, or empty.
    pub fn guc(&self) -> String {
        if self.n == 0 || self.names.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = if self.is_star() {
            self.names.clone()
        } else {
            self.names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect()
        };
        match (self.first, self.n) {
            (true, 1) if quoted.len() == 1 => quoted[0].clone(),
            (true, n) => format!("{n} ({})", quoted.join(",")),
            (false, n) => format!("ANY {n} ({})", quoted.join(",")),
        }
    }

    /// From the setting. One that we did not write is taken for one that waits for nobody, and is none of ours.
    pub fn parse(guc: &str) -> Self {
        let guc = guc.trim();
        if guc.is_empty() {
            return Self::default();
        }
        Self::ours(guc).unwrap_or_else(|| Self { first: false, n: 0, names: vec![guc.to_owned()] })
    }

    fn ours(guc: &str) -> Option<Self> {
        let (first, rest) = match guc.strip_prefix("ANY ") {
            Some(rest) => (false, rest),
            None => (true, guc),
        };
        let (n, list) = match rest.split_once(" (") {
            Some((n, list)) => (n.trim().parse().ok()?, list.strip_suffix(')')?),
            None if first => (1, rest),
            None => return None,
        };
        if list.trim() == "*" {
            return Some(Self { first, n, names: vec!["*".to_owned()] });
        }
        let names = list
            .split(',')
            .map(|name| name.trim().strip_prefix('"')?.strip_suffix('"').map(|n| n.replace("\"\"", "\"")))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { first, n, names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_read_as_it_is_written() {
        let two = vec!["a-0".to_owned(), "a-1".to_owned()];
        for (names, guc) in [
            (SyncNames::default(), ""),
            (SyncNames { first: false, n: 1, names: two.clone() }, r#"ANY 1 ("a-0","a-1")"#),
            (SyncNames::all_of(two.clone()), r#"2 ("a-0","a-1")"#),
            (SyncNames::all_of(two[..1].to_vec()), r#""a-0""#),
            (SyncNames::star(true), "*"),
            (SyncNames::star(false), "ANY 1 (*)"),
        ] {
            assert_eq!((names.guc().as_str(), SyncNames::parse(guc)), (guc, names));
        }
        let foreign = SyncNames::parse("FIRST 1 (x)");
        assert!(foreign.n == 0 && foreign != SyncNames::default());
    }
}
