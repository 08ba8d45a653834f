//! Lines as they are written, and what a change of the section makes of them.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::config::log::Log;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of some events under the section.
fn lines(section: &Value, asked: &Asked, say: impl FnOnce()) -> Vec<String> {
    let log = Log::parse(section).unwrap();
    let memory = Memory::default();
    let queue = Queue::start(log.queue, Box::new(memory.clone()), |_| ()).unwrap();
    let subscriber = tracing_subscriber::registry().with(filter(asked, &log)).with(output(asked, &log, queue.clone()));
    tracing::subscriber::with_default(subscriber, say);
    queue.flush(Duration::from_secs(10));
    let written = memory.0.lock().unwrap().clone();
    String::from_utf8(written).unwrap().lines().map(ToOwned::to_owned).collect()
}

fn one(section: &Value) -> String {
    let all = lines(section, &Asked::default(), || tracing::warn!(rule.id = "L1", n = 3, "no {}", "lock"));
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn plain_lines_are_patronis() {
    let line = one(&json!({"type": "plain"}));
    let (date, rest) = line.split_at("2026-01-01 00:00:00,000".len());
    assert_eq!(rest, " WARNING: no lock rule.id=L1 n=3");
    let digits: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(digits, "0000-00-00 00:00:00,000");
}

#[test]
fn placeholders_are_filled_as_python_does() {
    let line = one(
        &json!({"format": "%%[%(levelname)-8s|%(levelno)05d|%(levelname).2s|%(name)s|%(filename)s|%(module)10s|%(process)d|%(processName)s|%(asctime)s] %(message)s",
        "dateformat": "%Y"}),
    );
    let (pid, year) = (std::process::id(), jiff::Timestamp::now().to_string()[..4].to_owned());
    assert_eq!(
        line,
        format!(
            "%[WARNING |00030|WA|matriarch_sidecar.logging.tests|tests.rs|     tests|{pid}|MainProcess|{year}] no lock rule.id=L1 n=3"
        )
    );
}

#[test]
fn json_has_the_fields_that_are_chosen() {
    let read = |line: String| -> Value { serde_json::from_str(&line).unwrap() };
    let written =
        one(&json!({"type": "json", "format": ["message", {"levelname": "lvl"}], "static_fields": {"app": "x"}}));
    assert_eq!(written, r#"{"message":"no lock","lvl":"WARNING","rule.id":"L1","n":3,"app":"x"}"#);
    let line = read(one(&json!({"type": "json", "dateformat": "%Y", "static_fields": {"app": "orders", "lvl": "no"},
        "format": ["message", {"levelname": "lvl", "asctime": "at"}, "msecs"]})));
    let year = jiff::Timestamp::now().to_string()[..4].to_owned();
    assert!(line["msecs"].is_u64(), "{line}");
    let expected = json!({"message": "no lock", "lvl": "WARNING", "at": year, "msecs": line["msecs"], "rule.id": "L1", "n": 3, "app": "orders"});
    assert_eq!(line, expected);
    // Patroni's own fields by default.
    let line = read(one(&json!({"type": "json"})));
    assert_eq!((&line["levelname"], &line["message"]), (&json!("WARNING"), &json!("no lock")));
    assert!(line["asctime"].is_string());
}

#[test]
fn the_command_line_wins() {
    let text = Asked { json: Some(false), level: None };
    let all = lines(&json!({"type": "json", "format": ["message"]}), &text, || tracing::info!("x"));
    assert!(all[0].ends_with(" INFO: x"), "{all:?}");
    let loud = Asked { json: Some(true), level: Some("debug".to_owned()) };
    let all = lines(&json!({"level": "ERROR", "format": "%(message)s"}), &loud, || tracing::debug!("x"));
    assert_eq!(all, [r#"{"message":"x"}"#]);
}

#[test]
fn levels_are_those_of_the_parts() {
    let section = json!({"level": "ERROR", "type": "plain", "format": "%(message)s", "loggers": {"loud.one": "DEBUG"}});
    let all = lines(&section, &Asked::default(), || {
        tracing::info!("not this");
        tracing::debug!(target: "loud::one", "this");
    });
    assert_eq!(all, ["this"]);
}

#[test]
fn a_change_takes_effect() {
    let memory = Memory::default();
    let (logging, subscriber) = Logging::make(Asked::default(), Box::new(memory.clone())).unwrap();
    let dir = std::env::temp_dir().join(format!("matriarch-logging-{}", std::process::id()));
    let configure = |section: Value| logging.configure(&Log::parse(&section).unwrap());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("first");
        configure(json!({"format": "1 %(message)s", "level": "WARNING"}));
        tracing::info!("not this");
        tracing::warn!("second");
        configure(json!({"format": "2 %(message)s", "dir": dir}));
        logging.finish();
        tracing::info!("third");
        // A folder that cannot be: the log stays where it is.
        configure(json!({"format": "3 %(message)s", "dir": "/dev/null/log"}));
        tracing::info!("fourth");
        logging.finish();
    });
    let before = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    let (first, rest) = before.split_once('\n').unwrap();
    assert!(first.contains("\"message\":\"first\"") && rest == "1 second\n", "{before}");
    let after = std::fs::read_to_string(dir.join("patroni.log")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let lines: Vec<&str> = after.lines().collect();
    assert_eq!((lines[0], lines[2], lines.len()), ("2 third", "3 fourth", 3), "{after}");
    assert!(lines[1].starts_with("2 log.dir: /dev/null/log: "), "{after}");
}
