//! Section `restapi`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use matriarch_crds::names;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Error, HostPort, value};

/// Section `restapi`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct RestApi {
    /// Address and port.
    pub listen: String,
    /// Where others reach it, `host:port`; none: at our pod's name, or where it listens.
    pub connect_address: Option<String>,
    /// Our certificate; none: plain HTTP.
    pub certfile: Option<PathBuf>,
    /// Its key; none: in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// The password of an encrypted key.
    pub keyfile_password: Option<Password>,
    /// OpenSSL's names of the cipher suites of TLS 1.2 that are offered; none: all that are safe.
    pub ciphers: Option<String>,
    /// Who signs peers and clients.
    pub cafile: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub verify_client: VerifyClient,
    /// Who may change something.
    pub authentication: Option<Login>,
    /// From where something may be changed: addresses, networks and names; empty: from everywhere.
    #[serde(deserialize_with = "list")]
    pub allowlist: Vec<String>,
    /// Members may, in addition.
    #[serde(deserialize_with = "value::flag")]
    pub allowlist_include_members: bool,
    /// `http_extra_headers`: of every answer.
    #[serde(rename = "http_extra_headers", deserialize_with = "headers")]
    pub headers: BTreeMap<String, String>,
    /// `https_extra_headers`: the same with TLS only.
    #[serde(rename = "https_extra_headers", deserialize_with = "headers")]
    pub tls_headers: BTreeMap<String, String>,
    /// What header `Server` tells: `Original` (here: nothing), `ProductOnly`, `Minimal`.
    pub server_tokens: String,
}

impl Default for RestApi {
    fn default() -> Self {
        Self {
            listen: format!("0.0.0.0:{}", names::API_PORT),
            connect_address: None,
            certfile: None,
            keyfile: None,
            keyfile_password: None,
            ciphers: None,
            cafile: None,
            verify_client: VerifyClient::None,
            authentication: None,
            allowlist: Vec::new(),
            allowlist_include_members: false,
            headers: BTreeMap::new(),
            tls_headers: BTreeMap::new(),
            server_tokens: "original".to_owned(),
        }
    }
}

/// A password, which no log shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(#[serde(deserialize_with = "plain")] pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// User and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Login {
    /// User.
    #[serde(deserialize_with = "plain")]
    pub username: String,
    /// Password.
    #[serde(deserialize_with = "plain")]
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:…", self.username)
    }
}

impl RestApi {
    /// What serde cannot see.
    pub(super) fn check(&self) -> Result<(), Error> {
        for entry in self.allowlist.iter().filter(|entry| entry.contains('/')) {
            if entry.parse::<crate::api::access::Network>().is_err() {
                let message = format!("{entry:?} is no network: write for example \"10.0.0.0/8\"");
                return Err(Error::value("restapi.allowlist", message));
            }
        }
        for (key, headers) in [("http_extra_headers", &self.headers), ("https_extra_headers", &self.tls_headers)] {
            for (name, value) in headers {
                if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                    let message =
                        format!("{name}: {value:?} cannot be a header: only printable characters are allowed");
                    return Err(Error::value(format!("restapi.{key}"), message));
                }
            }
        }
        if !matches!(self.server_tokens.to_ascii_lowercase().as_str(), "original" | "productonly" | "minimal") {
            let message = format!("{:?} is unknown: write Original, ProductOnly or Minimal", self.server_tokens);
            return Err(Error::value("restapi.server_tokens", message));
        }
        if self.verify_client != VerifyClient::None && self.certfile.is_some() && self.cafile.is_none() {
            let message =
                "is missing: write the file of the CA that signs the clients' certificates (verify_client is on)";
            return Err(Error::value("restapi.cafile", message));
        }
        Ok(())
    }

    /// Where others reach it; `pod` is our pod's DNS name where there is one.
    pub(super) fn place(&self, pod: Option<&str>) -> Result<HostPort, Error> {
        let listen = HostPort::parse("restapi.listen", &self.listen)?;
        match (&self.connect_address, pod) {
            (Some(address), _) => HostPort::parse("restapi.connect_address", address),
            (None, Some(pod)) => Ok(HostPort { host: pod.to_owned(), port: listen.port }),
            (None, None) if listen.is_everywhere() => Err(Error::value(
                "restapi.connect_address",
                format!("is missing: write where other members reach this one, such as \"10.0.0.1:{}\"", listen.port),
            )),
            (None, None) => Ok(listen),
        }
    }
}

/// Patroni's `restapi.verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyClient {
    /// Nobody is asked.
    #[serde(alias = "None")]
    None,
    /// Needed for methods that change something.
    #[serde(alias = "Optional")]
    Optional,
    /// Needed for everything.
    #[serde(alias = "Required")]
    Required,
}

/// A user or password that reads like a number is meant as a text.
fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    value::text(&value).ok_or_else(|| serde::de::Error::custom("user and password are texts"))
}

/// A list, or one text with commas, as environment variables have it.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let entries: Option<Vec<String>> = match &value {
        Value::Null => Some(Vec::new()),
        Value::Array(entries) => entries.iter().map(|entry| entry.as_str().map(str::to_owned)).collect(),
        Value::String(text) => Some(text.split(',').map(str::to_owned).collect()),
        _ => None,
    };
    let entries = entries.ok_or_else(|| serde::de::Error::custom(format!("{value} is no list of texts")))?;
    Ok(entries.iter().map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect())
}

/// Names and values, both texts.
fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let pairs = match &value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(pairs) => pairs.iter().map(|(name, value)| Some((name.clone(), value::text(value)?))).collect(),
        _ => None,
    };
    pairs.ok_or_else(|| serde::de::Error::custom(format!("{value} is no mapping of names to texts")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(section: Value) -> RestApi {
        serde_json::from_value(section).unwrap()
    }

    #[test]
    fn the_section_is_read_as_people_write_it() {
        let restapi = of(json!({"authentication": {"username": "patroni", "password": 1234},
            "allowlist": "10.0.0.0/8, ops.example", "allowlist_include_members": "on",
            "http_extra_headers": {"X-Frame-Options": "SAMEORIGIN", "X-Number": 1}, "server_tokens": "Minimal"}));
        assert_eq!(restapi.authentication.as_ref().unwrap().password, "1234");
        assert_eq!(format!("{:?}", restapi.authentication.as_ref().unwrap()), "patroni:…", "no log shows it");
        assert_eq!(restapi.allowlist, ["10.0.0.0/8", "ops.example"]);
        assert!(restapi.allowlist_include_members);
        assert_eq!(restapi.headers["X-Number"], "1");
        assert!(restapi.check().is_ok());
        assert_eq!(of(json!({"allowlist": ["::1"], "https_extra_headers": null})).allowlist, ["::1"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (section, key) in [
            (json!({"allowlist": ["10.0.0.0/33"]}), "restapi.allowlist: "),
            (json!({"http_extra_headers": {"a b": "c"}}), "restapi.http_extra_headers: "),
            (json!({"https_extra_headers": {"a": "c\n"}}), "restapi.https_extra_headers: "),
            (json!({"server_tokens": "much"}), "restapi.server_tokens: "),
            (json!({"certfile": "x", "verify_client": "optional"}), "restapi.cafile: "),
        ] {
            let error = of(section).check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
        assert!(serde_json::from_value::<RestApi>(json!({"authentication": {"username": "x"}})).is_err());
    }
}
