//! Questions to the other members over their REST API: one question, one connection, one deadline.
//!
//! Connections are not kept: a kept one to a peer that is gone looks alive until its deadline, which is what an election cannot
//! wait for, and a new one costs two round trips and a few milliseconds (measured: 3.5 ms for a whole election, unoptimized).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use matriarch_ha::effect::{Peer, Question};
use matriarch_ha::event::PeerAnswer;
use matriarch_ha::tags::Tags;
use matriarch_ha::types::{Lsn, Timeline};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::api::access::basic;
use crate::config::Config;
use crate::tls::Tls;

/// Longest answer that is read.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("its address {0:?} is none")]
    Address(String),
    #[error("its host {0:?} cannot be verified by TLS")]
    Host(String),
    #[error("cannot connect to {place}: {source}")]
    Connect { place: String, source: std::io::Error },
    #[error("TLS with {place}: {source}")]
    Tls { place: String, source: std::io::Error },
    #[error("HTTP with {place}: {source}")]
    Http { place: String, source: hyper::Error },
    #[error("the request cannot be built: {0}")]
    Request(#[from] http::Error),
    #[error("its answer cannot be read: {0}")]
    Body(String),
    #[error("it answered {code}: {text}")]
    Refused { code: u16, text: String },
    #[error("its answer makes no sense: {0}")]
    Answer(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
}

/// What a failsafe call tells about its sender.
#[derive(Debug, Clone)]
pub struct Sender {
    /// `postgres://host:port/postgres`
    pub conn_url: String,
    /// `https://host:port/patroni`
    pub api_url: String,
    /// Header `Authorization` of every request.
    pub authorization: Option<String>,
}

impl Sender {
    /// With the login of section `ctl`, or that of `restapi`.
    #[must_use]
    pub fn new(config: &Config, conn_url: String, api_url: String) -> Self {
        let login = config.ctl.authentication.as_ref().or(config.restapi.authentication.as_ref());
        Self { conn_url, api_url, authorization: login.map(|login| basic(&login.username, &login.password)) }
    }
}

/// Asks peers.
pub struct Peers {
    tls: Option<Arc<Tls>>,
    sender: Sender,
}

impl Peers {
    /// Without `tls`, peers are dialled by plain HTTP, as our own API is then.
    #[must_use]
    pub fn new(tls: Option<Arc<Tls>>, sender: Sender) -> Self {
        Self { tls, sender }
    }

    /// Status or election. An error is a sentence for people.
    pub async fn ask(&self, peer: &Peer, question: &Question, timeout: Duration) -> Result<PeerAnswer, String> {
        let (code, body) = self.send(peer, question, timeout).await.map_err(|error| error.to_string())?;
        let answer = match question {
            Question::Status => status(code, &body),
            Question::Election { .. } | Question::Failsafe { .. } => position(code, &body),
        };
        answer.map_err(|error| error.to_string())
    }

    /// Failsafe: fine only if it accepted.
    pub async fn failsafe(&self, peer: &Peer, question: &Question, timeout: Duration) -> Result<(), String> {
        match self.send(peer, question, timeout).await {
            Ok((StatusCode::OK, body)) if body.as_ref() == b"Accepted" => Ok(()),
            Ok((code, body)) => Err(refused(code, &body).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Any request, for `matriarch-sidecar ctl`. An error is a sentence for people.
    pub async fn call(
        &self,
        peer: &Peer,
        method: Method,
        path: &str,
        body: Option<&str>,
        timeout: Duration,
    ) -> Result<(u16, String), String> {
        let request = self.request(peer, method, path, body.map(|body| Bytes::from(body.to_owned())));
        let answer = match request {
            Ok(request) => self.exchange(peer, request, timeout).await,
            Err(error) => Err(error),
        };
        answer
            .map(|(code, body)| (code.as_u16(), String::from_utf8_lossy(&body).into_owned()))
            .map_err(|error| error.to_string())
    }

    async fn send(&self, peer: &Peer, question: &Question, timeout: Duration) -> Result<(StatusCode, Bytes), Error> {
        let (method, path, body) = match question {
            Question::Status => (Method::GET, "/patroni", None),
            Question::Election { candidate } => (Method::POST, "/election", Some(json!({"candidate": candidate}))),
            Question::Failsafe { leader, leader_uid, ttl_ms } => {
                let Sender { conn_url, api_url, .. } = &self.sender;
                let body = json!({
                    "name": leader, "conn_url": conn_url, "api_url": api_url, "slots": {},
                    "matriarch": {"pod_uid": leader_uid, "ttl_ms": ttl_ms},
                });
                (Method::POST, "/failsafe", Some(body))
            }
        };
        let request = self.request(peer, method, path, body.map(|body| Bytes::from(body.to_string())))?;
        self.exchange(peer, request, timeout).await
    }

    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        let exchange = async {
            let place = format!("{}:{}", if peer.ip.is_empty() { &peer.host } else { &peer.ip }, peer.port);
            let failed = |source| Error::Connect { place: place.clone(), source };
            let stream = if peer.ip.is_empty() {
                TcpStream::connect((peer.host.as_str(), peer.port)).await
            } else {
                let ip: IpAddr = peer.ip.parse().map_err(|_| Error::Address(peer.ip.clone()))?;
                TcpStream::connect((ip, peer.port)).await
            };
            let stream = stream.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let Some(tls) = &self.tls else {
                return exchange(stream, request, place).await;
            };
            let name = ServerName::try_from(peer.host.clone()).map_err(|_| Error::Host(peer.host.clone()))?;
            let stream = TlsConnector::from(tls.client()).connect(name, stream).await;
            let stream = stream.map_err(|source| Error::Tls { place: place.clone(), source })?;
            exchange(stream, request, place).await
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Error::Silent(timeout)))
    }

    fn request(
        &self,
        peer: &Peer,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, &peer.host).header(CONNECTION, "close");
        if let Some(authorization) = &self.sender.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        Ok(request.body(Full::new(body.unwrap_or_default()))?)
    }
}

/// One request on a fresh connection.
async fn exchange<T>(stream: T, request: Request<Full<Bytes>>, place: String) -> Result<(StatusCode, Bytes), Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |source| Error::Http { place: place.clone(), source };
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function, also when that is cancelled.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    let code = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
    let body = body.map_err(|error| Error::Body(error.to_string()))?;
    Ok((code, body.to_bytes()))
}

fn refused(code: StatusCode, body: &[u8]) -> Error {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    Error::Refused { code: code.as_u16(), text }
}

/// From the status document of a member that runs Matriarch or Patroni.
fn status(code: StatusCode, body: &[u8]) -> Result<PeerAnswer, Error> {
    if code != StatusCode::OK {
        return Err(refused(code, body));
    }
    let document: Value = serde_json::from_slice(body).map_err(|error| Error::Answer(error.to_string()))?;
    if !document.is_object() {
        return Err(Error::Answer("no JSON object".to_owned()));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Patroni's own peers accept both words; a member with neither has no server that answers.
    let place = document.get("xlog").or_else(|| document.get("wal")).filter(|place| place.is_object());
    let lsn = |key: &str| place.and_then(|place| place.get(key)).and_then(Value::as_u64).map(Lsn);
    let lsn = lsn("location").max(lsn("received_location")).max(lsn("replayed_location"));
    let primary = matches!(document["role"].as_str(), Some("primary" | "master"));
    let tags = Tags::parse(&document["tags"]);
    let watchdog_failed = document["watchdog_failed"].as_bool() == Some(true);
    Ok(PeerAnswer {
        running: document["state"] == "running" && lsn.is_some(),
        primary,
        lsn: lsn.unwrap_or_default(),
        timeline: Timeline(document["timeline"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0)),
        system_id: text(&document["database_system_identifier"]),
        pod_uid: text(&document["matriarch"]["pod_uid"]),
        nofailover: tags.nofailover || watchdog_failed,
        failover_priority: tags.failover_priority,
        demoted: document["matriarch"]["demoted"].as_bool() == Some(true),
        stream_ended: false,
        streaming: document["replication_state"] == "streaming",
        patroni: document.get("matriarch").is_none(),
        free: false,
        promised: false,
        starting: false,
    })
}

/// From the answer to an election.
fn position(code: StatusCode, body: &[u8]) -> Result<PeerAnswer, Error> {
    if code != StatusCode::OK {
        return Err(refused(code, body));
    }
    serde_json::from_slice(body).map_err(|error| Error::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &Value) -> PeerAnswer {
        status(StatusCode::OK, body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_primary_that_runs_patroni_is_understood() {
        let answer = parse(&json!({
            "state": "running", "role": "master", "xlog": {"location": 67_108_960}, "timeline": 4,
            "database_system_identifier": "7268616322854375442",
        }));
        assert_eq!(answer.lsn, Lsn(67_108_960));
        assert_eq!(answer.system_id, "7268616322854375442");
        assert!(answer.running && answer.primary && !answer.nofailover && answer.patroni);
    }

    #[test]
    fn a_standby_is_where_it_received_or_replayed_more() {
        let xlog = json!({"received_location": 100, "replayed_location": 200, "paused": false});
        let answer = parse(&json!({"state": "running", "role": "replica", "xlog": xlog, "timeline": 4}));
        assert_eq!((answer.lsn, answer.primary, answer.timeline), (Lsn(200), false, Timeline(4)));
        let streams = json!({
            "state": "running", "role": "replica", "xlog": {"received_location": 1}, "replication_state": "streaming",
        });
        assert!(parse(&streams).streaming && !answer.streaming);
        let mut ours = streams.clone();
        ours["matriarch"] = json!({"pod_uid": "u"});
        assert!(parse(&streams).patroni && !parse(&ours).patroni);
    }

    #[test]
    fn a_member_without_a_position_does_not_run() {
        assert!(!parse(&json!({"state": "running", "role": "replica"})).running);
        let starting = json!({"state": "starting", "role": "replica", "xlog": {"replayed_location": 5}});
        assert!(!parse(&starting).running);
    }

    #[test]
    fn tags_and_a_failed_watchdog_exclude() {
        for (tags, excluded) in [
            (json!({"nofailover": true}), true),
            (json!({"nofailover": "on"}), true),
            (json!({"failover_priority": 0}), true),
            (json!({"failover_priority": 0, "nofailover": false}), false),
            (json!({"failover_priority": 2}), false),
            (json!({}), false),
        ] {
            assert_eq!(parse(&json!({"tags": tags})).nofailover, excluded, "{tags}");
        }
        assert!(parse(&json!({"watchdog_failed": true})).nofailover);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(status(StatusCode::OK, b"[]").is_err());
        assert!(status(StatusCode::OK, b"<html>").is_err());
        assert!(status(StatusCode::BAD_GATEWAY, b"{}").is_err());
        assert!(position(StatusCode::OK, b"{}").is_err());
    }
}
