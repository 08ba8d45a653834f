//! The store against a real kube-apiserver with its etcd, on loopback. The binaries come from `MATRIARCH_KUBE_BIN` or PATH.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::free_port;
use matriarch_ha::effect::{Patch, StoreCall};
use matriarch_ha::event::{Event, Kind, Object, StoreError, StoreEvent};
use matriarch_sidecar::config::Config;
use matriarch_sidecar::store::{Store, connect};
use matriarch_sim::conformance::api;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const TOKEN: &str = "test-token";

struct Kubernetes {
    dir: PathBuf,
    children: Vec<Child>,
    port: u16,
}

fn binary(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("MATRIARCH_KUBE_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join(name)).find(|path| path.is_file())
}

impl Kubernetes {
    async fn start() -> Option<Self> {
        let (Some(etcd), Some(apiserver)) = (binary("etcd"), binary("kube-apiserver")) else {
            assert!(std::env::var_os("MATRIARCH_REQUIRE_KUBE").is_none(), "there is no etcd or no kube-apiserver");
            eprintln!("\n*** SKIPPED: no etcd or no kube-apiserver; name their folder in MATRIARCH_KUBE_BIN\n");
            return None;
        };
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let dir = std::env::temp_dir().join(format!("matriarch-store-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let spawn = |program: &Path, arguments: &[String], log: &str| {
            let log = std::fs::File::create(dir.join(log)).unwrap();
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            command.spawn().unwrap()
        };
        let etcd = spawn(
            &etcd,
            &[
                format!("--data-dir={}", dir.join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
            "etcd.log",
        );
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(dir.join("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(dir.join("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n")).unwrap();
        let apiserver = spawn(
            &apiserver,
            &[
                format!("--etcd-servers=http://127.0.0.1:{client}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                format!("--cert-dir={}", dir.join("certs").display()),
                "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", dir.join("sa.pub").display()),
                format!("--service-account-signing-key-file={}", dir.join("sa.key").display()),
                format!("--token-auth-file={}", dir.join("tokens.csv").display()),
                "--authorization-mode=AlwaysAllow".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ],
            "apiserver.log",
        );
        let cluster = Self { dir, children: vec![etcd, apiserver], port };
        let (mut store, mut events) = cluster.store(Path::new("probe"));
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            // Until the namespace is there.
            store.call(create(Kind::Lock, "probe"));
            if done(&mut events).await.is_ok() {
                break;
            }
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(cluster.dir.join("apiserver.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Some(cluster)
    }

    fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(TOKEN.to_owned().into());
        connect::with_config(&config).unwrap()
    }

    fn store(&self, scope: &Path) -> (Store, UnboundedReceiver<Event>) {
        self.store_with(&scope.display().to_string(), false)
    }

    fn store_with(&self, scope: &str, endpoints: bool) -> (Store, UnboundedReceiver<Event>) {
        let text = format!("scope: {scope}\nkubernetes: {{use_endpoints: {endpoints}, ports: [{{name: postgresql}}]}}");
        let env = |name: &str| {
            Some(match name {
                "POD_NAMESPACE" => "default".to_owned(),
                "POD_IP" => "10.1.2.3".to_owned(),
                other => other.to_lowercase().replace('_', "-"),
            })
        };
        let config = Arc::new(Config::parse(Path::new("test.yml"), &text, env).unwrap());
        let (events, received) = unbounded_channel();
        (Store::new(self.client(), config, events), received)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn next(events: &mut UnboundedReceiver<Event>) -> StoreEvent {
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await.expect("nothing in 10 s").unwrap();
    let Event::Store(event) = event else { panic!("{event:?}") };
    event
}

async fn done(events: &mut UnboundedReceiver<Event>) -> Result<Object, StoreError> {
    loop {
        if let StoreEvent::Done { result, .. } = next(events).await {
            return result;
        }
    }
}

fn create(kind: Kind, name: &str) -> StoreCall {
    let annotations = BTreeMap::from([("leader".to_owned(), "me".to_owned())]);
    StoreCall::Create { id: 2, kind, name: name.to_owned(), annotations, owners: Vec::new() }
}

fn patch(kind: Kind, name: &str, version: Option<&str>, leader: Option<&str>, to: Option<Vec<String>>) -> StoreCall {
    StoreCall::Patch(Patch {
        id: 3,
        kind,
        name: name.to_owned(),
        resource_version: version.map(ToOwned::to_owned),
        annotations: BTreeMap::from([("leader".to_owned(), leader.map(ToOwned::to_owned))]),
        labels: BTreeMap::new(),
        addresses: to,
        timeout_ms: 5_000,
    })
}

#[tokio::test(flavor = "current_thread")]
async fn every_verb_does_what_the_core_expects() {
    let Some(cluster) = Kubernetes::start().await else { return };
    let (mut store, mut events) = cluster.store_with("orders", false);

    // Create, and who comes second.
    store.call(create(Kind::Lock, "orders-leader"));
    let created = done(&mut events).await.unwrap();
    assert_eq!(created.labels["cluster-name"], "orders");
    store.call(create(Kind::Lock, "orders-leader"));
    assert_eq!(done(&mut events).await, Err(StoreError::Conflict));
    store.call(StoreCall::Get { id: 4, kind: Kind::Lock, name: "nobody".into() });
    assert_eq!(done(&mut events).await, Err(StoreError::NotFound));

    // A list sees only the cluster's own; a watch goes on from it.
    let (mut other, mut other_events) = cluster.store_with("others", false);
    other.call(create(Kind::Lock, "others-leader"));
    done(&mut other_events).await.unwrap();
    store.call(StoreCall::List { id: 5, kind: Kind::Lock });
    let StoreEvent::Listed { result: Ok((objects, version)), .. } = next(&mut events).await else { panic!() };
    assert_eq!(objects, std::slice::from_ref(&created));
    store.call(StoreCall::Watch { kind: Kind::Lock, resource_version: version });

    // Compare and swap.
    store.call(patch(Kind::Lock, "orders-leader", Some(&created.resource_version), Some("you"), None));
    let mut seen = (None, None);
    while seen.0.is_none() || seen.1.is_none() {
        match next(&mut events).await {
            StoreEvent::Done { result, .. } => seen.0 = Some(result.unwrap()),
            StoreEvent::Applied(Kind::Lock, object) => seen.1 = Some(object),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen.0, seen.1);
    assert_eq!(seen.0.unwrap().annotations["leader"], "you");
    store.call(patch(Kind::Lock, "orders-leader", Some(&created.resource_version), Some("me"), None));
    assert_eq!(done(&mut events).await, Err(StoreError::Conflict));
    store.call(patch(Kind::Lock, "orders-leader", None, None, None));
    assert!(!done(&mut events).await.unwrap().annotations.contains_key("leader"));

    // A version that is none ends a watch with the API server's sentence.
    store.call(StoreCall::Watch { kind: Kind::Pod, resource_version: "x y".into() });
    loop {
        match next(&mut events).await {
            StoreEvent::WatchEnded(Kind::Pod, error) => {
                break assert!(matches!(error, Some(StoreError::Status(..))), "{error:?}");
            }
            StoreEvent::Applied(Kind::Lock, _) => {}
            other => panic!("{other:?}"),
        }
    }

    // The leader's address in a slice …
    store.call(create(Kind::Slice, "orders-primary"));
    assert_eq!(done(&mut events).await.unwrap().addresses, Vec::<String>::new());
    for addresses in [vec!["10.1.2.3".to_owned()], vec!["10.1.2.4".to_owned()], vec![]] {
        store.call(patch(Kind::Slice, "orders-primary", None, None, Some(addresses.clone())));
        assert_eq!(done(&mut events).await.unwrap().addresses, addresses);
    }
    // … or in the Endpoints that are the lock.
    let (mut store, mut events) = cluster.store_with("legacy", true);
    store.call(create(Kind::Lock, "legacy"));
    done(&mut events).await.unwrap();
    for addresses in [vec!["10.1.2.3".to_owned()], vec![]] {
        store.call(patch(Kind::Lock, "legacy", None, Some("me"), Some(addresses.clone())));
        assert_eq!(done(&mut events).await.unwrap().addresses, addresses);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let client = connect::with_config(&kube::Config::new(url.parse().unwrap())).unwrap();
    let config = Config::parse(Path::new("x"), "scope: a", |name| Some(name.to_lowercase())).unwrap();
    let (sender, mut events) = unbounded_channel();
    let mut store = Store::new(client, Arc::new(config), sender);
    let StoreCall::Patch(mut call) = patch(Kind::Lock, "a", None, None, None) else { panic!() };
    call.timeout_ms = 200;
    let start = Instant::now();
    store.call(StoreCall::Patch(call));
    assert!(matches!(done(&mut events).await, Err(StoreError::Unreachable(why)) if why.contains("200 ms")));
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(silent);
    store.call(patch(Kind::Lock, "a", None, None, None));
    assert!(matches!(done(&mut events).await, Err(StoreError::Unreachable(why)) if why.contains("refused")));
}

/// What the conformance scripts see of it.
struct Seen<'a> {
    cluster: &'a Kubernetes,
    scope: String,
}

impl Seen<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.scope)
    }

    fn short(&self, mut object: Object) -> Object {
        object.name = object.name.trim_start_matches(&format!("{}-", self.scope)).to_owned();
        object
    }
}

impl api::Backend for Seen<'_> {
    async fn call(&mut self, call: &api::Call, version: Option<&str>) -> Result<Object, StoreError> {
        let (mut store, mut events) = self.cluster.store_with(&self.scope, false);
        let (kind, id) = (Kind::Lock, 2);
        store.call(match call {
            api::Call::Create(name, value) => {
                let annotations = BTreeMap::from([(api::ANNOTATION.to_owned(), value.clone())]);
                StoreCall::Create { id, kind, name: self.full(name), annotations, owners: Vec::new() }
            }
            api::Call::Get(name) => StoreCall::Get { id, kind, name: self.full(name) },
            api::Call::Patch { name, value, .. } => patch(kind, &self.full(name), version, value.as_deref(), None),
            api::Call::Delete(name) => {
                let path = format!("/api/v1/namespaces/default/configmaps/{}", self.full(name));
                let request = http::Request::delete(path).body(Vec::new()).unwrap();
                return match self.cluster.client().request::<serde_json::Value>(request).await {
                    Ok(_) => Ok(Object::default()),
                    Err(kube::Error::Api(status)) if status.code == 404 => Err(StoreError::NotFound),
                    Err(error) => panic!("{error}"),
                };
            }
        });
        done(&mut events).await.map(|object| self.short(object))
    }

    async fn list(&mut self) -> Result<(Vec<Object>, String), StoreError> {
        let (mut store, mut events) = self.cluster.store_with(&self.scope, false);
        store.call(StoreCall::List { id: 5, kind: Kind::Lock });
        let StoreEvent::Listed { result, .. } = next(&mut events).await else { panic!() };
        result.map(|(objects, version)| (objects.into_iter().map(|object| self.short(object)).collect(), version))
    }

    async fn watch(&mut self, from: &str, count: usize) -> Result<Vec<api::Told>, StoreError> {
        let (mut store, mut events) = self.cluster.store_with(&self.scope, false);
        store.call(StoreCall::Watch { kind: Kind::Lock, resource_version: from.to_owned() });
        let mut told = Vec::new();
        loop {
            let limit = Duration::from_millis(if told.len() < count { 10_000 } else { 500 });
            let Ok(event) = tokio::time::timeout(limit, events.recv()).await else { return Ok(told) };
            match event.unwrap() {
                Event::Store(StoreEvent::Applied(_, object)) => told.push((false, self.short(object))),
                Event::Store(StoreEvent::Deleted(_, object)) => told.push((true, self.short(object))),
                Event::Store(StoreEvent::Bookmark(..)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The simulator's API server does as this one.
#[tokio::test(flavor = "current_thread")]
async fn conformance_scripts_hold() {
    let Some(cluster) = Kubernetes::start().await else { return };
    for (index, script) in api::scripts().into_iter().enumerate() {
        let mut seen = Seen { cluster: &cluster, scope: format!("script{index}") };
        assert_eq!(api::play(&script, &mut seen).await, Ok(()), "{}", script.name);
    }
}
