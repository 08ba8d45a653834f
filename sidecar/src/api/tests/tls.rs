//! `verify_client`, passwords and reloads over TLS.

use std::sync::Arc;
use std::time::Duration;

use matriarch_ha::effect::{Peer, Question};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::certificates::{Ca, Folder, HOST, PATIENCE, anonymous};
use super::*;
use crate::api::access::basic;
use crate::api::server::serve;
use crate::config::VerifyClient;
use crate::config::ctl::Ctl;
use crate::config::restapi::{Login, RestApi};
use crate::driver::clock;
use crate::driver::handle::{Handle, HandleEnd};
use crate::peers::{Peers, Sender};
use crate::tls::{Files, Tls};

const GET: &str = "GET /primary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const RELOAD: &str = "POST /reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

struct Server {
    port: u16,
    tls: Arc<Tls>,
    site: watch::Sender<Arc<Site>>,
    handle: Handle,
    _end: HandleEnd,
}

fn section(folder: &Folder, verify_client: VerifyClient) -> RestApi {
    let file = |name: &str| Some(folder.0.join(name));
    RestApi {
        certfile: file("tls.crt"),
        keyfile: file("tls.key"),
        cafile: file("ca.crt"),
        verify_client,
        ..RestApi::default()
    }
}

fn files(restapi: &RestApi) -> Files {
    Files::configured(restapi, &Ctl::default()).unwrap()
}

impl Server {
    async fn new(restapi: &RestApi) -> Self {
        let (handle, end) = Handle::new();
        let (view, mut site, _) = states::state("primary", clock::now().boot);
        end.view.send(Arc::new(view)).unwrap();
        site.configure(restapi);
        let tls = Arc::new(Tls::load_looking_every(files(restapi), Duration::from_hours(1)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (site, receiver) = watch::channel(Arc::new(site));
        tokio::spawn(serve(listener, Some(tls.clone()), handle.clone(), receiver));
        Self { port, tls, site, handle, _end: end }
    }

    /// Status of an anonymous request; none: the connection was refused.
    async fn code(&self, folder: &Folder, request: &str) -> Option<u16> {
        let answer = anonymous(self.port, folder, request).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }
}

#[tokio::test]
async fn verify_client_is_patronis() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    for (verify_client, get, reload) in [
        (VerifyClient::None, Some(200), Some(202)),
        (VerifyClient::Optional, Some(200), Some(403)),
        (VerifyClient::Required, None, None),
    ] {
        let server = Server::new(&section(&folder, verify_client)).await;
        assert_eq!(server.code(&folder, GET).await, get, "{verify_client:?}");
        assert_eq!(server.code(&folder, RELOAD).await, reload, "{verify_client:?}");
        // With a certificate everything may be asked.
        let peer = Peer { member: "m".into(), ip: "127.0.0.1".into(), port: server.port, host: HOST.into() };
        let status = peers(&folder, None).ask(&peer, &Question::Status, PATIENCE).await;
        assert!(status.is_ok(), "{verify_client:?}: {status:?}");
    }
}

fn peers(folder: &Folder, authorization: Option<String>) -> Peers {
    Peers::new(Some(folder.tls()), Sender { conn_url: "c".into(), api_url: "a".into(), authorization })
}

#[tokio::test]
async fn a_peer_sends_the_password() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    let login = Login { username: "admin".into(), password: "open sesame".into() };
    let restapi = RestApi { authentication: Some(login), ..section(&folder, VerifyClient::Optional) };
    let server = Server::new(&restapi).await;
    let peer = Peer { member: "m".into(), ip: "127.0.0.1".into(), port: server.port, host: HOST.into() };
    let election = Question::Election { candidate: "orders-1".into() };
    let ask = async |authorization| peers(&folder, authorization).ask(&peer, &election, Duration::from_secs(1)).await;
    assert_eq!(ask(None).await.unwrap_err(), "it answered 401: no auth header received");
    assert_eq!(ask(Some("Basic x".into())).await.unwrap_err(), "it answered 401: not authenticated");
    let silent = ask(Some(basic("admin", "open sesame"))).await.unwrap_err();
    assert_eq!(silent, "no answer within 1000 ms", "the core here answers nothing, but was asked");
}

#[tokio::test]
async fn without_a_ca_servers_are_believed_and_with_one_they_are_not() {
    let (ours, theirs, folder, other) = (Ca::new(), Ca::new(), Folder::new(), Folder::new());
    theirs.issue(&folder.0, "some-other-name");
    ours.issue(&other.0, HOST);
    let server = Server::new(&section(&folder, VerifyClient::None)).await;
    let peer = Peer { member: "m".into(), ip: "127.0.0.1".into(), port: server.port, host: HOST.into() };
    let restapi = RestApi { cafile: None, ..section(&other, VerifyClient::None) };
    let insecure = Ctl { insecure: true, ..Ctl::default() };
    for (restapi, ctl, believed) in [
        (restapi.clone(), Ctl::default(), true),
        (section(&other, VerifyClient::None), insecure, true),
        (section(&other, VerifyClient::None), Ctl::default(), false),
        (restapi, Ctl { cacert: Some(other.0.join("ca.crt")), ..Ctl::default() }, false),
    ] {
        let tls = Tls::load(Files::configured(&restapi, &ctl).unwrap()).unwrap();
        let sender = Sender { conn_url: "c".into(), api_url: "a".into(), authorization: None };
        let answer = Peers::new(Some(Arc::new(tls)), sender).ask(&peer, &Question::Status, PATIENCE).await;
        assert_eq!(answer.is_ok(), believed, "{restapi:?} {ctl:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_reload_takes_effect_with_the_next_request_and_a_bad_one_not_at_all() {
    let (ca, folder, second) = (Ca::new(), Folder::new(), Folder::new());
    ca.issue(&folder.0, HOST);
    ca.issue(&second.0, HOST);
    let restapi = section(&folder, VerifyClient::None);
    let server = Server::new(&restapi).await;
    assert_eq!(server.code(&folder, RELOAD).await, Some(202));
    tokio::time::timeout(PATIENCE, server.handle.reload_asked()).await.unwrap();

    let stricter = section(&second, VerifyClient::Required);
    server.tls.reload(files(&stricter)).unwrap();
    assert_eq!(server.code(&folder, GET).await, None, "a certificate is required now");
    let broken = RestApi { certfile: Some(folder.0.join("ca.crt")), ..restapi.clone() };
    assert!(server.tls.reload(files(&broken)).is_err(), "a key that belongs to another certificate");
    assert_eq!(server.code(&folder, GET).await, None, "as before");
    server.tls.reload(files(&restapi)).unwrap();

    let login = Login { username: "admin".into(), password: "open sesame".into() };
    let mut site = Site::clone(&server.site.borrow());
    site.configure(&RestApi { authentication: Some(login), ..restapi });
    server.site.send(Arc::new(site)).unwrap();
    assert_eq!(server.code(&folder, RELOAD).await, Some(401));
    assert_eq!(server.code(&folder, GET).await, Some(200));
}
