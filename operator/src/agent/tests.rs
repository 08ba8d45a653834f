//! A request as an agent gets it: over TLS, with the members' certificate.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls;

const HOST: &str = "orders-1.orders-pods.shop.svc";

fn secret() -> Value {
    let now = jiff::Timestamp::now();
    let authority = tls::issue_authority("orders", now).unwrap();
    let member = tls::issue_member(&authority, "orders", "shop", now).unwrap();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    json!({"tls.crt": bytes(&member.certificate), "tls.key": bytes(&member.key), "ca.crt": bytes(&authority.certificate)})
}

fn pem(secret: &Value, key: &str) -> Vec<u8> {
    serde_json::from_value::<ByteString>(secret[key].clone()).unwrap().0
}

/// Takes nobody without a certificate of the cluster's authority; gives one answer, and what it was asked.
async fn agent(secret: &Value, answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(secret, "ca.crt")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem(secret, "tls.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem(secret, "tls.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            // The first connection only looks whether somebody is there.
            let Ok(mut stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
            let mut asked = vec![0; 4096];
            let mut length = 0;
            while !asked[..length].ends_with(b"}") {
                length += stream.read(&mut asked[length..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            return String::from_utf8(asked[..length].to_vec()).unwrap();
        }
    });
    (port, task)
}

async fn restart(port: u16, tls: &Value) -> Answer {
    let agent = Agent { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port, host: HOST, tls };
    agent.restart("replica").await
}

#[tokio::test]
async fn a_restart_is_asked_for_with_the_members_certificate() {
    let secret = secret();
    for (answer, what) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\nrestarted successfully", Answer::Done),
        ("HTTP/1.1 503 x\r\ncontent-length: 40\r\n\r\nrestart conditions are not satisfied    ", Answer::NotNeeded),
        (
            "HTTP/1.1 503 x\r\ncontent-length: 26\r\n\r\nstop already in progress\r\n",
            Answer::Refused("stop already in progress (code 503)".to_owned()),
        ),
    ] {
        let (port, asked) = agent(&secret, answer).await;
        assert_eq!(restart(port, &secret).await, what);
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("POST /restart HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with(r#"{"restart_pending":true,"role":"replica"}"#), "{asked}");
    }
}

#[tokio::test]
async fn whoever_has_another_certificate_is_no_agent_of_ours() {
    let (ours, theirs) = (secret(), secret());
    let (port, _) = agent(&theirs, "").await;
    let Answer::Unreachable(why) = restart(port, &ours).await else { panic!("it was asked all the same") };
    assert!(why.contains("certificate"), "the cause is not told: {why}");
    let closed = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    assert!(matches!(restart(closed, &ours).await, Answer::Unreachable(_)));
}
