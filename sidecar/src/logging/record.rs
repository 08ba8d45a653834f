//! One line of the log with what Python's log records have.

use std::sync::LazyLock;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::config::log::DATE;
use crate::config::log_format::{Attribute, Piece, Spec};

/// When we began.
static BEGAN: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

/// What an event says, taken apart.
pub struct Record<'a> {
    event: &'a Event<'a>,
    at: Zoned,
    date: &'a str,
    message: String,
    /// What it says beside its message.
    pub fields: Vec<(&'static str, Value)>,
}

/// A value of an attribute.
enum Worth {
    Text(String),
    Whole(i64),
    Fraction(f64),
}

impl<'a> Record<'a> {
    /// Now.
    pub fn of(event: &'a Event<'a>, zone: &TimeZone, date: &'a str) -> Self {
        let mut said = Said::default();
        event.record(&mut said);
        let began = *BEGAN;
        let at = Timestamp::now().max(began).to_zoned(zone.clone());
        Self { event, at, date, message: said.message, fields: said.fields }
    }

    /// A line of text: what is said beside the message follows it.
    pub fn line(&self, pieces: &[Piece]) -> String {
        let mut line = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => line.push_str(text),
                Piece::Field(Attribute::Message, spec) => line.push_str(&pad(self.sentence(), spec)),
                Piece::Field(attribute, spec) => line.push_str(&written(&self.worth(*attribute), spec)),
            }
        }
        line
    }

    fn sentence(&self) -> String {
        let mut sentence = self.message.clone();
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(text) if !text.is_empty() && !text.contains([' ', '\n', '"']) => text.clone(),
                other => other.to_string(),
            };
            sentence.push_str(&format!("{}{name}={value}", if sentence.is_empty() { "" } else { " " }));
        }
        sentence
    }

    /// For JSON.
    pub fn value(&self, attribute: Attribute) -> Value {
        match self.worth(attribute) {
            Worth::Text(_) if attribute == Attribute::TaskName => Value::Null,
            Worth::Text(text) => text.into(),
            Worth::Whole(number) => number.into(),
            Worth::Fraction(number) => number.into(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
    fn worth(&self, attribute: Attribute) -> Worth {
        let metadata = self.event.metadata();
        let path = metadata.file().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        let module = || file.strip_suffix(".rs").unwrap_or(file).to_owned();
        let millis = self.at.timestamp().as_millisecond();
        let level = metadata.level();
        let text = match attribute {
            // The format was tried when it was read.
            Attribute::Asctime => jiff::fmt::strtime::format(self.date, &self.at).unwrap_or_default(),
            Attribute::Filename => file.to_owned(),
            Attribute::FuncName | Attribute::Module => module(),
            Attribute::LevelName => name(*level).to_owned(),
            Attribute::Message => self.message.clone(),
            Attribute::Name => metadata.target().replace("::", "."),
            Attribute::PathName => path.to_owned(),
            Attribute::ProcessName => "MainProcess".to_owned(),
            Attribute::ThreadName => std::thread::current().name().unwrap_or("main").to_owned(),
            Attribute::TaskName => "None".to_owned(),
            Attribute::Created => return Worth::Fraction(millis as f64 / 1000.0),
            Attribute::RelativeCreated => return Worth::Fraction((millis - BEGAN.as_millisecond()) as f64),
            Attribute::Msecs => return Worth::Whole(millis.rem_euclid(1000)),
            Attribute::LevelNo => return Worth::Whole(number(*level)),
            Attribute::LineNo => return Worth::Whole(metadata.line().map_or(0, i64::from)),
            Attribute::Process => return Worth::Whole(i64::from(std::process::id())),
            Attribute::Thread => return Worth::Whole(thread()),
        };
        Worth::Text(text)
    }
}

/// `ThreadId(1)` is the first one.
fn thread() -> i64 {
    let id = format!("{:?}", std::thread::current().id());
    id.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

/// Python's names.
fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// Python's numbers.
fn number(level: Level) -> i64 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
fn written(worth: &Worth, spec: &Spec) -> String {
    let digits = spec.precision.unwrap_or(6);
    match (worth, spec.conversion) {
        (Worth::Text(text), _) => pad(text.clone(), spec),
        (Worth::Whole(number), 'f') => zeros(format!("{:.digits$}", *number as f64), spec),
        (Worth::Whole(number), 'd') => zeros(number.to_string(), spec),
        (Worth::Whole(number), _) => pad(number.to_string(), spec),
        (Worth::Fraction(number), 'f') => zeros(format!("{number:.digits$}"), spec),
        (Worth::Fraction(number), 'd') => zeros((*number as i64).to_string(), spec),
        (Worth::Fraction(number), _) => pad(format!("{number:?}"), spec),
    }
}

fn zeros(number: String, spec: &Spec) -> String {
    if spec.zeros && !spec.left {
        return format!("{number:0>width$}", width = spec.width);
    }
    pad(number, &Spec { precision: None, ..spec.clone() })
}

fn pad(text: String, spec: &Spec) -> String {
    let text = match spec.precision {
        Some(longest) => text.chars().take(longest).collect(),
        None => text,
    };
    let width = spec.width;
    if spec.left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// The time zone of the log, as C's `localtime` has it: `TZ`, else /etc/localtime, else UTC.
pub fn zone() -> TimeZone {
    let read = |path: &str| TimeZone::tzif("local", &std::fs::read(path).ok()?).ok();
    match std::env::var("TZ") {
        Err(_) => read("/etc/localtime"),
        Ok(name) => {
            let name = name.trim_start_matches(':');
            let path = if name.starts_with('/') { name.to_owned() } else { format!("/usr/share/zoneinfo/{name}") };
            read(&path).or_else(|| TimeZone::posix(name).ok())
        }
    }
    .unwrap_or(TimeZone::UTC)
}

/// Python's way to write a moment, when no other is configured.
pub fn date(configured: Option<&String>) -> String {
    configured.cloned().unwrap_or_else(|| DATE.to_owned())
}
