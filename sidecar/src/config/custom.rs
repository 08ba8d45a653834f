//! How a new cluster is made: `bootstrap.method` with its section, and `bootstrap.post_bootstrap`.

use std::collections::BTreeMap;

use matriarch_ha::config::{boolean, scalar};
use serde_json::{Map, Value};

use super::{Error, command};

/// Section `bootstrap`, but for `dcs` and `initdb`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// The command that makes the data directory instead of initdb.
    pub custom: Option<Custom>,
    /// Run once when the cluster is made, with the URL of the database as its last argument.
    pub post: Option<Vec<String>>,
}

/// A custom bootstrap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Custom {
    /// `bootstrap.method`
    pub name: String,
    /// Its `command`.
    pub command: Vec<String>,
    /// Its other keys as `--k=v`; none with `no_params`.
    pub parameters: Option<Vec<String>>,
    /// What the command wrote of recovery settings stays.
    pub keep_recovery: bool,
    /// No command: a base backup of this server.
    pub clone: Option<super::clone::CloneFrom>,
    /// Settings of the recovery that makes the cluster from the backup: a target, a restore_command.
    pub recovery: Option<BTreeMap<String, String>>,
}

/// Keys of a method's section that are no parameters of its command.
const RESERVED: [&str; 6] =
    ["command", "no_params", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir"];

impl Bootstrap {
    /// From the section's keys.
    pub fn parse(section: &Map<String, Value>) -> Result<Self, Error> {
        let error = |key: &str, message: String| Error::value(format!("bootstrap.{key}"), message);
        let text = |key: &str| section.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let post =
            match text("post_bootstrap").map(|t| ("post_bootstrap", t)).or(text("post_init").map(|t| ("post_init", t)))
            {
                Some((key, line)) => Some(command::split(line).map_err(|why| error(key, why))?),
                None => None,
            };
        let custom = match text("method") {
            None | Some("initdb") => None,
            Some(name) => {
                let missing =
                    || error(name, format!("is missing: `bootstrap.method: {name}` needs a section of that name"));
                let Some(Value::Object(method)) = section.get(name) else { return Err(missing()) };
                Some(Custom::parse(name, method).map_err(|why| error(&format!("{name}.command"), why))?)
            }
        };
        Ok(Self { custom, post })
    }
}

impl Custom {
    fn parse(name: &str, method: &Map<String, Value>) -> Result<Self, String> {
        let flag = |key: &str| method.get(key).and_then(boolean).unwrap_or(false);
        let line = method.get("command").and_then(Value::as_str).ok_or("is missing: write the command to run")?;
        let recovery = match method.get("recovery_conf") {
            Some(Value::Object(all)) => {
                Some(all.iter().filter_map(|(k, v)| Some((k.to_ascii_lowercase(), scalar(v)?))).collect())
            }
            _ => None,
        };
        Ok(Self {
            name: name.to_owned(),
            command: command::split(line)?,
            parameters: (!flag("no_params")).then(|| command::parameters(method, &RESERVED)),
            keep_recovery: flag("keep_existing_recovery_conf"),
            recovery,
            clone: None,
        })
    }

    /// The whole command line.
    pub fn argv(&self, scope: &str, data_dir: &str) -> Vec<String> {
        let mut argv = self.command.clone();
        if let Some(parameters) = &self.parameters {
            argv.extend([format!("--scope={scope}"), format!("--datadir={data_dir}")]);
            argv.extend(parameters.iter().cloned());
        }
        argv
    }

    /// PostgreSQL's recovery ends by a promotion: so it is told, or there is no target at which it could stop.
    pub fn promotes(&self) -> bool {
        const TARGETS: [&str; 5] = ["", "_time", "_xid", "_lsn", "_name"];
        let Some(recovery) = &self.recovery else { return false };
        let promoted = |action: &String| action.eq_ignore_ascii_case("promote");
        let aims = |target: &str| recovery.get(&format!("recovery_target{target}")).is_some_and(|at| !at.is_empty());
        recovery.get("recovery_target_action").is_some_and(promoted) || !TARGETS.into_iter().any(aims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(section: &Value) -> Result<Bootstrap, String> {
        Bootstrap::parse(section.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_method_has_its_own_section() {
        let section = json!({"method": "clone", "post_init": "/bin/setup 'a b'", "clone": {
            "command": "/bin/clone --fast", "host": "h", "port": 5433, "keep_existing_recovery_conf": false,
            "recovery_conf": {"Recovery_Target_Action": "promote", "recovery_target_inclusive": false}}});
        let bootstrap = parse(&section).unwrap();
        let custom = bootstrap.custom.unwrap();
        assert_eq!(
            custom.argv("orders", "/v/d"),
            ["/bin/clone", "--fast", "--scope=orders", "--datadir=/v/d", "--host=h", "--port=5433"]
        );
        assert!(custom.promotes() && !custom.keep_recovery);
        assert_eq!(custom.recovery.unwrap()["recovery_target_inclusive"], "off");
        assert_eq!(bootstrap.post.unwrap(), ["/bin/setup", "a b"]);
    }

    #[test]
    fn recovery_stops_only_at_a_target() {
        let promotes = |recovery: Value| {
            let section = json!({"method": "m", "m": {"command": "a", "recovery_conf": recovery}});
            parse(&section).unwrap().custom.unwrap().promotes()
        };
        assert!(promotes(json!({"restore_command": "false", "recovery_target_timeline": "latest"})));
        assert!(!promotes(json!({"recovery_target": "immediate"})) && !promotes(json!({"recovery_target_lsn": "0/1"})));
        assert!(promotes(json!({"recovery_target_time": "2026-01-01", "recovery_target_action": "promote"})));
    }

    #[test]
    fn without_parameters_the_command_is_as_written() {
        let section = json!({"method": "m", "m": {"command": "a b", "no_params": "on", "x": 1}});
        assert_eq!(parse(&section).unwrap().custom.unwrap().argv("s", "/d"), ["a", "b"]);
    }

    #[test]
    fn errors_say_what_to_write() {
        assert!(parse(&json!({"method": "m"})).unwrap_err().contains("needs a section of that name"));
        assert!(parse(&json!({"method": "m", "m": {}})).unwrap_err().contains("bootstrap.m.command"));
        assert!(parse(&json!({"post_init": "'"})).unwrap_err().contains("bootstrap.post_init"));
        assert_eq!(parse(&json!({"method": "initdb"})).unwrap(), Bootstrap::default());
    }
}
