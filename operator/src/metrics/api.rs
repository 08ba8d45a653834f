//! Counts every request to the API server, below all of the operator's code.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tower::Service;

use super::Labels;

/// A client's service that counts.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    requests: Family<Labels<3>, Counter>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, requests: Family<Labels<3>, Counter>) -> Self {
        Self { inner, requests }
    }
}

impl<S, In, Out> Service<Request<In>> for Counted<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let (verb, resource) = asked(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        let requests = self.requests.clone();
        self.inner
            .call(request)
            .map(move |answer| {
                let status = answer.as_ref().map_or_else(|_| "none".to_owned(), |a| a.status().as_u16().to_string());
                requests.get_or_create(&[("verb", verb.to_owned()), ("resource", resource), ("status", status)]).inc();
                answer
            })
            .boxed()
    }
}

/// Kubernetes' verb, and the resource with its subresource.
fn asked(method: &Method, path: &str, query: &str) -> (&'static str, String) {
    let mut words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let head = if words.first() == Some(&"apis") { 3 } else { 2 };
    words.drain(..head.min(words.len()));
    if words.len() > 2 && words[0] == "namespaces" {
        words.drain(..2);
    }
    let named = words.len() > 1;
    let verb = match *method {
        Method::GET if query.split('&').any(|one| one == "watch=true") => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    };
    let resource = match words[..] {
        [] => "discovery".to_owned(),
        [resource] | [resource, _] => resource.to_owned(),
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_verb_and_resource() {
        let group = "/apis/matriarch.dev/v1alpha1";
        for (method, uri, verb, resource) in [
            (Method::GET, "/api/v1/pods?&labelSelector=a", "list", "pods"),
            (Method::GET, "/api/v1/namespaces/shop/pods?&watch=true&limit=5", "watch", "pods"),
            (Method::GET, "/api/v1/namespaces/shop/secrets/mine", "get", "secrets"),
            (Method::GET, "/api/v1/namespaces/shop", "get", "namespaces"),
            (Method::GET, "/apis/monitoring.coreos.com/v1", "list", "discovery"),
            (Method::PATCH, &format!("{group}/namespaces/shop/postgresclusters/a"), "patch", "postgresclusters"),
            (
                Method::PATCH,
                &format!("{group}/namespaces/a/postgresclusters/a/status"),
                "patch",
                "postgresclusters/status",
            ),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/shop/events", "create", "events"),
            (Method::DELETE, "/api/v1/namespaces/shop/pods/a-0", "delete", "pods"),
        ] {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            assert_eq!(asked(&method, path, query), (verb, resource.to_owned()), "{method} {uri}");
        }
    }
}
