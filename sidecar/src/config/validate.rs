//! `--validate-config`: everything that is wrong with a configuration, with file, line and key, and what to write instead.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use matriarch_ha::config::{methods, notes, sound};
use serde_json::{Value, json};

use super::locate::Lines;
use super::schema::{self, Known};
use super::{Config, Error, HostPort, source};
use crate::supervisor::launch::makeable;

/// One thing that is wrong, or odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which file, and where there.
    pub place: Option<(PathBuf, Option<u64>)>,
    /// The key in dots; empty: the file as a whole.
    pub key: String,
    /// What is wrong, and what to write.
    pub message: String,
    /// The agent would not start, or not do what is meant.
    pub grave: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((file, Some(line))) => write!(f, "{}:{line}: ", file.display())?,
            Some((file, None)) => write!(f, "{}: ", file.display())?,
            None => {}
        }
        let kind = if self.grave { "" } else { "warning: " };
        let separator = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{kind}{}{separator}{}", self.key, self.message)
    }
}

/// What is known of the files.
#[derive(Default)]
struct Files {
    files: Vec<(PathBuf, Lines)>,
    findings: Vec<Finding>,
}

/// All findings; without a path those of the environment alone.
pub fn check(path: Option<&Path>, ignore_listen_port: bool) -> Vec<Finding> {
    let mut all = Files::default();
    for file in path.map(|path| source::files(path).unwrap_or_default()).unwrap_or_default() {
        // What cannot be read is told below.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let lines = Lines::of(&text);
        if let Ok(document) = source::parse(&file, &text) {
            let custom = custom(&document);
            all.files.push((file, lines));
            all.walk("", &document, &custom);
        }
    }
    match Config::load(path) {
        Ok(config) => all.loaded(&config, ignore_listen_port),
        Err(Error::Value { key, message }) => all.find(&key, message, true),
        Err(error) => all.find("", error.to_string(), true),
    }
    all.findings
}

/// Sections that have their names from the file: bootstrap and replica methods.
fn custom(document: &Value) -> Vec<String> {
    let at = |pointer: &str| document.pointer(pointer);
    let mut custom: Vec<String> =
        at("/bootstrap/method").and_then(Value::as_str).map(|name| format!("bootstrap.{name}")).into_iter().collect();
    let lists = [
        "/postgresql/create_replica_methods",
        "/bootstrap/dcs/postgresql/create_replica_methods",
        "/bootstrap/dcs/standby_cluster/create_replica_methods",
    ];
    let named = lists.iter().flat_map(|list| methods(at(list)));
    // A section with a command is a method, whoever names it: the store may.
    let commands = ["/postgresql", "/bootstrap", "/bootstrap/dcs/postgresql"].iter().flat_map(|section| {
        let all = at(section).and_then(Value::as_object).into_iter().flatten();
        all.filter(|(_, value)| value.get("command").is_some()).map(|(name, _)| name.clone())
    });
    for name in named.chain(commands) {
        custom
            .extend(["bootstrap", "postgresql", "bootstrap.dcs.postgresql"].map(|section| format!("{section}.{name}")));
    }
    custom
}

impl Files {
    fn find(&mut self, key: &str, message: impl Into<String>, grave: bool) {
        let place = self.files.iter().rev().find_map(|(file, lines)| Some((file.clone(), Some(lines.of_key(key)?))));
        self.findings.push(Finding { place, key: key.to_owned(), message: message.into(), grave });
    }

    fn walk(&mut self, prefix: &str, value: &Value, custom: &[String]) {
        if let Value::Array(items) = value {
            items.iter().filter(|item| item.is_object()).for_each(|item| self.walk(prefix, item, custom));
            return;
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match schema::known(&key, custom) {
                Known::Open => {}
                Known::Yes => self.walk(&key, value, custom),
                Known::Ignored(why) => self.find(&key, format!("has no effect here: {why}"), false),
                Known::Cluster => self.find(
                    &key,
                    "is the cluster's, and has no effect here: write it below bootstrap.dcs, or use `patronictl edit-config`",
                    false,
                ),
                Known::No => match schema::nearest(&key) {
                    Some(right) => self.find(&key, format!("is no key: did you mean {right}?"), true),
                    None => self.find(&key, "is no key: it has no effect", false),
                },
            }
        }
    }

    fn loaded(&mut self, config: &Config, ignore_listen_port: bool) {
        for (prefix, document) in
            [("bootstrap.dcs.", config.bootstrap_dcs.clone()), ("", json!({"postgresql": config.local.clone()}))]
        {
            for problem in sound(&document, &Value::Null).1 {
                let (key, message) = problem.split_once(": ").unwrap_or(("", &problem));
                self.find(&format!("{prefix}{key}"), message, true);
            }
        }
        for note in notes(&config.bootstrap_dcs) {
            let (key, message) = note.split_once(' ').unwrap_or(("", &note));
            self.find(&format!("bootstrap.dcs.{key}"), message, false);
        }
        for warning in config.warnings() {
            match warning.split_once(": ").filter(|(key, _)| !key.contains(' ')) {
                Some((key, message)) => self.find(key, message, false),
                None => self.find("", warning, false),
            }
        }
        if config.own_supervisor
            && let Some(problem) = crate::supervisor::config_dir::problem(config)
        {
            self.find("postgresql.config_dir", problem, true);
        }
        if let Some(file) = &config.log.file
            && let Err((path, error)) = makeable(&file.dir)
        {
            let why = if error.kind() == io::ErrorKind::NotADirectory {
                format!("{} is no folder", path.display())
            } else {
                format!("{}: {error}", path.display())
            };
            self.find("log.dir", format!("{why}: the log would go to standard error"), false);
        }
        if ignore_listen_port {
            return;
        }
        if let Ok(listen) = HostPort::parse("restapi.listen", &config.restapi.listen) {
            self.listens("restapi.listen", &listen);
        }
        for host in config.postgres.listen_addresses.split(',') {
            let listen = HostPort { host: host.trim().to_owned(), port: config.postgres.port };
            self.listens("postgresql.listen", &listen);
        }
    }

    fn listens(&mut self, key: &str, listen: &HostPort) {
        let host = if listen.host == "*" { "0.0.0.0" } else { listen.host.trim_matches(['[', ']']) };
        let Err(error) = TcpListener::bind((host, listen.port)) else { return };
        let message = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "port {} is in use: write another one, or add --ignore-listen-port where this member runs already",
                listen.port
            ),
            std::io::ErrorKind::AddrNotAvailable => format!("{host} is no address of this machine"),
            _ => format!("{listen}: {error}"),
        };
        self.find(key, message, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("matriarch-validate-{}-{number}.yml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let name = path.display().to_string();
        let found = check(Some(&path), true).iter().map(|one| one.to_string().replace(&name, "p.yml")).collect();
        std::fs::remove_file(&path).unwrap();
        found
    }

    const GOOD: &str = "
scope: orders
name: orders-1
restapi:
  listen: 127.0.0.1:8009
bootstrap:
  dcs:
    ttl: 30
postgresql:
  listen: 127.0.0.1:5433
  data_dir: /nonexistent/orders1
  create_replica_methods: [wal_g, basebackup]
  wal_g: {command: /bin/fetch}
  authentication:
    superuser: {password: one}
    replication: {password: two}
";

    #[test]
    fn a_good_file_has_no_findings() {
        assert_eq!(findings(GOOD), Vec::<String>::new());
    }

    #[test]
    fn findings_name_file_line_and_key() {
        for (wrong, right, said) in [
            (
                "  listen: 127.0.0.1:5433",
                "  listn: 127.0.0.1:5433",
                "p.yml:10: postgresql.listn: is no key: did you mean listen?",
            ),
            (
                "    ttl: 30",
                "    ttl: soon",
                "p.yml:8: bootstrap.dcs.ttl: \"soon\" cannot be used: write a number of seconds",
            ),
            (
                "    ttl: 30",
                "    ttl: 10",
                "p.yml:8: warning: bootstrap.dcs.ttl: of 10 s is below Patroni's minimum of 20 s",
            ),
            ("  listen: 127.0.0.1:8009", "  listen: here", "p.yml:5: restapi.listen: \"here\" has no port"),
            (
                "name: orders-1",
                "name: orders-1\nsynchronous_mode: true",
                "p.yml:4: warning: synchronous_mode: is the cluster's",
            ),
            ("name: orders-1", "name: orders-1\netcd: {hosts: x}", "p.yml:4: warning: etcd: has no effect here"),
            ("name: orders-1", "name: orders-1\nlog: {level: LOUD}", "p.yml:4: log.level: \"LOUD\" is no level"),
            (
                "name: orders-1",
                "name: orders-1\nlog:\n  type: json\n  format:\n  - mesage: m",
                "p.yml:6: log.format: \"mesage\" is nothing that a line of the log has",
            ),
            (
                "  data_dir: /nonexistent/orders1",
                "  data_dir: /nonexistent/orders1\n  config_dir: /dev/null/etc",
                "p.yml:12: postgresql.config_dir: /dev/null cannot be used",
            ),
            (
                "  data_dir: /nonexistent/orders1",
                "  data_dir: /nonexistent/orders1\n  config_dir: /",
                "p.yml:12: postgresql.config_dir: / is no folder for one server's configuration",
            ),
            (
                "name: orders-1",
                "name: orders-1\nlog:\n  mode: 0600",
                "p.yml:5: warning: log.mode: has no effect without `dir`",
            ),
            (
                "name: orders-1",
                "name: orders-1\nlog:\n  dir: /dev/null/x",
                "p.yml:5: warning: log.dir: /dev/null is no folder: the log would go to standard error",
            ),
            ("name: orders-1", "name: [", "p.yml"),
        ] {
            let found = findings(&GOOD.replace(wrong, right));
            assert!(found.iter().any(|one| one.contains(said)), "{said}\nin {found:#?}");
        }
    }

    #[test]
    fn a_port_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut files = Files::default();
        files.listens(
            "restapi.listen",
            &HostPort { host: "127.0.0.1".into(), port: taken.local_addr().unwrap().port() },
        );
        files.listens("restapi.listen", &HostPort { host: "192.0.2.1".into(), port: 1 });
        let said: Vec<String> = files.findings.iter().map(ToString::to_string).collect();
        assert!(said[0].contains("is in use") && said[1].contains("no address of this machine"), "{said:?}");
    }
}
