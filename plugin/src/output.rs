//! `-o`: how an answer is printed.

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Error;

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Pretty,
    /// For people with wide screens.
    Wide,
    /// For programs.
    Json,
    /// The same in YAML.
    Yaml,
    /// Names alone, as kubectl prints them.
    Name,
    /// Columns with tabs between.
    Tsv,
}

/// For programs: JSON, or YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Data {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Data {
    /// As text, without the last newline.
    pub fn print<T: Serialize>(self, value: &T) -> Result<String, Error> {
        match self {
            Self::Json => serde_json::to_string_pretty(value).map_err(Error::output),
            Self::Yaml => serde_saphyr::to_string(value).map(|text| text.trim_end().to_owned()).map_err(Error::output),
        }
    }
}

/// A line on standard output. A reader that has gone (`| head`) is no error.
pub fn say(text: &str) -> Result<(), Error> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Error::Code(0)),
        done => done.map_err(Error::output),
    }
}
