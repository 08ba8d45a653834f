//! Section `restapi`.

use std::path::PathBuf;

use matriarch_crds::names;
use serde::Deserialize;

use super::{Error, HostPort};

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
    /// Who signs peers and clients.
    pub cafile: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub verify_client: VerifyClient,
}

impl Default for RestApi {
    fn default() -> Self {
        Self {
            listen: format!("0.0.0.0:{}", names::API_PORT),
            connect_address: None,
            certfile: None,
            keyfile: None,
            cafile: None,
            verify_client: VerifyClient::None,
        }
    }
}

impl RestApi {
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
    None,
    /// Needed for methods that change something.
    Optional,
    /// Needed for everything.
    Required,
}
