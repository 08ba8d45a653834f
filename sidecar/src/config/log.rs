//! Section `log`: Patroni's keys.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use tracing_subscriber::filter::Directive;

use super::Error;
use super::log_format::Format;
use super::value::{text, truth};

/// Python's way to write a moment.
pub const DATE: &str = "%Y-%m-%d %H:%M:%S,%3f";
/// Patroni's default of `log.file_size`.
const FILE_SIZE: u64 = 25_000_000;
/// Patroni's default of `log.file_num`.
const FILE_NUM: u64 = 4;
/// Patroni's default of `log.max_queue_size`.
const QUEUE: u64 = 1000;
/// What Patroni calls no limit: a log that is stuck for ever shall not take all memory.
const LONGEST_QUEUE: u64 = 100_000;

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// In tracing's words; none: not configured.
    pub level: Option<String>,
    /// Levels of single parts.
    pub loggers: Vec<(String, String)>,
    /// One JSON object a line; none: not configured.
    pub json: Option<bool>,
    /// How lines are made; none: not configured.
    pub format: Option<Format>,
    /// How moments are written, in strftime's words.
    pub dateformat: Option<String>,
    /// Added to every line of JSON.
    pub static_fields: Map<String, Value>,
    /// Where a panic happened is shown in full only when the level is DEBUG.
    pub traces_at_debug: bool,
    /// So many lines may wait to be written.
    pub queue: usize,
    /// What is in force is said again in every loop.
    pub heartbeats: bool,
    /// Where `patroni.log` is written instead of to standard error.
    pub file: Option<LogFile>,
    /// What is written and has no effect, in sentences.
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
    /// Its permissions; none: as the umask has it.
    pub mode: Option<u32>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: None,
            loggers: Vec::new(),
            json: None,
            format: None,
            dateformat: None,
            static_fields: Map::new(),
            traces_at_debug: false,
            queue: usize::try_from(QUEUE).unwrap_or(usize::MAX),
            heartbeats: false,
            file: None,
            ignored: Vec::new(),
        }
    }
}

impl Log {
    /// From the section.
    pub fn parse(section: &Value) -> Result<Self, Error> {
        if !section.is_object() && !section.is_null() {
            return Err(Error::value("log", "is no mapping: write its keys below it, such as `level: INFO`"));
        }
        let get = |key: &str| section.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""));
        let number = |key: &str, default: u64| match get(key) {
            None => Ok(default),
            Some(value) => text(value)
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| Error::value(format!("log.{key}"), format!("{value} is no number: write {default}"))),
        };
        let json = match get("type").map(|value| text(value).unwrap_or_default().to_ascii_lowercase()).as_deref() {
            None => None,
            Some("json") => Some(true),
            Some("plain") => Some(false),
            Some(other) => return Err(Error::value("log.type", format!("{other:?} is none: write plain or json"))),
        };
        let format = get("format").map(Format::parse).transpose()?;
        if matches!(format, Some(Format::Fields(_))) && json != Some(true) {
            let message = "is a list of fields, which only JSON has: write `type: json`, or a text such as \
                           \"%(asctime)s %(levelname)s: %(message)s\"";
            return Err(Error::value("log.format", message));
        }
        let static_fields = match get("static_fields") {
            None => Map::new(),
            Some(Value::Object(fields)) => fields.clone(),
            Some(other) => {
                return Err(Error::value("log.static_fields", format!("{other} is no mapping: write {{name: value}}")));
            }
        };
        let queue = match number("max_queue_size", QUEUE)? {
            0 => LONGEST_QUEUE,
            longest => longest.min(LONGEST_QUEUE),
        };
        // All are looked at, also where they have no effect.
        let (size, kept) = (number("file_size", FILE_SIZE)?, number("file_num", FILE_NUM)?);
        let mode = get("mode").map(mode).transpose()?;
        let dir = get("dir").map(dir).transpose()?;
        let mut ignored = Vec::new();
        if !static_fields.is_empty() && json != Some(true) {
            ignored.push("log.static_fields: has no effect without `type: json`".to_owned());
        }
        for key in ["mode", "file_size", "file_num"] {
            if dir.is_none() && get(key).is_some() {
                ignored.push(format!("log.{key}: has no effect without `dir`: the log goes to standard error"));
            }
        }
        Ok(Self {
            level: get("level").map(|value| level("log.level", value)).transpose()?,
            loggers: loggers(get("loggers"))?,
            json,
            format,
            dateformat: get("dateformat").map(dateformat).transpose()?,
            static_fields,
            traces_at_debug: match get("traceback_level") {
                Some(value) => matches!(level("log.traceback_level", value)?.as_str(), "debug" | "trace"),
                None => false,
            },
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            heartbeats: match get("deduplicate_heartbeat_logs") {
                None => false,
                Some(value) => !truth(value).ok_or_else(|| {
                    let message = format!("{value} is neither true nor false: write true");
                    Error::value("log.deduplicate_heartbeat_logs", message)
                })?,
            },
            file: dir.map(|dir| LogFile { dir, size, number: usize::try_from(kept).unwrap_or(usize::MAX), mode }),
            ignored,
        })
    }
}

fn dir(value: &Value) -> Result<PathBuf, Error> {
    text(value)
        .filter(|dir| !dir.contains('\0'))
        .map(PathBuf::from)
        .ok_or_else(|| Error::value("log.dir", format!("{value} is no folder: write such as /var/log/patroni")))
}

/// `0644` as in chmod; a number without a leading zero is decimal, as Patroni has it.
fn mode(value: &Value) -> Result<u32, Error> {
    let written = text(value).unwrap_or_default();
    let octal = written.strip_prefix("0o").or_else(|| written.strip_prefix('0').filter(|rest| !rest.is_empty()));
    let read = match octal {
        Some(digits) => u32::from_str_radix(digits, 8).ok(),
        None => written.parse().ok(),
    };
    match read {
        // Who cannot write the file has no log.
        Some(mode) if mode & !0o777 == 0 && mode & 0o200 != 0 => Ok(mode),
        _ => Err(Error::value("log.mode", format!("{value} are no permissions that let the owner write: write 0644"))),
    }
}

fn dateformat(value: &Value) -> Result<String, Error> {
    let written = text(value).unwrap_or_default();
    let tried = strtime::format(&written, &Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC));
    match tried {
        Ok(_) => Ok(written),
        Err(error) => {
            let message = format!("{value} cannot be used ({error}): write such as \"%Y-%m-%d %H:%M:%S %z\"");
            Err(Error::value("log.dateformat", message))
        }
    }
}

fn loggers(value: Option<&Value>) -> Result<Vec<(String, String)>, Error> {
    let all = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(all)) => all,
        Some(other) => {
            return Err(Error::value("log.loggers", format!("{other} is no mapping: write {{name: LEVEL}}")));
        }
    };
    let one = |(name, value): (&String, &Value)| {
        let key = format!("log.loggers.{name}");
        let level = level(&key, value)?;
        let target = name.replace('.', "::");
        let plain = !target.is_empty() && target.chars().all(|c| c.is_alphanumeric() || ":_-".contains(c));
        if !plain || format!("{target}={level}").parse::<Directive>().is_err() {
            return Err(Error::value(key, "is no name of a part of the agent: write such as matriarch_sidecar.store"));
        }
        Ok((target, level))
    };
    all.iter().map(one).collect()
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
        let log =
            Log::parse(&json!({"level": "warning", "type": "JSON", "dir": "/l", "file_size": "1000", "mode": "0640",
            "loggers": {"matriarch_sidecar.store": "DEBUG"}, "traceback_level": "debug", "format": ["message"],
            "dateformat": "%d.%m.%Y %H:%M:%S %z", "static_fields": {"app": "orders"}, "max_queue_size": 0,
            "deduplicate_heartbeat_logs": false}))
            .unwrap();
        assert_eq!((log.level.as_deref(), log.json), (Some("warn"), Some(true)));
        assert_eq!(log.file, Some(LogFile { dir: "/l".into(), size: 1000, number: 4, mode: Some(0o640) }));
        assert_eq!(log.loggers, [("matriarch_sidecar::store".to_owned(), "debug".to_owned())]);
        assert!(log.traces_at_debug && log.heartbeats && log.ignored.is_empty());
        assert_eq!((log.queue, log.static_fields["app"].as_str()), (100_000, Some("orders")));
        assert_eq!(Log::parse(&Value::Null).unwrap(), Log::default());
        assert_eq!(Log::parse(&json!({"format": "", "dateformat": null, "dir": ""})).unwrap(), Log::default());
    }

    #[test]
    fn modes_are_octal_with_a_leading_zero() {
        for (written, expected) in [(json!("0644"), 0o644), (json!("0o600"), 0o600), (json!(416), 0o640)] {
            let log = Log::parse(&json!({"dir": "/l", "mode": written})).unwrap();
            assert_eq!(log.file.unwrap().mode, Some(expected), "{written}");
        }
        // As YAML reads it.
        let file = crate::config::value::yaml("{dir: /l, mode: 0644}").unwrap();
        assert_eq!(Log::parse(&file).unwrap().file.unwrap().mode, Some(0o644));
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let log = Log::parse(&json!({"static_fields": {"a": 1}, "mode": "0600"})).unwrap();
        assert_eq!(log.ignored.len(), 2, "{:?}", log.ignored);
    }

    #[test]
    fn errors_say_what_to_write() {
        for (section, said) in [
            (json!({"level": "LOUD"}), "log.level: \"LOUD\" is no level: write DEBUG"),
            (json!({"type": "xml"}), "plain or json"),
            (json!({"type": ["json"]}), "plain or json"),
            (json!({"dir": "/l", "file_num": "many"}), "log.file_num"),
            (json!({"file_size": -1}), "log.file_size"),
            (json!({"dir": ["/l"]}), "log.dir"),
            (json!({"loggers": 3}), "log.loggers"),
            (json!({"loggers": {"a b=c": "INFO"}}), "log.loggers.a b=c: is no name"),
            (json!({"traceback_level": "never"}), "log.traceback_level"),
            (json!({"format": "%(foo)s"}), "log.format"),
            (
                json!({"format": ["message"]}),
                "log.format: is a list of fields, which only JSON has: write `type: json`",
            ),
            (json!({"dateformat": "%!"}), "log.dateformat"),
            (json!({"static_fields": "a"}), "log.static_fields"),
            (json!({"max_queue_size": "long"}), "log.max_queue_size: \"long\" is no number: write 1000"),
            (
                json!({"dir": "/l", "mode": 644}),
                "log.mode: 644 are no permissions that let the owner write: write 0644",
            ),
            (json!({"mode": "0444"}), "log.mode"),
            (json!({"mode": "u=rw"}), "log.mode"),
            (json!({"deduplicate_heartbeat_logs": "maybe"}), "log.deduplicate_heartbeat_logs"),
            (json!([1]), "log: is no mapping"),
        ] {
            let error = Log::parse(&section).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
