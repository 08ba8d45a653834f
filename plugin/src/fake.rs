//! For tests: an API server with one cluster, its shared objects and its pods, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::access::{Access, Session};
use crate::config::merge;

/// What it has, by path, and what was asked of it.
#[derive(Default)]
pub struct State {
    /// Objects by their paths.
    pub objects: BTreeMap<String, Value>,
    /// Method and path of every write.
    pub writes: Vec<String>,
    /// Answers of this kind of call are 403.
    pub forbidden: Option<(&'static str, &'static str)>,
    /// The next write comes too late: somebody else changes the object first.
    pub too_late: u32,
}

/// The recorded cluster `orders`, in the namespace `shop`.
pub fn server() -> (Session, Arc<Mutex<State>>) {
    let recorded: Value = serde_json::from_str(include_str!("../tests/objects/calm.json")).unwrap();
    let mut objects = BTreeMap::new();
    objects.insert(
        "/apis/matriarch.dev/v1alpha1/namespaces/shop/postgresclusters/orders".to_owned(),
        recorded["resource"].clone(),
    );
    for (name, key) in [("leader", "leader"), ("config", "config"), ("sync", "sync"), ("failover", "failover")] {
        let metadata = json!({"name": format!("orders-{name}"), "resourceVersion": "1", "annotations": recorded[key]});
        let path = format!("/api/v1/namespaces/shop/configmaps/orders-{name}");
        objects.insert(path, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
    }
    let pods = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": recorded["pods"]});
    objects.insert("/api/v1/namespaces/shop/pods".to_owned(), pods);
    let state = Arc::new(Mutex::new(State { objects, ..State::default() }));
    let shared = state.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = shared.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = answer(&mut shared.lock().unwrap(), &head.method, head.uri.path(), &body);
            let response = Response::builder().status(code).header("content-type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    let client = Client::new(service, "shop");
    let (patient, namespace) = (client.clone(), "shop".to_owned());
    (Session { client, patient, namespace, access: Access::default(), keyboard: false }, state)
}

fn status(code: u16, message: &str) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        _ => "Conflict",
    };
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}

fn answer(state: &mut State, method: &Method, path: &str, body: &Value) -> (u16, Value) {
    if state.forbidden.is_some_and(|(verb, part)| method.as_str() == verb && path.contains(part)) {
        return status(403, "forbidden");
    }
    if method == Method::GET {
        return state.objects.get(path).map_or_else(|| status(404, "not found"), |object| (200, object.clone()));
    }
    state.writes.push(format!("{method} {path}"));
    let Some(object) = state.objects.get_mut(path) else { return status(404, "not found") };
    let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(1_u32);
    if state.too_late > 0 {
        state.too_late -= 1;
        object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    }
    let wanted = body["metadata"]["resourceVersion"].clone();
    if !wanted.is_null() && wanted != object["metadata"]["resourceVersion"] {
        return status(409, "the object has been modified");
    }
    merge(object, body);
    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    (200, object.clone())
}

/// Annotations of a shared object as they are now.
pub fn annotations(state: &Mutex<State>, name: &str) -> Value {
    state.lock().unwrap().objects[&format!("/api/v1/namespaces/shop/configmaps/{name}")]["metadata"]["annotations"]
        .clone()
}
