//! Why there is no usable configuration; every sentence says what to write.

use std::path::PathBuf;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("the configuration {path} cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is no YAML.
    #[error("the configuration {path} is not as it should be: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// Nothing was written anywhere.
    #[error("{place}: the configuration is empty: give a file, a folder of *.yml, or PATRONI_* environment variables")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
    /// A value cannot be used.
    #[error("{key}: {message}")]
    Value {
        /// Where, in dots.
        key: String,
        /// What to write instead.
        message: String,
    },
    /// The pod's identity is missing.
    #[error("the environment variable {name} is not set: {hint}")]
    Env {
        /// Its name.
        name: &'static str,
        /// What to write.
        hint: &'static str,
    },
}

impl Error {
    /// A value cannot be used.
    pub(super) fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }
}
