//! The Kubernetes API: one [`StoreCall`] is one request, its answer one [`StoreEvent`]. Nothing is cached or retried here.

pub mod connect;
pub mod own_pod;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures::future::AbortHandle;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use matriarch_ha::effect::StoreCall;
use matriarch_ha::event::{Event, Kind, Object, StoreError, StoreEvent};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use crate::config::Config;

/// Reads and creates that say nothing of a time are given up after this.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for lists and for the head of a watch's answer.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read, for a list, and longest line of a watch.
const LONGEST: usize = 16 << 20;

/// Executes calls, each in a task of its own, at once.
pub struct Store {
    calls: Arc<Calls>,
    events: UnboundedSender<Event>,
    /// The watch of each kind.
    watches: [Option<AbortHandle>; 3],
}

impl Store {
    /// Over `client`; answers go to `events`.
    pub fn new(client: Client, config: Arc<Config>, events: UnboundedSender<Event>) -> Self {
        Self { calls: Arc::new(Calls { client, config }), events, watches: [None, None, None] }
    }

    /// Sends a call.
    pub fn call(&mut self, call: StoreCall) {
        let calls = self.calls.clone();
        let events = self.events.clone();
        match call {
            StoreCall::Watch { kind, resource_version } => {
                let (watch, abort) = futures::future::abortable(async move {
                    let error = calls.watch(kind, &resource_version, &events).await.err();
                    // Fails only when the driver has ended.
                    let _ = events.send(Event::Store(StoreEvent::WatchEnded(kind, error)));
                });
                if let Some(former) = self.watches[slot(kind)].replace(abort) {
                    former.abort();
                }
                tokio::spawn(watch);
            }
            other => {
                tokio::spawn(async move {
                    let answer = calls.answer(other).await;
                    // Fails only when the driver has ended.
                    let _ = events.send(Event::Store(answer));
                });
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for watch in self.watches.iter().flatten() {
            watch.abort();
        }
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Lock => 0,
        Kind::Pod => 1,
        Kind::Slice => 2,
    }
}

/// What a call needs.
struct Calls {
    client: Client,
    config: Arc<Config>,
}

impl Calls {
    /// Everything but a watch.
    async fn answer(&self, call: StoreCall) -> StoreEvent {
        match call {
            StoreCall::List { id, kind } => {
                let result = self.list(kind).await;
                StoreEvent::Listed { id, kind, result }
            }
            StoreCall::Get { id, kind, name } => {
                let uri = self.path(kind, Some(&name));
                let result = self.object(Method::GET, &uri, None, CALL_TIMEOUT).await;
                StoreEvent::Done { id, result }
            }
            StoreCall::Create { id, kind, name, annotations, owners } => {
                let body = wire::create(&self.config, kind, &name, &annotations, &owners);
                let uri = self.path(kind, None);
                let result =
                    self.object(Method::POST, &uri, Some((body.to_string(), "application/json")), CALL_TIMEOUT).await;
                StoreEvent::Done { id, result }
            }
            StoreCall::Patch(patch) => {
                let body = wire::patch(&self.config, &patch).to_string();
                let uri = self.path(patch.kind, Some(&patch.name));
                let limit = Duration::from_millis(patch.timeout_ms);
                let body = Some((body, "application/merge-patch+json"));
                let result = self.object(Method::PATCH, &uri, body, limit).await;
                StoreEvent::Done { id: patch.id, result }
            }
            // Handled by the caller.
            StoreCall::Watch { kind, .. } => StoreEvent::WatchEnded(kind, None),
        }
    }

    fn path(&self, kind: Kind, name: Option<&str>) -> String {
        let namespace = &self.config.pod.namespace;
        let mut path = match kind {
            Kind::Lock if self.config.kubernetes.use_endpoints => format!("/api/v1/namespaces/{namespace}/endpoints"),
            Kind::Lock => format!("/api/v1/namespaces/{namespace}/configmaps"),
            Kind::Pod => format!("/api/v1/namespaces/{namespace}/pods"),
            Kind::Slice => format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
        };
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// `labelSelector=…` for the objects of the cluster.
    fn selector(&self) -> String {
        let labels = self.config.labels();
        let pairs: Vec<String> = labels.iter().map(|(name, value)| escape(&format!("{name}={value}"))).collect();
        format!("labelSelector={}", pairs.join("%2C"))
    }

    async fn list(&self, kind: Kind) -> Result<(Vec<Object>, String), StoreError> {
        let uri = format!("{}?{}", self.path(kind, None), self.selector());
        within(LIST_TIMEOUT, async {
            let bytes = self.bytes(Method::GET, &uri, None).await?;
            let list: wire::List = serde_json::from_slice(&bytes).map_err(|error| malformed(&error))?;
            Ok(list.into_parts())
        })
        .await
    }

    async fn object(
        &self,
        method: Method,
        uri: &str,
        body: Option<(String, &'static str)>,
        limit: Duration,
    ) -> Result<Object, StoreError> {
        within(limit, async {
            let bytes = self.bytes(method, uri, body).await?;
            serde_json::from_slice::<wire::Raw>(&bytes).map(Object::from).map_err(|error| malformed(&error))
        })
        .await
    }

    /// Until the watch ends.
    async fn watch(&self, kind: Kind, from: &str, events: &UnboundedSender<Event>) -> Result<(), StoreError> {
        let uri = format!(
            "{}?{}&watch=true&allowWatchBookmarks=true&resourceVersion={}",
            self.path(kind, None),
            self.selector(),
            escape(from)
        );
        let response = within(LIST_TIMEOUT, self.send(Method::GET, &uri, None)).await?;
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(unreachable)?.into_data() else { continue };
            pending.extend_from_slice(&data);
            let mut start = 0;
            while let Some(length) = pending[start..].iter().position(|&byte| byte == b'\n') {
                let text = &pending[start..start + length];
                start += length + 1;
                if text.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let event = match wire::line(text).map_err(|text| StoreError::Status(500, text, None))? {
                    wire::Line::Applied(object) => StoreEvent::Applied(kind, object),
                    wire::Line::Deleted(object) => StoreEvent::Deleted(kind, object),
                    wire::Line::Bookmark(version) => StoreEvent::Bookmark(kind, version),
                    wire::Line::Error(error) => return Err(error),
                };
                if events.send(Event::Store(event)).is_err() {
                    return Ok(());
                }
            }
            pending.drain(..start);
            if pending.is_empty() {
                pending = Vec::new(); // a watch lives for an hour: a long line's memory is not kept
            } else if pending.len() > LONGEST {
                return Err(StoreError::Status(500, "a line of a watch is longer than 16 MiB".into(), None));
            }
        }
        Ok(())
    }

    async fn bytes(
        &self,
        method: Method,
        uri: &str,
        body: Option<(String, &'static str)>,
    ) -> Result<hyper::body::Bytes, StoreError> {
        let response = self.send(method, uri, body).await?;
        let body = http_body_util::Limited::new(response.into_body(), LONGEST);
        Ok(body.collect().await.map_err(unreachable)?.to_bytes())
    }

    /// The answer if it is 2xx.
    async fn send(
        &self,
        method: Method,
        uri: &str,
        body: Option<(String, &'static str)>,
    ) -> Result<Response<Body>, StoreError> {
        let mut request = Request::builder().method(method).uri(uri).header(ACCEPT, "application/json");
        let mut content = Vec::new();
        if let Some((text, kind)) = body {
            request = request.header(CONTENT_TYPE, kind);
            content = text.into_bytes();
        }
        let request = request.body(Body::from(content)).map_err(unreachable)?;
        let response = self.client.send(request).await.map_err(unreachable)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = http_body_util::Limited::new(response.into_body(), 1 << 16);
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(wire::error(code, &bytes, retry_after))
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unreachable(format!("no answer within {} ms", limit.as_millis()))))
}

/// The whole chain of causes, for people.
fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    StoreError::Unreachable(text)
}

fn malformed(error: &serde_json::Error) -> StoreError {
    StoreError::Status(500, format!("the API server's answer cannot be read: {error}"), None)
}

/// Percent-encodes what labels and versions may hold and a query may not.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_./~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(digit), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn queries_are_escaped() {
        assert_eq!(super::escape("cluster-name=a,b é"), "cluster-name%3Da%2Cb%20%C3%A9");
    }
}
