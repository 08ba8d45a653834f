//! The REST API: Patroni's paths, codes and documents. What is said is made by pure functions of the published view and the
//! clocks; only [`server`] and [`routes`] do I/O.

use matriarch_ha::types::Lsn;
use serde_json::Value;

pub use site::Site;

pub mod access;
pub mod body;
pub mod cluster;
pub mod commands;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod probes;
pub mod query;
pub mod read;
pub mod routes;
pub mod seen;
pub mod server;
pub mod site;
pub mod status;
#[cfg(test)]
mod tests;

/// An answer before it is put on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// What follows.
    pub body: Body,
    /// Header `lsn`: a member's position, told with an accepted failsafe call.
    pub lsn: Option<Lsn>,
    /// Header `WWW-Authenticate`.
    pub challenge: bool,
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
    fn new(code: u16, body: Body) -> Self {
        Self { code, body, lsn: None, challenge: false }
    }

    /// Only a status.
    #[must_use]
    pub fn empty(code: u16) -> Self {
        Self::new(code, Body::Empty)
    }

    /// A document.
    #[must_use]
    pub fn json(code: u16, value: Value) -> Self {
        Self::new(code, Body::Json(value))
    }

    /// A sentence.
    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self::new(code, Body::Text(text.into()))
    }
}
