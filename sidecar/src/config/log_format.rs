//! `log.format`: Python's %-placeholders of log records, as a text or as a list of fields for JSON.

use serde_json::Value;

use super::Error;
use super::value::text;

const KEY: &str = "log.format";

/// What Python's log records have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// When, by `log.dateformat`.
    Asctime,
    /// When, in seconds since 1970.
    Created,
    /// The source file without its folder.
    Filename,
    /// Rust's log knows no functions: the module.
    FuncName,
    /// `INFO`, `WARNING` …
    LevelName,
    /// 20, 30 …
    LevelNo,
    /// Line of the source file.
    LineNo,
    /// What is said.
    Message,
    /// The source file without its ending.
    Module,
    /// Milliseconds of the second.
    Msecs,
    /// The part of the agent, as in `log.loggers`.
    Name,
    /// The source file.
    PathName,
    /// The process's number.
    Process,
    /// The process's name.
    ProcessName,
    /// Milliseconds since the log began.
    RelativeCreated,
    /// The thread's number.
    Thread,
    /// The thread's name.
    ThreadName,
    /// Always nothing.
    TaskName,
}

impl Attribute {
    const ALL: [(&str, Self); 18] = [
        ("asctime", Self::Asctime),
        ("created", Self::Created),
        ("filename", Self::Filename),
        ("funcName", Self::FuncName),
        ("levelname", Self::LevelName),
        ("levelno", Self::LevelNo),
        ("lineno", Self::LineNo),
        ("message", Self::Message),
        ("module", Self::Module),
        ("msecs", Self::Msecs),
        ("name", Self::Name),
        ("pathname", Self::PathName),
        ("process", Self::Process),
        ("processName", Self::ProcessName),
        ("relativeCreated", Self::RelativeCreated),
        ("thread", Self::Thread),
        ("threadName", Self::ThreadName),
        ("taskName", Self::TaskName),
    ];

    fn named(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, attribute)| *attribute).ok_or_else(|| {
            let all = Self::ALL.map(|(name, _)| name).join(", ");
            Error::value(KEY, format!("{name:?} is nothing that a line of the log has: write one of {all}"))
        })
    }

    /// Python's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, attribute)| *attribute == self).map_or("", |(name, _)| name)
    }

    fn is_number(self) -> bool {
        use Attribute::{Created, LevelNo, LineNo, Msecs, Process, RelativeCreated, Thread};
        matches!(self, Created | LevelNo | LineNo | Msecs | Process | RelativeCreated | Thread)
    }
}

/// How an attribute is written: `-08.3f` of `%(msecs)-08.3f`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// At the left of its width.
    pub left: bool,
    /// Filled with zeros.
    pub zeros: bool,
    /// At least so wide.
    pub width: usize,
    /// Digits of a fraction, or the longest text.
    pub precision: Option<usize>,
    /// `s`, `d` or `f`.
    pub conversion: char,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Literal(String),
    /// `%(name)s`
    Field(Attribute, Spec),
}

/// A format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A text with placeholders.
    Text(Vec<Piece>),
    /// Attributes, and what they are called in JSON.
    Fields(Vec<(Attribute, String)>),
}

impl Format {
    /// Patroni's default.
    pub fn patroni() -> Self {
        let field = |attribute| Piece::Field(attribute, Spec { conversion: 's', ..Spec::default() });
        let literal = |text: &str| Piece::Literal(text.to_owned());
        Self::Text(vec![
            field(Attribute::Asctime),
            literal(" "),
            field(Attribute::LevelName),
            literal(": "),
            field(Attribute::Message),
        ])
    }

    /// From the file or the environment.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        match value {
            Value::Array(items) if !items.is_empty() => {
                let mut fields = Vec::new();
                for item in items {
                    match item {
                        Value::String(name) => fields.push((Attribute::named(name)?, name.clone())),
                        Value::Object(renamed) => {
                            for (name, new) in renamed {
                                let new = new.as_str().ok_or_else(|| {
                                    let message = format!("the new name of {name} is {new}: write a text");
                                    Error::value(KEY, message)
                                })?;
                                fields.push((Attribute::named(name)?, new.to_owned()));
                            }
                        }
                        other => {
                            let message =
                                format!("{other} is no field: write its name, such as message, or name: other name");
                            return Err(Error::value(KEY, message));
                        }
                    }
                }
                Ok(Self::Fields(fields))
            }
            Value::Array(_) | Value::Object(_) => {
                let message =
                    "is neither a text nor a list of fields: write \"%(asctime)s %(levelname)s: %(message)s\"";
                Err(Error::value(KEY, message))
            }
            value => Ok(Self::Text(template(&text(value).unwrap_or_default())?)),
        }
    }

    /// For JSON: a text's placeholders are its fields.
    pub fn fields(&self) -> Vec<(Attribute, String)> {
        match self {
            Self::Fields(fields) => fields.clone(),
            Self::Text(pieces) => {
                let attribute = |piece: &Piece| match piece {
                    Piece::Field(attribute, _) => Some((*attribute, attribute.name().to_owned())),
                    Piece::Literal(_) => None,
                };
                pieces.iter().filter_map(attribute).collect()
            }
        }
    }
}

/// As Python's %-operator reads it.
fn template(format: &str) -> Result<Vec<Piece>, Error> {
    let bad = |rest: &str| {
        let from: String = rest.chars().take(20).collect();
        Error::value(KEY, format!("{from:?} is no placeholder: write such as %(message)s, and %% for a percent sign"))
    };
    let mut pieces: Vec<Piece> = Vec::new();
    let literal = |pieces: &mut Vec<Piece>, text: &str| match pieces.last_mut() {
        Some(Piece::Literal(before)) => before.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Literal(text.to_owned())),
    };
    let mut rest = format;
    while let Some((before, found)) = rest.split_once('%') {
        literal(&mut pieces, before);
        if let Some(after) = found.strip_prefix('%') {
            literal(&mut pieces, "%");
            rest = after;
            continue;
        }
        let whole = &rest[before.len()..];
        let (name, after) = found.strip_prefix('(').and_then(|name| name.split_once(')')).ok_or_else(|| bad(whole))?;
        let attribute = Attribute::named(name)?;
        let (spec, after) = spec(after).ok_or_else(|| bad(whole))?;
        if spec.conversion != 's' && !attribute.is_number() {
            return Err(Error::value(KEY, format!("{name} is no number: write %({name})s")));
        }
        pieces.push(Piece::Field(attribute, spec));
        rest = after;
    }
    literal(&mut pieces, rest);
    if !pieces.iter().any(|piece| matches!(piece, Piece::Field(..))) {
        return Err(Error::value(
            KEY,
            "has no placeholder, so that all lines would be the same: write at least %(message)s",
        ));
    }
    Ok(pieces)
}

/// What is behind the name, and what follows that.
fn spec(text: &str) -> Option<(Spec, &str)> {
    /// Nobody pads further, and a slip of the pen shall not cost memory with every line.
    const WIDEST: usize = 1000;
    let end = text.find(|c: char| !"-0+ #".contains(c))?;
    let (flags, rest) = text.split_at(end);
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        (text[..end].parse::<usize>().ok(), end)
    };
    let (width, end) = number(rest);
    let rest = &rest[end..];
    let (precision, rest) = match rest.strip_prefix('.') {
        Some(digits) => {
            let (precision, end) = number(digits);
            (Some(precision.unwrap_or(0)), &digits[end..])
        }
        None => (None, rest),
    };
    let written = rest.chars().next()?;
    let conversion = match written {
        's' | 'r' | 'a' => 's',
        'd' | 'i' | 'u' => 'd',
        'f' | 'F' => 'f',
        _ => return None,
    };
    let width = width.unwrap_or(0);
    if width > WIDEST || precision.is_some_and(|precision| precision > WIDEST) {
        return None;
    }
    let spec = Spec { left: flags.contains('-'), zeros: flags.contains('0'), width, precision, conversion };
    Some((spec, &rest[written.len_utf8()..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patronis_default_is_read_as_it_is_made() {
        assert_eq!(Format::parse(&json!("%(asctime)s %(levelname)s: %(message)s")).unwrap(), Format::patroni());
    }

    #[test]
    fn fields_are_renamed() {
        let format = Format::parse(&json!(["message", {"asctime": "@timestamp", "levelname": "level"}])).unwrap();
        let names: Vec<String> = format.fields().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["message", "@timestamp", "level"]);
        let names: Vec<String> =
            Format::patroni().fields().into_iter().map(|(attribute, _)| attribute.name().to_owned()).collect();
        assert_eq!(names, ["asctime", "levelname", "message"]);
    }

    #[test]
    fn errors_say_what_to_write() {
        for (value, said) in [
            (json!("%(mesage)s"), "\"mesage\" is nothing that a line of the log has: write one of asctime"),
            (json!("%s"), "\"%s\" is no placeholder"),
            (json!("100% sure"), "%% for a percent sign"),
            (json!("%(message)"), "is no placeholder"),
            (json!("%(message)q"), "is no placeholder"),
            (json!("%(message)99999999s"), "is no placeholder"),
            (json!("%(message)d"), "message is no number: write %(message)s"),
            (json!("hello"), "has no placeholder"),
            (json!([]), "neither a text nor a list"),
            (json!({"message": "m"}), "neither a text nor a list"),
            (json!([1]), "1 is no field"),
            (json!([{"message": 1}]), "the new name of message is 1"),
        ] {
            let error = Format::parse(&value).unwrap_err().to_string();
            assert!(error.starts_with("log.format: ") && error.contains(said), "{value}: {error}");
        }
    }
}
