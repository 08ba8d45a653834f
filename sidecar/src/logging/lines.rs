//! Lines in Patroni's forms: a text with placeholders, or JSON with chosen fields.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::record::{self, Record};
use crate::config::log::Log;
use crate::config::log_format::{Attribute, Format, Piece};

/// How lines are written.
pub struct Lines {
    form: Form,
    zone: TimeZone,
    date: String,
}

enum Form {
    Plain(Vec<Piece>),
    Json { fields: Vec<(Attribute, String)>, fixed: Map<String, Value> },
}

impl Lines {
    /// As configured.
    pub fn new(log: &Log, json: bool) -> Self {
        let format = log.format.clone().unwrap_or_else(Format::patroni);
        let form = match (json, format) {
            (true, format) => Form::Json { fields: format.fields(), fixed: log.static_fields.clone() },
            (false, Format::Text(pieces)) => Form::Plain(pieces),
            // The command line has asked for text.
            (false, Format::Fields(_)) => match Format::patroni() {
                Format::Text(pieces) => Form::Plain(pieces),
                Format::Fields(_) => Form::Plain(Vec::new()),
            },
        };
        Self { form, zone: record::zone(), date: record::date(log.dateformat.as_ref()) }
    }

    fn line(&self, event: &Event<'_>) -> String {
        let record = Record::of(event, &self.zone, &self.date);
        match &self.form {
            Form::Plain(pieces) => record.line(pieces),
            Form::Json { fields, fixed } => {
                let mut all: Vec<(&str, Cow<'_, Value>)> = Vec::new();
                for (attribute, name) in fields {
                    all.push((name, Cow::Owned(record.value(*attribute))));
                }
                let said = record.fields.iter().map(|(name, value)| (*name, value));
                for (name, value) in said.chain(fixed.iter().map(|(name, value)| (name.as_str(), value))) {
                    // What was chosen is not overwritten.
                    if !all.iter().any(|(chosen, _)| *chosen == name) {
                        all.push((name, Cow::Borrowed(value)));
                    }
                }
                serde_json::to_string(&InOrder(&all)).unwrap_or_default()
            }
        }
    }
}

/// A JSON object in this order.
struct InOrder<'a>(&'a [(&'a str, Cow<'a, Value>)]);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        writeln!(writer, "{}", self.line(event))
    }
}
