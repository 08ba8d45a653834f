//! What the operator asks a member's agent for: a restart of PostgreSQL, by Patroni's REST API, with the members' own
//! certificate. Nothing else in the operator speaks to agents; without a way to them a pod is made anew instead.

use std::net::IpAddr;
use std::time::Duration;

use http::Request;
use k8s_openapi::ByteString;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use matriarch_crds::names::API_PORT;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use x509_parser::pem::Pem;

/// For how long the agent's port may not answer.
const CONNECT: Duration = Duration::from_secs(3);
/// For how long the restart is waited for here. Whether it is done shows in what the member says later.
const PATIENCE: Duration = Duration::from_secs(15);
/// What an agent says when the member is not as the operator saw it.
const UNSATISFIED: &str = "restart conditions are not satisfied";

/// Where an agent is, and who it must be.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    /// Its pod's address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// The name that its certificate must bear.
    pub host: &'a str,
    /// `data` of the Secret with the members' certificate.
    pub tls: &'a Value,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It was taken, and goes on: no answer yet.
    UnderWay,
    /// Nothing was done, for the member waits for no restart any more, or has another role.
    NotNeeded,
    /// It was refused, with the agent's words.
    Refused(String),
    /// Nobody can be reached there, or nobody with the cluster's certificate: there was no answer at all.
    Unreachable(String),
}

/// An error with its causes: what TLS does not like is the last of them.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

impl<'a> Agent<'a> {
    /// The agent of a pod.
    pub fn of(ip: IpAddr, host: &'a str, tls: &'a Value) -> Self {
        Self { ip, port: API_PORT, host, tls }
    }

    /// Restarts PostgreSQL, if it waits for that and has this role.
    pub async fn restart(self, role: &str) -> Answer {
        match timeout(CONNECT, TcpStream::connect((self.ip, self.port))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Answer::Unreachable(error.to_string()),
            Err(_) => return Answer::Unreachable(format!("no answer within {} s", CONNECT.as_secs())),
        }
        match timeout(PATIENCE, self.post("/restart", &json!({"restart_pending": true, "role": role}))).await {
            Ok(Ok((200..300, _))) => Answer::Done,
            Ok(Ok((_, text))) if text.contains(UNSATISFIED) => Answer::NotNeeded,
            Ok(Ok((code, text))) => Answer::Refused(format!("{} (code {code})", text.trim())),
            Ok(Err(error)) => Answer::Unreachable(chain(&*error)),
            Err(_) => Answer::UnderWay,
        }
    }

    async fn post(self, path: &str, body: &Value) -> Result<(u16, String), Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string().into_bytes()))?;
        let answer = self.client()?.send(request).await?;
        let code = answer.status().as_u16();
        let text = answer.into_body().collect_bytes().await?;
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// kube's client is one for HTTP with a certificate of one's own, too.
    fn client(self) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
        let host = match self.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let ByteString(authority) = serde_json::from_value(self.tls["ca.crt"].clone())?;
        let authority: Vec<Vec<u8>> = Pem::iter_from_buffer(&authority)
            .map(|pem| Ok(pem?.contents))
            .collect::<Result<_, x509_parser::error::PEMError>>()?;
        // Secrets and kubeconfigs have PEM in the same encoding.
        let identity: AuthInfo = serde_json::from_value(json!({
            "client-certificate-data": self.tls["tls.crt"],
            "client-key-data": self.tls["tls.key"],
        }))?;
        let mut config = Config::new(format!("https://{host}:{}", self.port).parse()?);
        config.root_cert = Some(authority);
        config.auth_info = identity;
        config.tls_server_name = Some(self.host.to_owned());
        // A refusal is one, and not an overload.
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }
}

#[cfg(test)]
mod tests;
