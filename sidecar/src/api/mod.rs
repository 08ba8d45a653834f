//! The REST API: Patroni's paths, codes and documents. What is said is made by pure functions of the published view and the
//! clocks; only [`server`] and [`routes`] do I/O.

use std::collections::BTreeMap;

use matriarch_ha::types::{Boot, Lsn};
use serde_json::Value;

pub mod cluster;
pub mod commands;
pub mod health;
pub mod metrics;
pub mod probes;
pub mod query;
pub mod read;
pub mod routes;
pub mod seen;
pub mod server;
pub mod status;
#[cfg(test)]
mod tests;

/// What of the static configuration the API shows; never changes while the agent lives.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The cluster's name in Patroni's words.
    pub scope: String,
    /// `tags` of the static configuration.
    pub tags: BTreeMap<String, Value>,
    /// When the agent started: it counts as alive for a while before its first cycle.
    pub started: Boot,
}

impl Site {
    /// A boolean tag; anything that Python takes for true is.
    #[must_use]
    pub fn tag(&self, name: &str) -> bool {
        match self.tags.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(value)) => *value,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => {
                !matches!(text.to_ascii_lowercase().as_str(), "" | "false" | "off" | "no" | "n" | "f" | "0")
            }
            Some(_) => true,
        }
    }
}

/// An answer before it is put on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// What follows.
    pub body: Body,
    /// Header `lsn`: a member's position, told with an accepted failsafe call.
    pub lsn: Option<Lsn>,
}

/// Bodies, with the content types that Patroni gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None: probes, HEAD and OPTIONS.
    Empty,
    /// application/json
    Json(Value),
    /// A sentence, as text/html (sic).
    Text(String),
    /// text/plain: metrics.
    Plain(String),
}

impl Answer {
    /// Only a status.
    #[must_use]
    pub fn empty(code: u16) -> Self {
        Self { code, body: Body::Empty, lsn: None }
    }

    /// A document.
    #[must_use]
    pub fn json(code: u16, value: Value) -> Self {
        Self { code, body: Body::Json(value), lsn: None }
    }

    /// A sentence.
    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self { code, body: Body::Text(text.into()), lsn: None }
    }
}
