//! `matriarch.clone`: a new cluster begins as a base backup of a server that runs elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::custom::Custom;
use super::{Error, value};

/// Which server, and how to reach it. Name and password of a role that may replicate are in the folder `clone` of the secrets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneFrom {
    /// Its address.
    pub host: String,
    /// Its port.
    #[serde(default = "port")]
    pub port: u16,
    /// libpq's `sslmode`.
    #[serde(default = "ssl_mode")]
    pub ssl_mode: String,
}

fn port() -> u16 {
    5432
}

fn ssl_mode() -> String {
    "prefer".to_owned()
}

impl CloneFrom {
    /// `method` is `bootstrap.method`.
    pub(super) fn check(&self, method: Option<&Value>) -> Result<(), Error> {
        if self.host.is_empty() || self.host.contains(char::is_whitespace) {
            return Err(Error::value("matriarch.clone.host", "is no address: write one, such as orders.example.com"));
        }
        if !["disable", "allow", "prefer", "require", "verify-ca", "verify-full"].contains(&self.ssl_mode.as_str()) {
            let message = format!("{} is no sslmode of libpq: write prefer or require", self.ssl_mode);
            return Err(Error::value("matriarch.clone.ssl_mode", message));
        }
        match method.and_then(value::text).filter(|method| method != "initdb") {
            Some(method) => Err(Error::value(
                "matriarch.clone",
                format!("there is bootstrap.method: {method} as well: write one of them"),
            )),
            None => Ok(()),
        }
    }

    /// The same as a bootstrap. Recovery goes to the end of what the backup has, and onto a timeline of its own, so that no archive
    /// can mistake it for the server that it came from. (`false` is a `restore_command` that finds nothing.)
    pub(super) fn bootstrap(self) -> Custom {
        let recovery = [("restore_command", "false")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Custom {
            name: "clone".to_owned(),
            recovery: Some(BTreeMap::from(recovery)),
            clone: Some(self),
            ..Custom::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_one_of_the_ways_to_begin() {
        let read = |section: Value| serde_json::from_value::<CloneFrom>(section).unwrap();
        let from = read(json!({"host": "h"}));
        assert_eq!((from.port, from.ssl_mode.as_str()), (5432, "prefer"));
        assert!(from.check(None).is_ok() && from.check(Some(&json!("initdb"))).is_ok());
        assert!(from.check(Some(&json!("wal_g"))).unwrap_err().to_string().contains("write one of them"));
        assert!(read(json!({"host": ""})).check(None).is_err());
        let wrong = read(json!({"host": "h", "ssl_mode": "on"})).check(None).unwrap_err();
        assert!(wrong.to_string().contains("matriarch.clone.ssl_mode"), "{wrong}");
    }
}
