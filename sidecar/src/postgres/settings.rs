//! What the edge reads of the configuration in force: how replicas are made.

use std::collections::BTreeMap;

use matriarch_ha::config::{Dynamic, boolean, methods, notes};
use serde_json::{Map, Value};

use crate::config::command;

/// Options of `pg_basebackup` that are ours.
const OURS: [&str; 16] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "compress",
    "dbname",
    "host",
    "port",
    "username",
    "password",
    "no-password",
    "slot",
    "create-slot",
    "write-recovery-conf",
];
/// Keys of a method's section that are no parameters of its command. (`no_leader` is one, as Patroni has it.)
const RESERVED: [&str; 8] =
    ["command", "no_params", "keep_data", "scope", "role", "datadir", "connstring", "no_master"];

/// Everything of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `create_replica_methods`, in their order.
    pub replica: Vec<Method>,
    /// The same for the standby leader: `standby_cluster.create_replica_methods`.
    pub standby_leader: Vec<Method>,
    /// `callbacks`, by their names, as words.
    pub callbacks: BTreeMap<String, Vec<String>>,
    /// Asked before every promotion; a code other than 0 forbids it.
    pub pre_promote: Option<Vec<String>>,
    /// Run before a stop in order.
    pub before_stop: Option<Vec<String>>,
    /// The cluster is paused.
    pub pause: bool,
    /// ttl in seconds.
    pub ttl_s: u32,
    /// loop_wait in milliseconds.
    pub loop_wait_ms: u64,
    /// restore_command and its kin.
    pub recovery: BTreeMap<String, String>,
    /// archive_command, where archive_mode is on.
    pub archive_command: Option<String>,
    /// The cluster follows another one: its leader need not be a primary.
    pub standby_cluster: bool,
    /// What of it cannot be used, in sentences.
    pub problems: Vec<String>,
    /// What of it is used otherwise than it is written.
    pub notes: Vec<String>,
}

/// One way to make a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// `pg_basebackup`, with more options.
    BaseBackup(Vec<String>),
    /// A command.
    Custom(Custom),
}

/// A command that makes a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    /// Its name in `create_replica_methods`.
    pub name: String,
    /// `command`, or the name.
    pub command: Vec<String>,
    /// The other keys as `--k=v`; none with `no_params`.
    pub parameters: Option<Vec<String>>,
    /// It takes what is in the data directory into account.
    pub keep_data: bool,
    /// It needs no leader.
    pub no_leader: bool,
}

impl Settings {
    /// Never fails: what cannot be read is said and left out.
    pub fn parse(effective: &Value) -> Self {
        let mut settings = Self::default();
        let nothing = Value::Null;
        let postgresql = effective.get("postgresql").unwrap_or(&nothing);
        settings.replica = settings.methods(postgresql.get("create_replica_methods"), postgresql);
        let dynamic = Dynamic::parse(effective);
        settings.notes = notes(effective);
        (settings.pause, settings.loop_wait_ms) = (dynamic.pause, dynamic.loop_wait_ms);
        settings.ttl_s = u32::try_from(dynamic.ttl_ms / 1000).unwrap_or(u32::MAX);
        settings.pre_promote = settings.command("pre_promote", postgresql.get("pre_promote"));
        settings.before_stop = settings.command("before_stop", postgresql.get("before_stop"));
        if let Some(Value::Object(callbacks)) = postgresql.get("callbacks") {
            for (name, line) in callbacks {
                if let Some(argv) = settings.command(&format!("callbacks.{name}"), Some(line)) {
                    settings.callbacks.insert(name.clone(), argv);
                }
            }
        }
        settings.standby_cluster = dynamic.standby_cluster.is_some();
        settings.recovery = dynamic.recovery;
        let archives = dynamic.parameters.get("archive_mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("off"));
        settings.archive_command =
            dynamic.parameters.get("archive_command").filter(|c| archives && !c.is_empty()).cloned();
        let standby = effective.get("standby_cluster").and_then(|section| section.get("create_replica_methods"));
        settings.standby_leader = settings.methods(standby, postgresql);
        settings
    }

    fn command(&mut self, key: &str, line: Option<&Value>) -> Option<Vec<String>> {
        let line = line.filter(|line| !line.is_null())?;
        match line.as_str().ok_or_else(|| format!("{line} is no command line")).and_then(command::split) {
            Ok(argv) => Some(argv),
            Err(why) => {
                self.problems.push(format!("postgresql.{key}: {why}"));
                None
            }
        }
    }

    fn methods(&mut self, names: Option<&Value>, postgresql: &Value) -> Vec<Method> {
        let mut names = methods(names);
        if names.is_empty() {
            names.push("basebackup".to_owned());
        }
        let mut all = Vec::new();
        for name in names {
            match method(&name, postgresql.get(&name).unwrap_or(&Value::Null)) {
                Ok(method) => all.push(method),
                Err(why) => self.problems.push(format!("postgresql.{name}: {why}")),
            }
        }
        all
    }
}

fn method(name: &str, section: &Value) -> Result<Method, String> {
    if name == "basebackup" {
        return Ok(Method::BaseBackup(command::options(section, &OURS)?));
    }
    let none = Map::new();
    let section = match section {
        Value::Object(section) => section,
        Value::Null => &none,
        other => return Err(format!("{other} is no section: write `command: …`")),
    };
    let flag = |key: &str| section.get(key).and_then(boolean).unwrap_or(false);
    Ok(Method::Custom(Custom {
        name: name.to_owned(),
        command: command::split(section.get("command").and_then(Value::as_str).unwrap_or(name))?,
        parameters: (!flag("no_params")).then(|| command::parameters(section, &RESERVED)),
        keep_data: flag("keep_data"),
        no_leader: flag("no_leader"),
    }))
}

impl Custom {
    /// The whole command line.
    pub fn argv(&self, scope: &str, data_dir: &str, connstring: &str) -> Vec<String> {
        let mut argv = self.command.clone();
        if let Some(parameters) = &self.parameters {
            argv.extend([
                format!("--scope={scope}"),
                "--role=replica".to_owned(),
                format!("--datadir={data_dir}"),
                format!("--connstring={connstring}"),
            ]);
            argv.extend(parameters.iter().cloned());
        }
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn methods_keep_their_order_and_their_options() {
        let settings = Settings::parse(&json!({
            "postgresql": {
                "create_replica_methods": ["wal_g", "basebackup", "broken"],
                "wal_g": {"command": "/bin/fetch it", "no_leader": 1, "threshold": 10},
                "basebackup": [{"max-rate": "100M"}, "verbose"],
                "broken": {"command": "'"},
                "bare": {"command": "/bin/bare", "no_params": true, "keep_data": "on", "x": 1},
            },
            "standby_cluster": {"create_replica_methods": ["bare"]},
        }));
        let [Method::Custom(wal_g), Method::BaseBackup(options)] = &settings.replica[..] else {
            panic!("{settings:?}")
        };
        assert_eq!(options, &["--max-rate=100M", "--verbose"]);
        assert!(wal_g.no_leader && !wal_g.keep_data);
        assert_eq!(
            wal_g.argv("s", "/d", "postgres://u@h:1/postgres"),
            [
                "/bin/fetch",
                "it",
                "--scope=s",
                "--role=replica",
                "--datadir=/d",
                "--connstring=postgres://u@h:1/postgres",
                "--no_leader=1",
                "--threshold=10"
            ]
        );
        let [Method::Custom(bare)] = &settings.standby_leader[..] else { panic!("{settings:?}") };
        assert!(bare.keep_data);
        assert_eq!(bare.argv("s", "/d", ""), ["/bin/bare"]);
        assert!(settings.problems[0].contains("postgresql.broken"), "{:?}", settings.problems);
    }

    #[test]
    fn callbacks_are_command_lines() {
        let settings = Settings::parse(&json!({"ttl": 20, "pause": true, "postgresql": {
            "callbacks": {"on_start": "/bin/cb 'a b'", "on_stop": null, "on_reload": "'"}, "pre_promote": "/bin/check"}}));
        assert_eq!(settings.callbacks["on_start"], ["/bin/cb", "a b"]);
        assert_eq!(settings.callbacks.len(), 1);
        assert_eq!(settings.pre_promote.unwrap(), ["/bin/check"]);
        assert!(settings.problems[0].contains("postgresql.callbacks.on_reload"), "{:?}", settings.problems);
        assert_eq!((settings.ttl_s, settings.pause), (20, true));
    }

    #[test]
    fn without_methods_there_is_pg_basebackup() {
        assert_eq!(Settings::parse(&json!({})).replica, [Method::BaseBackup(Vec::new())]);
        let bad = Settings::parse(&json!({"postgresql": {"basebackup": {"pgdata": "/x"}}}));
        assert!(bad.problems[0].contains("remove it"), "{:?}", bad.problems);
    }
}
