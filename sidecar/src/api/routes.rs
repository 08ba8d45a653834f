//! From an HTTP request to a pure function and back.

use std::convert::Infallible;
use std::sync::Arc;

use futures::Stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, SERVER, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Buf;
use matriarch_ha::effect::Reply;
use matriarch_ha::event::Request;
use serde_json::json;
use tokio::sync::watch;
use warp::filters::path::FullPath;
use warp::{Filter, Rejection};

use super::access::Caller;
use super::commands::{self, Command};
use super::seen::Seen;
use super::{Answer, Body, Site, body, query, read};
use crate::driver::clock;
use crate::driver::handle::Handle;

/// What every request has.
#[derive(Clone)]
struct Shared {
    handle: Handle,
    site: watch::Receiver<Arc<Site>>,
}

impl Shared {
    /// One look at the view and the clocks.
    fn look<T>(&self, answer: impl FnOnce(&Seen) -> T) -> T {
        let (view, site) = (self.handle.view(), self.site());
        answer(&Seen { view: &view, now: clock::now(), site: &site })
    }

    fn site(&self) -> Arc<Site> {
        self.site.borrow().clone()
    }
}

/// All paths. Requests must carry a [`Caller`] among their extensions.
pub fn routes(
    handle: Handle,
    site: watch::Receiver<Arc<Site>>,
) -> impl Filter<Extract = (Response<String>,), Error = Infallible> + Clone + Send + Sync + 'static {
    let shared = Shared { handle, site };
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Caller>())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, query: String, headers: HeaderMap, caller: Caller, body| {
            let shared = shared.clone();
            async move {
                let answer = match method {
                    Method::GET if read::first_segment(path.as_str()) == "snapshot" => snapshot(&shared).await,
                    Method::GET => shared.look(|seen| read::response(seen, path.as_str(), &query::parse(&query))),
                    Method::HEAD | Method::OPTIONS => {
                        shared.look(|seen| read::status_only(seen, path.as_str(), &query::parse(&query)))
                    }
                    method => {
                        let answer = change(method.as_str(), path.as_str(), &headers, caller, body, &shared).await;
                        answer.unwrap_or_else(|refused| refused)
                    }
                };
                on_the_wire(answer, &shared.site())
            }
        })
        .recover(|_: Rejection| async {
            Ok::<_, Infallible>(on_the_wire(Answer::text(400, "the request cannot be read"), &Site::default()))
        })
        .unify()
}

/// `GET /snapshot`: what a decision would look at now, for `matriarch-sidecar explain`. Only the core knows it.
async fn snapshot(shared: &Shared) -> Answer {
    match tokio::time::timeout(commands::AT_ONCE, shared.handle.ask(Request::Snapshot)).await {
        Ok(Some(Reply::Snapshot(snapshot))) => Answer::json(200, json!(snapshot)),
        _ => Answer::text(503, "the agent does not answer"),
    }
}

/// Everything that changes something. Who may not is refused before the body is read.
async fn change<B: Buf>(
    method: &str,
    path: &str,
    headers: &HeaderMap,
    caller: Caller,
    body: impl Stream<Item = Result<B, warp::Error>>,
    shared: &Shared,
) -> Result<Answer, Answer> {
    let command = Command::of(method, path).ok_or_else(commands::unsupported)?;
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let site = shared.site();
    site.access.check(command, caller, authorization, &shared.handle.view()).await?;
    let body = body::read(command, headers, site.limits.body, body).await?;
    if command == Command::Reload {
        shared.handle.reload();
    }
    let request = shared.look(|seen| commands::request(seen, command, &body))?;
    match tokio::time::timeout(commands::patience(&request), shared.handle.ask(request)).await {
        Ok(Some(reply)) => Ok(shared.look(|seen| commands::answer(seen, command, reply))),
        Ok(None) | Err(_) => Err(commands::no_answer(command)),
    }
}

fn on_the_wire(answer: Answer, site: &Site) -> Response<String> {
    let (kind, text) = match answer.body {
        Body::Empty => (None, String::new()),
        Body::Json(value) => (Some("application/json"), value.to_string()),
        Body::Text(text) => (Some("text/html"), text),
        Body::Plain(text) => (Some("text/plain"), text),
    };
    let mut response = Response::new(text);
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(lsn) = answer.lsn {
        headers.insert("lsn", HeaderValue::from(lsn.0));
    }
    if answer.challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Patroni\""));
    }
    if let Some(server) = &site.server {
        headers.insert(SERVER, server.clone());
    }
    for (name, value) in &site.headers {
        headers.insert(name.clone(), value.clone());
    }
    response
}
