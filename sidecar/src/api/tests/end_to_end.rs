//! Server and client over real sockets and real certificates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use matriarch_ha::effect::{Peer, Question, Reply};
use matriarch_ha::event::{PeerAnswer, Request};
use rcgen::KeyPair;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::certificates::{Ca, Folder, HOST, PATIENCE, anonymous};
use super::*;
use crate::api::access::Access;
use crate::api::server::serve;
use crate::ctl;
use crate::driver::clock;
use crate::driver::handle::Handle;
use crate::peers::{Peers, Sender};
use crate::tls::Tls;

/// A member with a core that knows three answers.
async fn member(tls: Option<Arc<Tls>>) -> Peer {
    let (handle, mut end) = Handle::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site { access: Access { needs_certificate: tls.is_some(), ..Access::default() }, ..site() };
    tokio::spawn(serve(listener, tls, handle, watch::channel(Arc::new(site)).1));
    tokio::spawn(async move {
        let now = clock::now().boot;
        let view = View { leader_until: now.plus_ms(60_000), store_seen: now, cycle_at: now, ..leader() };
        end.view.send(Arc::new(view)).unwrap();
        while let Some(asked) = end.requests.recv().await {
            let reply = match asked.request {
                Request::Election { candidate } => Reply::Position(PeerAnswer {
                    running: true,
                    lsn: Lsn(4711),
                    stream_ended: candidate == "orders-1",
                    ..PeerAnswer::default()
                }),
                Request::Failsafe { leader, leader_uid, ttl_ms: 9_000 }
                    if leader == "orders-1" && leader_uid == "u" =>
                {
                    Reply::Text { code: 200, text: "Accepted".into() }
                }
                Request::Failsafe { .. } => Reply::Text { code: 500, text: "Running as a leader".into() },
                Request::CancelSwitchover => Reply::Text { code: 404, text: "no switchover is scheduled".into() },
                Request::Snapshot => {
                    let core = matriarch_ha::core::Core::new(matriarch_ha::core::Identity::default());
                    Reply::Snapshot(Box::new(core.snapshot(matriarch_ha::types::Boot(7))))
                }
                Request::Switchover { .. }
                | Request::Restart(_)
                | Request::CancelRestart
                | Request::Reinitialize { .. }
                | Request::PatchConfig(_)
                | Request::ReplaceConfig(_) => Reply::Text { code: 412, text: "leader name does not match".into() },
            };
            let _ = asked.answer.send(reply);
        }
    });
    tokio::task::yield_now().await;
    Peer { member: "orders-0".into(), ip: "127.0.0.1".into(), port: address.port(), host: HOST.into() }
}

fn peers(tls: Option<Arc<Tls>>) -> Peers {
    Peers::new(
        tls,
        Sender {
            conn_url: "postgres://h:5432/postgres".into(),
            api_url: "https://h:8008/patroni".into(),
            authorization: None,
        },
    )
}

fn election() -> Question {
    Question::Election { candidate: "orders-1".into() }
}

fn failsafe(leader: &str) -> Question {
    Question::Failsafe { leader: leader.into(), leader_uid: "u".into(), ttl_ms: 9_000 }
}

#[tokio::test]
async fn peers_understand_each_other_over_tls() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    let peer = member(Some(folder.tls())).await;
    let peers = peers(Some(folder.tls()));

    let status = peers.ask(&peer, &Question::Status, PATIENCE).await.unwrap();
    assert!(status.running && status.primary && !status.stream_ended);
    assert_eq!((status.lsn, status.timeline, status.pod_uid.as_str()), (Lsn(1000), Timeline(3), "uid-of-orders-0"));
    assert_eq!(status.system_id, "7268616322854375442");

    let begun = Instant::now();
    let answer = peers.ask(&peer, &election(), PATIENCE).await.unwrap();
    println!("election asked and answered in {:?}", begun.elapsed());
    assert_eq!((answer.lsn, answer.stream_ended), (Lsn(4711), true));

    assert_eq!(peers.failsafe(&peer, &failsafe("orders-1"), PATIENCE).await, Ok(()));
    let refused = peers.failsafe(&peer, &failsafe("orders-2"), PATIENCE).await.unwrap_err();
    assert_eq!(refused, "it answered 500: Running as a leader");
}

#[tokio::test]
async fn without_certificates_it_is_plain_http() {
    let peer = member(None).await;
    let answer = peers(None).ask(&peer, &election(), PATIENCE).await.unwrap();
    assert_eq!(answer.lsn, Lsn(4711));
}

#[tokio::test]
async fn without_a_client_certificate_one_may_only_look() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    let peer = member(Some(folder.tls())).await;

    for path in ["/switchover", "/failsafe", "/election"] {
        // The body is announced and never sent: who may not is refused before.
        let post = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\nConnection: close\r\n\r\n");
        let answer = anonymous(peer.port, &folder, &post).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.ends_with("client certificate required"), "{answer}");
    }
    for (method, path, code) in [
        ("GET", "/primary", 200),
        ("GET", "/replica", 503),
        ("GET", "/liveness", 200),
        ("GET", "/readiness", 200),
        ("HEAD", "/replica", 503),
        ("OPTIONS", "/leader", 200),
        ("GET", "/replica?lag=10MB&%zz", 503),
        ("DELETE", "/restart", 403),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = anonymous(peer.port, &folder, &request).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{method} {path}: {answer}");
        assert_eq!(
            answer.contains("application/json"),
            method == "GET" && !path.contains("ness"),
            "{method} {path}: {answer}"
        );
    }
}

#[tokio::test]
async fn bodies_without_a_length_or_too_long_are_refused() {
    let peer = member(None).await;
    for (header, code) in [("Transfer-Encoding: chunked", 411), ("Content-Length: 70000", 413)] {
        let mut stream = TcpStream::connect((peer.ip.as_str(), peer.port)).await.unwrap();
        let post = format!("POST /switchover HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n");
        stream.write_all(post.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    }
}

#[tokio::test]
async fn another_name_or_another_ca_is_refused() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    let peer = member(Some(folder.tls())).await;
    let elsewhere = Peer { host: "orders-2.orders-pods.x.svc".into(), ..peer.clone() };
    let refused = peers(Some(folder.tls())).ask(&elsewhere, &Question::Status, PATIENCE).await.unwrap_err();
    assert!(refused.contains("certificate not valid for name"), "{refused}");

    let (other, folder) = (Ca::new(), Folder::new());
    other.issue(&folder.0, HOST);
    let refused = peers(Some(folder.tls())).ask(&peer, &Question::Status, PATIENCE).await.unwrap_err();
    assert!(refused.starts_with("TLS with 127.0.0.1:"), "{refused}");
}

#[tokio::test]
async fn renewed_certificates_are_used_and_broken_ones_are_not() {
    let (ca, server) = (Ca::new(), Folder::new());
    ca.issue(&server.0, "some-other-name");
    let peer = member(Some(server.tls())).await;
    let client = Folder::new();
    ca.issue(&client.0, "orders-1.orders-pods.x.svc");
    let peers = peers(Some(client.tls()));
    assert!(peers.ask(&peer, &election(), PATIENCE).await.is_err());

    ca.issue(&server.0, HOST);
    assert_eq!(peers.ask(&peer, &election(), PATIENCE).await.map(|answer| answer.lsn), Ok(Lsn(4711)));

    // A key that does not belong to the certificate, as between the writing of two files.
    std::fs::write(server.0.join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(peers.ask(&peer, &election(), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_silent_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = Peer { member: "m".into(), ip: "127.0.0.1".into(), port, host: HOST.into() };
    let error = peers(None).ask(&peer, &Question::Status, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error, "no answer within 50 ms");
    drop(listener);
    let error = peers(None).ask(&peer, &Question::Status, PATIENCE).await.unwrap_err();
    assert!(error.starts_with("cannot connect to 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn one_slow_address_does_not_take_all_connections() {
    let peer = member(None).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect((peer.ip.as_str(), peer.port)).await.unwrap());
    }
    // 127.0.0.2 is another address to the server.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stream = socket.connect(format!("127.0.0.1:{}", peer.port).parse().unwrap()).await.unwrap();
    stream.write_all(b"GET /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(peers(None).ask(&peer, &Question::Status, Duration::from_millis(500)).await.is_err());
    drop(held);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(peers(None).ask(&peer, &Question::Status, PATIENCE).await.is_ok());
}

#[tokio::test]
async fn what_is_deleted_needs_no_body() {
    let peer = member(None).await;
    let mut stream = TcpStream::connect((peer.ip.as_str(), peer.port)).await.unwrap();
    stream.write_all(b"DELETE /switchover HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("no switchover is scheduled"), "{answer}");
}

#[tokio::test]
async fn the_snapshot_of_the_moment_can_be_explained() {
    let peer = member(None).await;
    let mut stream = TcpStream::connect((peer.ip.as_str(), peer.port)).await.unwrap();
    stream.write_all(b"GET /snapshot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(crate::explain::explain(body).unwrap().starts_with("rule:   server.detached"));
}

#[tokio::test]
async fn ctl_gives_the_agents_answer_whatever_it_is() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    let (port, at) = (member(Some(folder.tls())).await.port, folder.0.display());
    let config = folder.0.join("patroni.yml");
    let text = format!(
        "{{scope: orders, name: orders-0, restapi: {{listen: '127.0.0.1:{port}', connect_address: '{HOST}:{port}', \
         certfile: {at}/tls.crt, keyfile: {at}/tls.key, cafile: {at}/ca.crt}}, postgresql: {{listen: '127.0.0.1:5432', \
         data_dir: {at}/data, authentication: {{superuser: {{username: postgres, password: x}}, \
         replication: {{username: replicator, password: x}}}}}}}}"
    );
    std::fs::write(&config, text).unwrap();
    let ask = async |method: &str, path: &str, body: Option<&str>| {
        let (method, path) = (method.parse().unwrap(), path.to_owned());
        let args = ctl::Args { config: config.clone(), timeout: 5, method, path, body: body.map(str::to_owned) };
        let answer: Value = serde_json::from_str(&ctl::run(&args).await.unwrap()).unwrap();
        (answer["code"].clone(), answer["body"].clone())
    };
    let (code, body) = ask("GET", "/patroni", None).await;
    assert_eq!((code, &body["role"]), (json!(200), &json!("primary")), "{body}");
    // Only with a client certificate.
    assert_eq!(ask("DELETE", "/switchover", None).await, (json!(404), json!("no switchover is scheduled")));
    assert_eq!(ask("POST", "/restart", Some("{}")).await, (json!(412), json!("leader name does not match")));
}
