//! The contract: every row of `contract.txt`, sent to the real server over a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch_ha::effect::Reply;
use matriarch_ha::event::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::states::state;
use super::*;
use crate::api::server::serve;
use crate::driver::clock;
use crate::driver::handle::Handle;

const ROWS: &str = include_str!("contract.txt");

/// A node in one state.
pub struct Node {
    pub address: SocketAddr,
    authorization: Option<String>,
    /// What the core was asked.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Node {
    pub async fn new(words: &str) -> Self {
        let (view, site, extra) = state(words, clock::now().boot);
        let (handle, mut end) = Handle::new();
        let listener = TcpListener::bind((states::CLIENT, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let primary = view.server.as_ref().is_none_or(|server| !server.in_recovery);
        end.view.send(Arc::new(view)).unwrap();
        tokio::spawn(serve(listener, None, handle, watch::channel(Arc::new(site)).1));
        tokio::spawn(async move {
            let _view = end.view;
            while let Some(asked) = end.requests.recv().await {
                heard.lock().unwrap().push(format!("{:?}", asked.request));
                let _ = asked.answer.send(reply(&asked.request, primary));
            }
        });
        Self { address, authorization: extra.authorization, asked }
    }

    /// Head and body of the answer.
    pub async fn send(&self, request: &str, body: &str) -> (String, String) {
        let authorization = self.authorization.iter().map(|value| format!("Authorization: {value}\r\n"));
        let length = (body != "-").then(|| format!("Content-Length: {}\r\n", body.len()));
        let headers: String = authorization.chain(length).collect();
        let body = if body == "-" { "" } else { body };
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n{body}");
        let answer = self.raw(text.as_bytes()).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.to_owned(), body.to_owned())
    }

    /// All that comes back until the connection ends.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that has heard enough may close before everything is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
        answer
    }
}

/// A core that says yes where it can.
fn reply(request: &Request, primary: bool) -> Reply {
    let (code, text) = match request {
        Request::PatchConfig(_) | Request::ReplaceConfig(_) => return Reply::Document(json!({"ttl": 10})),
        Request::Restart(_) => (200, "restarted successfully"),
        Request::CancelRestart => (404, "no restarts are scheduled"),
        Request::Reinitialize { .. } => (200, "reinitialize started"),
        Request::Switchover { .. } => (200, "Successfully switched over to \"orders-1\""),
        Request::CancelSwitchover => (404, "no switchover is scheduled"),
        Request::Failsafe { .. } if primary => (500, "Running as a leader"),
        Request::Failsafe { .. } => (200, "Accepted"),
        Request::Election { .. } => return Reply::Position(matriarch_ha::event::PeerAnswer::default()),
        Request::Snapshot => (500, "not here"),
    };
    Reply::Text { code, text: text.into() }
}

/// `.a.0.b` in a document.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    document.pointer(&path.replace('.', "/"))
}

fn check(expectation: &str, head: &str, body: &str, asked: &[String]) -> Result<(), String> {
    let fails = |why: String| Err(format!("{expectation}: {why}"));
    let document = || serde_json::from_str::<Value>(body).map_err(|_| format!("{expectation}: no JSON: {body}"));
    if let Some(text) = expectation.strip_prefix('"') {
        let text = text.strip_suffix('"').unwrap_or(text);
        return if body == text { Ok(()) } else { fails(body.to_owned()) };
    }
    if let Some(path) = expectation.strip_prefix('!') {
        return at(&document()?, path).map_or(Ok(()), |found| fails(found.to_string()));
    }
    if let Some(part) = expectation.strip_prefix("~ ") {
        return if body.contains(part) { Ok(()) } else { fails(body.to_owned()) };
    }
    if expectation == "empty" {
        return if body.is_empty() { Ok(()) } else { fails(body.to_owned()) };
    }
    if let Some(request) = expectation.strip_prefix("asks ") {
        let one = asked.len() == 1 && asked[0].starts_with(request);
        return if one { Ok(()) } else { fails(format!("{asked:?}")) };
    }
    if expectation.starts_with('.') {
        let (path, value) = expectation.split_once(" = ").unwrap();
        let value: Value = serde_json::from_str(value).unwrap();
        let document = document()?;
        return if at(&document, path) == Some(&value) { Ok(()) } else { fails(document.to_string()) };
    }
    let (name, value) = expectation.split_once(": ").unwrap();
    let header = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let found = header.into_iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value);
    if found { Ok(()) } else { fails(head.to_owned()) }
}

#[tokio::test]
async fn every_row_of_the_contract_holds() {
    let mut nodes = BTreeMap::new();
    let (mut rows, mut broken) = (0, Vec::new());
    for row in ROWS.lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let columns: Vec<&str> = row.splitn(5, '|').map(str::trim).collect();
        let [words, request, body, status, expectations] = columns[..] else { panic!("not five columns: {row}") };
        if !nodes.contains_key(words) {
            nodes.insert(words.to_owned(), Node::new(words).await);
        }
        let node = &nodes[words];
        node.asked.lock().unwrap().clear();
        let (head, answer) = node.send(request, body).await;
        let asked = node.asked.lock().unwrap().clone();
        let mut wrong = Vec::new();
        if !head.starts_with(&format!("HTTP/1.1 {status} ")) {
            wrong.push(format!("status: {head}\n{answer}"));
        }
        let expectations = || expectations.split("; ").filter(|expectation| !expectation.is_empty());
        wrong.extend(expectations().filter_map(|one| check(one, &head, &answer, &asked).err()));
        if !expectations().any(|one| one.starts_with("asks ")) && !asked.is_empty() && !status.starts_with('2') {
            wrong.push(format!("refused, and yet the core was asked: {asked:?}"));
        }
        rows += 1;
        if !wrong.is_empty() {
            broken.push(format!("{row}\n    {}", wrong.join("\n    ")));
        }
    }
    assert!(broken.is_empty(), "{} of {rows} rows are broken:\n{}", broken.len(), broken.join("\n"));
    assert!(rows > 200, "{rows}");
}
