//! Our own Pod object, read once at the start where the environment does not say who we are.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde::Deserialize;

use crate::config::Config;

/// Between two reads.
const RETRY: Duration = Duration::from_secs(1);
/// For one read.
const LIMIT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: String,
}

/// Fills in the pod's uid, and its address where nobody wrote one. Waits for the Pod object as long as it takes.
pub async fn identify(client: &Client, config: &mut Config) {
    let pod = &mut config.pod;
    let mut said = String::new();
    while pod.uid.is_empty() {
        let uri = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        match tokio::time::timeout(LIMIT, read(client, &uri)).await {
            Ok(Ok(found)) => {
                if pod.ip.is_empty() {
                    pod.ip = found.status.pod_ip;
                }
                pod.uid = found.metadata.uid;
                tracing::info!(pod.uid = %pod.uid, "this member is the pod {}/{}", pod.namespace, pod.name);
                return;
            }
            Ok(Err(error)) => say(&mut said, hint(&error, &pod.namespace, &pod.name)),
            Err(_) => say(&mut said, format!("the API server did not answer within {} s", LIMIT.as_secs())),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read(client: &Client, uri: &str) -> Result<Pod, kube::Error> {
    let request = Request::builder().method(Method::GET).uri(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request::<Pod>(request).await
}

fn hint(error: &kube::Error, namespace: &str, name: &str) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 => format!(
            "there is no pod {name} in namespace {namespace}: a member is the Pod object of its name; write the pod's name as `name` and \
             its namespace as `kubernetes.namespace`"
        ),
        kube::Error::Api(status) if status.code == 403 => {
            format!(
                "the Pod object cannot be read: {}; give the agent's account the rights of Patroni's Role",
                status.message
            )
        }
        other => format!("the Pod object {namespace}/{name} cannot be read: {other}"),
    }
}

fn say(said: &mut String, text: String) {
    if *said != text {
        tracing::warn!("waiting: {text}");
        *said = text;
    }
}
