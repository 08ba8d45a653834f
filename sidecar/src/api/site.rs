//! What of the static configuration the API shows and goes by. Made anew when that is read again.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use matriarch_ha::member_status::PATRONI_VERSION;
use matriarch_ha::types::Boot;
use serde_json::Value;

use super::access::{Access, basic};
use super::limits::Limits;
use crate::config::{Config, RestApi, VerifyClient};

/// Names of the cluster and of this member's REST API.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The cluster's name in Patroni's words.
    pub scope: String,
    /// `tags` of the static configuration.
    pub tags: BTreeMap<String, Value>,
    /// When the agent started: it counts as alive for a while before its first cycle.
    pub started: Boot,
    /// Who may change something.
    pub access: Access,
    /// `http_extra_headers`, and with TLS `https_extra_headers`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Header `Server`, by `server_tokens`; none: there is none.
    pub server: Option<HeaderValue>,
    /// How patient we are.
    pub limits: Limits,
}

impl Site {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config, started: Boot) -> Self {
        let mut site =
            Self { scope: config.scope.clone(), tags: config.tags.published.clone(), started, ..Self::default() };
        site.configure(&config.restapi);
        site
    }

    /// What section `restapi` says.
    pub fn configure(&mut self, restapi: &RestApi) {
        let RestApi { headers, tls_headers, certfile, server_tokens, .. } = restapi;
        let mut all = headers.clone();
        if certfile.is_some() {
            all.extend(tls_headers.clone());
        }
        let pair = |(name, value): (String, String)| Some((name.parse().ok()?, value.parse().ok()?));
        self.headers = all.into_iter().filter_map(pair).collect();
        self.server = match server_tokens.to_ascii_lowercase().as_str() {
            "productonly" => Some(HeaderValue::from_static("Patroni")),
            "minimal" => HeaderValue::try_from(format!("Patroni/{PATRONI_VERSION}")).ok(),
            _ => None,
        };
        self.access = access(restapi);
    }

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

fn access(restapi: &RestApi) -> Access {
    let (mut networks, mut names) = (Vec::new(), Vec::new());
    for entry in &restapi.allowlist {
        match entry.parse() {
            Ok(network) => networks.push(network),
            Err(()) => names.push(entry.clone()),
        }
    }
    Access {
        networks,
        names,
        include_members: restapi.allowlist_include_members,
        needs_certificate: restapi.certfile.is_some() && restapi.verify_client != VerifyClient::None,
        authorization: restapi.authentication.as_ref().map(|login| basic(&login.username, &login.password)),
    }
}
