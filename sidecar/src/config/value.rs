//! Values as people write them: truths of YAML 1.1, numbers where texts are meant, addresses with ports.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Error;

/// YAML as a value. Only `true` and `false` are truths here: `n` may be a name, and `on` a value of a parameter. A number with a leading
/// zero is a text, such as a password or the permissions of a file.
pub fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(
        text,
        serde_saphyr::options! { strict_booleans: true, leading_zero_numbers_as_strings: true },
    )
}

/// `true`, `on`, `yes`, `1` and their opposites, in any case.
pub fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Some(true),
            "false" | "off" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// For serde.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(deserializer)?;
    truth(&value).ok_or_else(|| serde::de::Error::custom(format!("{value} is neither true nor false")))
}

/// A text, also where YAML reads a number or a truth.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("on".to_owned()),
        Value::Bool(false) => Some("off".to_owned()),
        _ => None,
    }
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl HostPort {
    /// `10.0.0.1:5432`, `[::1]:5432`, `db.example:5432`.
    pub fn parse(key: &str, text: &str) -> Result<Self, Error> {
        let bad = || Error::value(key, format!("{text:?} has no port: write host and port, such as \"10.0.0.1:5432\""));
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self { host: if host.is_empty() { "*".to_owned() } else { host.to_owned() }, port })
    }

    /// The address, if it is none of a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// No address that others could use.
    pub fn is_everywhere(&self) -> bool {
        self.host == "*" || self.host.contains(',') || self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_put_together() {
        for text in ["10.0.0.1:5432", "[::1]:5432", "db.example:5432"] {
            assert_eq!(HostPort::parse("x", text).unwrap().to_string(), text);
        }
        assert!(HostPort::parse("x", "*:1").unwrap().is_everywhere());
        assert!(HostPort::parse("x", "0.0.0.0:1").unwrap().is_everywhere());
        assert!(HostPort::parse("x", "[::]:1").unwrap().is_everywhere());
        assert!(HostPort::parse("x", "127.0.0.1,::1:1").unwrap().is_everywhere());
        assert!(!HostPort::parse("x", "127.0.0.1:1").unwrap().is_everywhere());
        assert!(HostPort::parse("a.b", "host").unwrap_err().to_string().starts_with("a.b: "));
    }

    #[test]
    fn a_leading_zero_stays() {
        assert_eq!(
            yaml("{password: 0123, port: 5432}").unwrap(),
            serde_json::json!({"password": "0123", "port": 5432})
        );
    }

    #[test]
    fn truths_are_many() {
        assert_eq!([truth(&"on".into()), truth(&1.into()), truth(&true.into())], [Some(true); 3]);
        assert_eq!([truth(&"No".into()), truth(&0.into()), truth(&"maybe".into())], [Some(false), Some(false), None]);
    }
}
