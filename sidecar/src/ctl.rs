//! `matriarch-sidecar ctl METHOD PATH [BODY]`: one request to the agent of this pod, over its own REST API and with its own
//! certificate. `kubectl matriarch` runs it in the agent's container, so that whoever may exec there needs no network to the pod.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use matriarch_ha::effect::Peer;
use serde_json::{Value, json};

use crate::config::{Config, HostPort};
use crate::peers::{Peers, Sender};
use crate::tls::{Files, Tls};

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent's configuration. Where the operator puts it, unless told otherwise.
    #[arg(long, default_value = matriarch_crds::names::AGENT_CONFIG)]
    pub config: PathBuf,
    /// For how many seconds the answer is waited for.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
    /// `GET`, `POST`, `PATCH`, `PUT` or `DELETE`.
    pub method: Method,
    /// Such as `/restart`.
    pub path: String,
    /// JSON.
    pub body: Option<String>,
}

/// The answer as a line of JSON, `{"code": 200, "body": …}`: whatever the agent answered, an error only if it did not.
pub async fn run(args: &Args) -> anyhow::Result<String> {
    let config = Config::load(Some(&args.config))?;
    let listen = HostPort::parse("restapi.listen", &config.restapi.listen)?;
    let tls = Files::configured(&config.restapi, &config.ctl).map(Tls::load).transpose()?.map(Arc::new);
    let peer = Peer {
        member: config.pod.name.clone(),
        ip: if listen.is_everywhere() { "127.0.0.1".to_owned() } else { listen.host.clone() },
        port: listen.port,
        host: config.api.host.clone(),
    };
    let peers = Peers::new(tls, Sender::new(&config, String::new(), String::new()));
    let patience = Duration::from_secs(args.timeout);
    let answer = peers.call(&peer, args.method.clone(), &args.path, args.body.as_deref(), patience).await;
    let (code, body) = answer.map_err(anyhow::Error::msg)?;
    let body = serde_json::from_str::<Value>(&body).unwrap_or(Value::String(body));
    Ok(json!({"code": code, "body": body}).to_string())
}
