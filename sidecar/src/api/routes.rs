//! The filters: from an HTTP request to a pure function and back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use hyper::body::Bytes;
use matriarch_ha::effect::Reply;
use matriarch_ha::event::Request;
use serde_json::json;
use warp::filters::path::FullPath;
use warp::reject::{LengthRequired, PayloadTooLarge};
use warp::{Filter, Rejection};

use super::commands::{self, Caller, Command};
use super::query::Query;
use super::seen::Seen;
use super::{Answer, Body, Site, read};
use crate::driver::clock;
use crate::driver::handle::Handle;

/// Longest body: a failsafe call with the slots of a large Patroni cluster.
const BODY_LIMIT: u64 = 64 * 1024;

/// What every filter has.
#[derive(Clone)]
struct Shared {
    handle: Handle,
    site: Arc<Site>,
}

impl Shared {
    /// One look at the view and the clocks.
    fn look<T>(&self, answer: impl FnOnce(&Seen) -> T) -> T {
        let view = self.handle.view();
        answer(&Seen { view: &view, now: clock::now(), site: &self.site })
    }
}

/// An answer instead of what was asked for.
#[derive(Debug)]
struct Refused(Answer);

impl warp::reject::Reject for Refused {}

/// All paths. Requests must carry a [`Caller`] among their extensions.
pub fn routes(
    handle: Handle,
    site: Arc<Site>,
) -> impl Filter<Extract = (Response<String>,), Error = Infallible> + Clone + Send + Sync + 'static {
    let shared = Shared { handle, site };
    snapshot(shared.clone()).or(reads(shared.clone())).unify().or(changes(shared)).unify().recover(recover).unify()
}

fn with(shared: Shared) -> impl Filter<Extract = (Shared,), Error = Infallible> + Clone {
    warp::any().map(move || shared.clone())
}

/// `GET /snapshot`: what a decision would look at now, for `matriarch-sidecar explain`. Only the core knows it.
fn snapshot(shared: Shared) -> impl Filter<Extract = (Response<String>,), Error = Rejection> + Clone {
    warp::get().and(warp::path("snapshot")).and(with(shared)).then(|shared: Shared| async move {
        let asked = tokio::time::timeout(Duration::from_secs(10), shared.handle.ask(Request::Snapshot)).await;
        on_the_wire(match asked {
            Ok(Some(Reply::Snapshot(snapshot))) => Answer::json(200, json!(snapshot)),
            _ => Answer::text(503, "the agent does not answer"),
        })
    })
}

/// GET, HEAD and OPTIONS.
fn reads(shared: Shared) -> impl Filter<Extract = (Response<String>,), Error = Rejection> + Clone {
    let query = warp::query::<Query>().or(warp::any().map(Query::new)).unify();
    let method = warp::get().or(warp::head()).unify().or(warp::options()).unify().and(warp::method());
    method.and(warp::path::full()).and(query).and(with(shared)).map(
        |method: Method, path: FullPath, query: Query, shared: Shared| {
            let path = path.as_str();
            let answer = shared.look(|seen| {
                if method == Method::GET {
                    read::response(seen, path, &query)
                } else {
                    read::status_only(seen, path, &query)
                }
            });
            on_the_wire(answer)
        },
    )
}

/// Everything else. Who may not is refused before the body is read.
fn changes(shared: Shared) -> impl Filter<Extract = (Response<String>,), Error = Rejection> + Clone {
    // What is deleted needs no words.
    let body = warp::body::content_length_limit(BODY_LIMIT).and(warp::body::bytes());
    warp::method()
        .and(warp::path::full())
        .and(warp::ext::get::<Caller>())
        .and_then(|method: Method, path: FullPath, caller: Caller| async move {
            commands::command(method.as_str(), path.as_str(), caller).map_err(|no| warp::reject::custom(Refused(no)))
        })
        .and(warp::delete().map(Bytes::new).or(body).unify())
        .and(with(shared))
        .then(|command: Command, body: Bytes, shared: Shared| async move { on_the_wire(ask(command, &body, &shared).await) })
}

async fn ask(command: Command, body: &[u8], shared: &Shared) -> Answer {
    let request = match shared.look(|seen| commands::request(seen, command, body)) {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    match tokio::time::timeout(patience(command), shared.handle.ask(request)).await {
        Ok(Some(reply)) => shared.look(|seen| commands::answer(seen, command, reply)),
        Ok(None) | Err(_) => commands::no_answer(command),
    }
}

/// How long the core may take: it answers a switchover when it is done, and has deadlines of its own that are shorter.
fn patience(command: Command) -> Duration {
    Duration::from_secs(match command {
        Command::Switchover | Command::Failover => 60,
        // A shutdown, and a start that may have to recover.
        Command::Restart => 600,
        Command::CancelSwitchover
        | Command::CancelRestart
        | Command::Reinitialize
        | Command::Election
        | Command::Failsafe => 10,
    })
}

async fn recover(rejection: Rejection) -> Result<Response<String>, Infallible> {
    let answer = if let Some(Refused(answer)) = rejection.find() {
        answer.clone()
    } else if rejection.find::<LengthRequired>().is_some() {
        Answer::text(411, "Content-Length is required")
    } else if rejection.find::<PayloadTooLarge>().is_some() {
        Answer::text(413, "the body is too long")
    } else {
        Answer::text(400, "the request cannot be read")
    };
    Ok(on_the_wire(answer))
}

fn on_the_wire(answer: Answer) -> Response<String> {
    let (kind, text) = match answer.body {
        Body::Empty => (None, String::new()),
        Body::Json(value) => (Some("application/json"), value.to_string()),
        Body::Text(text) => (Some("text/html"), text),
        Body::Plain(text) => (Some("text/plain"), text),
    };
    let mut response = Response::new(text);
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(lsn) = answer.lsn {
        response.headers_mut().insert("lsn", HeaderValue::from(lsn.0));
    }
    response
}
