//! `kubectl matriarch report`: a tar file for support. Objects, events, logs, and what each member says; never the data of a
//! Secret, which is not even asked for.

mod redact;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use matriarch_crds::names::{AGENT_CONTAINER, INSTALL_CONTAINER, POSTGRES_CONTAINER};
use serde_json::{Value, json};

use crate::access::Session;
use crate::completion;
use crate::ctl;
use crate::error::Error;
use crate::findings;
use crate::list;
use crate::output::{Format, say};
use crate::status;
use crate::store::Store;
use crate::style::Style;
use crate::view::Cluster;

/// For each question to an agent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of which cluster, and where to.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// The file; - is standard output. Default: matriarch-report-CLUSTER-TIME.tar here.
    #[arg(short = 'f', long = "file")]
    file: Option<PathBuf>,
    /// So many lines of each log.
    #[arg(long, default_value_t = 5000)]
    tail: i64,
    /// Where the operator runs, for its log.
    #[arg(long, default_value = "matriarch-system")]
    operator_namespace: String,
}

/// What goes in.
#[derive(Debug, Default)]
pub struct Bundle {
    files: Vec<(String, String)>,
    missing: Vec<String>,
}

impl Bundle {
    /// A text, without its secrets.
    pub fn text(&mut self, path: impl Into<String>, text: &str) {
        self.files.push((path.into(), redact::text(text)));
    }

    /// A document, without its secrets.
    pub fn document(&mut self, path: impl Into<String>, mut value: Value) {
        redact::document(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_else(|error| error.to_string());
        self.files.push((path.into(), text + "\n"));
    }

    /// What could not be had, and why.
    fn or_missing<T>(&mut self, what: &str, got: Result<T, impl std::fmt::Display>) -> Option<T> {
        got.map_err(|error| self.missing.push(redact::text(&format!("{what}: {error}")))).ok()
    }

    /// As a tar file below one folder.
    pub fn tar(mut self, folder: &str, now: Timestamp) -> std::io::Result<Vec<u8>> {
        if !self.missing.is_empty() {
            self.files.push(("missing.txt".to_owned(), self.missing.join("\n") + "\n"));
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
            archive.append_data(&mut header, format!("{folder}/{path}"), text.as_bytes())?;
        }
        archive.into_inner()
    }
}

/// Collects it and writes it; what the user may not read is listed in `missing.txt`.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let store = Store::open(session, args.cluster.as_deref()).await?;
    let mut cluster = store.stored().await?;
    crate::live::overlay(&store, &mut cluster).await;
    let now = Timestamp::now();
    let mut bundle = Bundle::default();
    let found = findings::of(&cluster, now);
    bundle.text("status.txt", &status::screen(&cluster, &found, now, Style::default()));
    bundle.text("list.txt", &list::print(std::slice::from_ref(&cluster), Format::Wide)?);
    bundle.document("status.json", status::document(&cluster, &found));
    bundle.document(
        "versions.json",
        json!({
            "plugin": env!("CARGO_PKG_VERSION"),
            "kubernetes": session.client.apiserver_version().await.map(|v| v.git_version).unwrap_or_default(),
        }),
    );
    objects(&store, &mut bundle).await;
    events(&store, &mut bundle).await;
    for member in &cluster.members {
        logs(&store, &member.name, args.tail, &mut bundle).await;
    }
    questions(&store, &cluster, &mut bundle).await;
    operator(session, args, &mut bundle).await;
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let name = format!("matriarch-report-{}-{stamp}", cluster.name);
    let missing = bundle.missing.len();
    let tar = bundle.tar(&name, now).map_err(Error::output)?;
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar")));
    if path.as_os_str() == "-" {
        return std::io::stdout().write_all(&tar).map_err(Error::output);
    }
    std::fs::write(&path, tar).map_err(|error| Error::Output(format!("{}: {error}", path.display())))?;
    let hint = if missing == 0 {
        String::new()
    } else {
        format!(" ({missing} parts could not be had: see missing.txt in it)")
    };
    say(&format!("{}{hint}", path.display()))
}

async fn objects(store: &Store, bundle: &mut Bundle) {
    bundle.document("objects/postgrescluster.json", json!(store.resource));
    listed::<Pod>(store, "pods", bundle).await;
    listed::<StatefulSet>(store, "statefulsets", bundle).await;
    listed::<Service>(store, "services", bundle).await;
    listed::<EndpointSlice>(store, "endpointslices", bundle).await;
    if store.kind() == "endpoints" {
        listed::<Endpoints>(store, "endpoints", bundle).await;
    }
    listed::<ConfigMap>(store, "configmaps", bundle).await;
    listed::<PersistentVolumeClaim>(store, "persistentvolumeclaims", bundle).await;
    listed::<PodDisruptionBudget>(store, "poddisruptionbudgets", bundle).await;
    listed::<ServiceAccount>(store, "serviceaccounts", bundle).await;
    listed::<Role>(store, "roles", bundle).await;
    listed::<RoleBinding>(store, "rolebindings", bundle).await;
    // Metadata alone: the API server does not send the data.
    let secrets = store.api::<Secret>().list_metadata(&ListParams::default().labels(&store.selector())).await;
    if let Some(list) = bundle.or_missing("secrets (only their names are asked for)", secrets) {
        let names: Vec<String> = list.iter().map(ResourceExt::name_any).collect();
        bundle.document("objects/secrets-names-only.json", json!(names));
    }
}

async fn listed<K>(store: &Store, name: &str, bundle: &mut Bundle)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug,
{
    let list = store.api::<K>().list(&ListParams::default().labels(&store.selector())).await;
    if let Some(list) = bundle.or_missing(name, list) {
        bundle.document(format!("objects/{name}.json"), json!(list.items));
    }
}

/// Those about the cluster, its pods and its volumes.
async fn events(store: &Store, bundle: &mut Bundle) {
    let list = store.api::<Event>().list(&ListParams::default()).await;
    let Some(list) = bundle.or_missing("events", list) else { return };
    let name = store.names.scope();
    let about = |event: &Event| {
        let object = event.involved_object.name.as_deref().unwrap_or_default();
        object == name || object.contains(&format!("{name}-"))
    };
    bundle.document("events.json", json!(list.items.into_iter().filter(about).collect::<Vec<_>>()));
}

async fn logs(store: &Store, member: &str, tail: i64, bundle: &mut Bundle) {
    for container in [INSTALL_CONTAINER, AGENT_CONTAINER, POSTGRES_CONTAINER] {
        for previous in [false, true] {
            let params = LogParams {
                container: Some(container.to_owned()),
                previous,
                tail_lines: Some(tail),
                timestamps: true,
                ..LogParams::default()
            };
            let which = if previous { "-previous" } else { "" };
            match store.api::<Pod>().logs(member, &params).await {
                Ok(text) => bundle.text(format!("logs/{member}/{container}{which}.log"), &text),
                // There is one only after a restart.
                Err(_) if previous => {}
                Err(error) => drop(bundle.or_missing::<()>(&format!("log of {member} {container}"), Err(error))),
            }
        }
    }
}

/// What each agent says of itself: the last three explain every decision.
async fn questions(store: &Store, cluster: &Cluster, bundle: &mut Bundle) {
    for member in &cluster.members {
        for path in ["/patroni", "/cluster", "/config", "/history", "/metrics", "/snapshot"] {
            let what = format!("GET {path} of {}", member.name);
            let answer = ctl::ask(store, &member.name, "GET", path, None, PATIENCE).await;
            let Some(answer) = bundle.or_missing(&what, answer) else { break };
            match answer.body {
                Value::String(text) => bundle.text(format!("members/{}{path}.txt", member.name), &text),
                body => bundle.document(format!("members/{}{path}.json", member.name), body),
            }
        }
    }
}

async fn operator(session: &Session, args: &Args, bundle: &mut Bundle) {
    let namespace = &args.operator_namespace;
    let labels = ListParams::default().labels("app.kubernetes.io/name=matriarch-operator");
    let deployments = Api::<Deployment>::namespaced(session.client.clone(), namespace).list(&labels).await;
    if let Some(list) = bundle.or_missing(&format!("the operator in {namespace}"), deployments) {
        bundle.document("operator/deployments.json", json!(list.items));
    }
    let pods = Api::<Pod>::namespaced(session.client.clone(), namespace);
    let Some(list) = bundle.or_missing(&format!("the operator's pods in {namespace}"), pods.list(&labels).await) else {
        return;
    };
    for pod in list.items {
        let params = LogParams { tail_lines: Some(args.tail), timestamps: true, ..LogParams::default() };
        let name = pod.name_any();
        if let Some(text) = bundle.or_missing(&format!("log of {name}"), pods.logs(&name, &params).await) {
            bundle.text(format!("operator/{name}.log"), &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_a_tar_file_without_secrets() {
        let mut bundle = Bundle::default();
        bundle.document("a.json", json!({"password": "hunter2", "kept": "yes"}));
        bundle.text("b.log", "password=hunter2\nkept\n");
        bundle.or_missing::<()>("c", Err("postgres://u:hunter2@h"));
        let tar = bundle.tar("report", Timestamp::UNIX_EPOCH).unwrap();
        let text = String::from_utf8_lossy(&tar).into_owned();
        assert!(!text.contains("hunter2"), "{text}");
        let mut archive = tar::Archive::new(tar.as_slice());
        let names: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["report/a.json", "report/b.log", "report/missing.txt"]);
        assert!(text.contains("kept"));
    }
}
