//! The Lease against an API server that has nothing else.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::service_fn;

use super::*;

/// How often it is renewed here.
const SOON: Duration = Duration::from_millis(500);

/// The one object that it has, and in which order things happened.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    log: Arc<Mutex<Vec<String>>>,
    refuses: Arc<Mutex<bool>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
            }),
            "default",
        )
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await.unwrap();
        let failed = |code: StatusCode| {
            let reason = code.canonical_reason().unwrap().replace(' ', "");
            let status = json!({"status": "Failure", "code": code.as_u16(), "reason": reason, "message": ""});
            Response::builder().status(code).body(Body::from(status.to_string().into_bytes())).unwrap()
        };
        if *self.refuses.lock().unwrap() {
            return failed(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let mut lease = self.lease.lock().unwrap();
        if method == Method::GET {
            let Some(lease) = lease.as_ref() else { return failed(StatusCode::NOT_FOUND) };
            return Response::new(Body::from(lease.to_string().into_bytes()));
        }
        let mut new: Value = serde_json::from_slice(&body).unwrap();
        let version = lease.as_ref().map(|old| old["metadata"]["resourceVersion"].clone());
        if method == Method::PUT && version.as_ref() != Some(&new["metadata"]["resourceVersion"]) {
            return failed(StatusCode::CONFLICT);
        }
        let next = version.and_then(|v| v.as_str().and_then(|v| v.parse::<u64>().ok())).unwrap_or(0) + 1;
        new["metadata"]["resourceVersion"] = json!(next.to_string());
        self.log.lock().unwrap().push(format!("held by {:?}", new["spec"]["holderIdentity"].as_str().unwrap()));
        *lease = Some(new);
        Response::new(Body::from(lease.as_ref().unwrap().to_string().into_bytes()))
    }

    fn leadership(&self, me: &str) -> Leadership {
        Leadership { renew: SOON, ..Leadership::new(self.client(), "default", "operator", me) }
    }

    fn spec(&self) -> Value {
        self.lease.lock().unwrap().as_ref().unwrap()["spec"].clone()
    }

    fn say(&self, what: &str) {
        self.log.lock().unwrap().push(what.to_owned());
    }

    fn said(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn the_lease_is_released_only_when_the_work_has_ended() {
    let server = Server::default();
    let mut first = server.leadership("one");
    first.acquire(|| ()).await;
    let (tell, told) = oneshot::channel::<()>();
    let writes = async {
        drop(told.await);
        server.say("the last write begins");
        sleep(SOON * 3).await;
        server.say("the last write ends");
    };
    let ended = work(Some(first), writes, async {}, || tell.send(()).unwrap()).await;
    assert_eq!(ended, Ended::Released);
    let said = server.said();
    let at = |what: &str| said.iter().position(|line| line == what).unwrap();
    let (begins, ends) = (at("the last write begins"), at("the last write ends"));
    assert!(said[begins..ends].iter().any(|line| line == "held by \"one\""), "not renewed meanwhile: {said:?}");
    assert_eq!(said[ends + 1..], ["held by \"\""], "{said:?}");
    assert_eq!(server.spec()["leaseDurationSeconds"], 1);

    // The next takes it with its first try.
    let begin = Instant::now();
    let mut next = server.leadership("two");
    next.acquire(|| panic!("it waits for a Lease that nobody holds")).await;
    assert!(begin.elapsed() < DURATION, "{:?}", begin.elapsed());
    assert_eq!((&server.spec()["holderIdentity"], &server.spec()["leaseTransitions"]), (&json!("two"), &json!(1)));
}

#[tokio::test]
async fn what_somebody_else_holds_is_not_released() {
    let server = Server::default();
    server.leadership("two").acquire(|| ()).await;
    server.leadership("one").release().await;
    assert_eq!(server.spec()["holderIdentity"], "two");
}

#[tokio::test]
async fn work_is_dropped_before_anybody_else_may_take_the_lease() {
    let server = Server::default();
    for stopping in [false, true] {
        let mut holder = server.leadership("one");
        holder.acquire(|| ()).await;
        *server.refuses.lock().unwrap() = true;
        let begin = Instant::now();
        let stop = async {
            if !stopping {
                std::future::pending::<()>().await;
            }
        };
        assert_eq!(work(Some(holder), std::future::pending(), stop, || ()).await, Ended::Lost);
        assert!(begin.elapsed() < LAST_WORK, "{:?}", begin.elapsed());
        *server.refuses.lock().unwrap() = false;
        assert_eq!(server.spec()["holderIdentity"], "one", "a Lease that may be another's was released");
    }
}
