//! Section `log`: Patroni's keys, as far as they mean something here.

use std::path::PathBuf;

use serde_json::Value;

use super::Error;
use super::value::text;

/// Patroni's default of `log.file_size`.
const FILE_SIZE: u64 = 25_000_000;
/// Patroni's default of `log.file_num`.
const FILE_NUM: usize = 4;
/// Keys that are Python's, or have no counterpart: taken, and of no effect.
const IGNORED: [&str; 7] = [
    "traceback_level",
    "format",
    "dateformat",
    "static_fields",
    "max_queue_size",
    "mode",
    "deduplicate_heartbeat_logs",
];

/// Section `log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// In tracing's words; none: not configured.
    pub level: Option<String>,
    /// Levels of single parts.
    pub loggers: Vec<(String, String)>,
    /// One JSON object a line; none: not configured.
    pub json: Option<bool>,
    /// Where `patroni.log` is written instead of to standard error.
    pub file: Option<LogFile>,
    /// Keys that are written and have no effect.
    pub ignored: Vec<String>,
}

/// A file that is rotated by size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The folder.
    pub dir: PathBuf,
    /// Bytes after which another one is begun.
    pub size: u64,
    /// How many old ones are kept.
    pub number: usize,
}

impl Log {
    /// From the section.
    pub fn parse(section: &Value) -> Result<Self, Error> {
        let get = |key: &str| section.get(key).filter(|value| !value.is_null());
        let number = |key: &str, default: u64| match get(key) {
            None => Ok(default),
            Some(value) => text(value)
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| Error::value(format!("log.{key}"), format!("{value} is no number: write {default}"))),
        };
        let json = match get("type").and_then(text).as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("json") => Some(true),
            Some("plain") => Some(false),
            Some(other) => return Err(Error::value("log.type", format!("{other:?} is none: write plain or json"))),
        };
        let loggers = match get("loggers") {
            None => Vec::new(),
            Some(Value::Object(all)) => all
                .iter()
                .map(|(name, value)| Ok((name.replace('.', "::"), level(&format!("log.loggers.{name}"), value)?)))
                .collect::<Result<_, Error>>()?,
            Some(other) => {
                return Err(Error::value("log.loggers", format!("{other} is no mapping: write {{name: LEVEL}}")));
            }
        };
        let dir = get("dir").and_then(text).filter(|dir| !dir.is_empty());
        Ok(Self {
            level: get("level").map(|value| level("log.level", value)).transpose()?,
            loggers,
            json,
            file: match dir {
                Some(dir) => Some(LogFile {
                    dir: dir.into(),
                    size: number("file_size", FILE_SIZE)?,
                    number: usize::try_from(number("file_num", FILE_NUM as u64)?).unwrap_or(FILE_NUM),
                }),
                None => None,
            },
            ignored: IGNORED
                .iter()
                .filter(|key| get(key).is_some())
                .map(|key| format!("log.{key} has no effect here"))
                .collect(),
        })
    }
}

/// Python's names of levels.
fn level(key: &str, value: &Value) -> Result<String, Error> {
    let written = text(value).unwrap_or_default();
    let level = match written.to_ascii_uppercase().as_str() {
        "DEBUG" | "10" => "debug",
        "INFO" | "20" => "info",
        "WARNING" | "WARN" | "30" => "warn",
        "ERROR" | "CRITICAL" | "FATAL" | "40" | "50" => "error",
        "NOTSET" | "TRACE" | "0" => "trace",
        _ => return Err(Error::value(key, format!("{value} is no level: write DEBUG, INFO, WARNING or ERROR"))),
    };
    Ok(level.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patronis_words_are_understood() {
        let log = Log::parse(&json!({"level": "warning", "type": "JSON", "dir": "/l", "file_size": "1000",
            "loggers": {"matriarch_sidecar.store": "DEBUG"}, "traceback_level": "ERROR", "format": "%(message)s"}))
        .unwrap();
        assert_eq!((log.level.as_deref(), log.json), (Some("warn"), Some(true)));
        assert_eq!(log.file, Some(LogFile { dir: "/l".into(), size: 1000, number: 4 }));
        assert_eq!(log.loggers, [("matriarch_sidecar::store".to_owned(), "debug".to_owned())]);
        assert_eq!(log.ignored.len(), 2);
        assert_eq!(Log::parse(&Value::Null).unwrap(), Log::default());
    }

    #[test]
    fn errors_say_what_to_write() {
        for (section, said) in [
            (json!({"level": "LOUD"}), "log.level: \"LOUD\" is no level: write DEBUG"),
            (json!({"type": "xml"}), "plain or json"),
            (json!({"dir": "/l", "file_num": "many"}), "log.file_num"),
            (json!({"loggers": 3}), "log.loggers"),
        ] {
            let error = Log::parse(&section).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
