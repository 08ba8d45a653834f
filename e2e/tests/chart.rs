//! The Helm chart: it installs what the plain manifests install, object by object; wrong values are refused with words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use matriarch_e2e::deps::cache::Cache;
use matriarch_e2e::host::run::run;
use matriarch_operator::manifests::{self, Install};
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/matriarch");

/// Helm as `make deps` built it.
fn helm() -> Option<String> {
    let program = Cache::open().unwrap().program("helm");
    if Path::new(&program).exists() {
        return Some(program);
    }
    assert!(std::env::var_os("MATRIARCH_REQUIRE_POSTGRES").is_none(), "there is no Helm: run `make deps`");
    eprintln!("\n*** SKIPPED: there is no Helm: run `make deps`\n");
    None
}

fn template(helm: &str, values: &[&str]) -> anyhow::Result<Vec<Value>> {
    let own = [helm, "template", "matriarch", CHART, "--namespace", "matriarch-system"];
    let mut words: Vec<&str> = own.to_vec();
    for value in values {
        words.extend(["--set-json", value]);
    }
    let yaml = run(&words)?;
    Ok(serde_saphyr::from_multiple::<Value>(&yaml)?.into_iter().filter(|one| !one.is_null()).collect())
}

/// By kind, namespace and name; without what only Helm writes, and without what is empty.
fn comparable(objects: Vec<Value>) -> BTreeMap<String, Value> {
    objects
        .into_iter()
        .map(|mut object| {
            let metadata = object["metadata"].as_object_mut().unwrap();
            if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
                labels.retain(|key, _| key != "helm.sh/chart" && key != "app.kubernetes.io/managed-by");
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|key, _| !key.starts_with("helm.sh/"));
            }
            let id = [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]];
            let id = id.map(|word| word.as_str().unwrap_or("-").to_owned()).join(" ");
            prune(&mut object);
            (id, object)
        })
        .collect()
}

fn prune(value: &mut Value) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(list) => list.iter_mut().for_each(prune),
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, value| !empty(value));
        }
        _ => {}
    }
}

fn plain(install: &Install, definition: bool) -> Vec<Value> {
    let mut all = manifests::objects(install);
    if definition {
        all.push(serde_saphyr::from_str(matriarch_crds::generated::CRD_YAML).unwrap());
    }
    all
}

#[test]
fn chart_and_plain_manifests_install_the_same() {
    let Some(helm) = helm() else { return };
    let names = || vec!["shop".to_owned(), "bank".to_owned()];
    let some = r#"watchNamespaces=["shop","bank"]"#;
    let default = Install::default;
    for (values, install, definition) in [
        (&[][..], default(), true),
        (&["replicas=2"], Install { replicas: 2, ..default() }, true),
        (&[some], Install { watch_namespaces: names(), ..default() }, true),
        (&["namespaced=true", "crds.enabled=false"], Install { namespaced: true, ..default() }, false),
        (
            &["namespaced=true", "crds.enabled=false", some],
            Install { namespaced: true, watch_namespaces: names(), ..default() },
            false,
        ),
        (
            &[r#"image.repository="own/operator""#, r#"image.tag="7""#, r#"sidecar.image.repository="own/sidecar""#],
            Install {
                operator_image: "own/operator:7".to_owned(),
                sidecar_image: "own/sidecar:0.1.0".to_owned(),
                ..default()
            },
            true,
        ),
    ] {
        let chart = comparable(template(&helm, values).unwrap());
        let plain = comparable(plain(&install, definition));
        assert_eq!(chart.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>(), "{values:?}");
        for (id, object) in &plain {
            assert!(chart[id] == *object, "{values:?}: {id}\nchart: {}\nplain: {object}", chart[id]);
        }
    }
}

#[test]
fn values_reach_their_places() {
    let Some(helm) = helm() else { return };
    let digest = format!("sha256:{}", "0".repeat(64));
    let objects = template(
        &helm,
        &[
            &format!(r#"image={{"repository":"r/o","tag":"1","digest":"{digest}","pullPolicy":"Always"}}"#),
            r#"imagePullSecrets=[{"name":"key"}]"#,
            r#"nodeSelector={"disk":"fast"}"#,
            r#"tolerations=[{"operator":"Exists"}]"#,
            r#"podLabels={"team":"db"}"#,
            r#"priorityClassName="high""#,
            r#"serviceAccount={"create":false,"name":"mine"}"#,
            r#"networkPolicy={"enabled":true,"from":[{"podSelector":{}}],"apiServerPorts":[6443]}"#,
            r#"podMonitor={"enabled":true,"labels":{"release":"prometheus"},"interval":"10s"}"#,
            r#"prometheusRule={"enabled":true}"#,
            r#"grafanaDashboard={"enabled":true}"#,
        ],
    )
    .unwrap();
    // Members are in any namespace: an empty selector, which `comparable` leaves out.
    let policy = objects.iter().find(|one| one["kind"] == "NetworkPolicy").unwrap();
    let agents = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"application": "matriarch"}}});
    assert_eq!(policy["spec"]["egress"][1]["to"], json!([agents]));
    let objects = comparable(objects);
    let here = |kind: &str, name: &str| &objects[&format!("{kind} matriarch-system {name}")];
    let pod = &here("Deployment", "matriarch-operator")["spec"]["template"];
    assert_eq!(pod["spec"]["containers"][0]["image"], json!(format!("r/o@{digest}")));
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "key"}]));
    assert_eq!(pod["spec"]["nodeSelector"], json!({"disk": "fast"}));
    assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["spec"]["priorityClassName"], "high");
    assert_eq!(pod["spec"]["serviceAccountName"], "mine");
    assert_eq!(pod["metadata"]["labels"]["team"], "db");
    assert!(!objects.keys().any(|id| id.starts_with("ServiceAccount")));
    assert_eq!(objects["ClusterRoleBinding - matriarch-operator"]["subjects"][0]["name"], "mine");
    let policy = &here("NetworkPolicy", "matriarch-operator")["spec"];
    assert_eq!(policy["egress"][0]["ports"], json!([{"port": 6443, "protocol": "TCP"}]));
    assert_eq!(policy["egress"][1]["ports"], json!([{"port": 8008, "protocol": "TCP"}]));
    assert_eq!(policy["ingress"][0]["ports"], json!([{"port": "http", "protocol": "TCP"}]));
    let monitor = here("PodMonitor", "matriarch-operator");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], pod["spec"]["containers"][0]["ports"][0]["name"]);
    assert!(here("PrometheusRule", "matriarch-operator")["spec"]["groups"][0]["rules"].is_array());
    let dashboard = here("ConfigMap", "matriarch-operator-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    serde_json::from_str::<Value>(dashboard["data"]["matriarch.json"].as_str().unwrap()).unwrap();
}

#[test]
fn wrong_values_are_refused_with_words() {
    let Some(helm) = helm() else { return };
    for (value, says) in [
        ("replica=2", "replica"),
        ("replicas=\"two\"", "/replicas"),
        ("replicas=9", "maximum"),
        ("image.tag=\"a b\"", "/image/tag"),
        ("image.digest=\"sha256:1\"", "/image/digest"),
        ("image.pullPolicy=\"Sometimes\"", "IfNotPresent"),
        ("operatorImage=\"x\"", "operatorImage"),
        ("watchNamespaces=\"shop\"", "/watchNamespaces"),
        ("watchNamespaces=[\"Shop\"]", "/watchNamespaces/0"),
        ("podMonitor.interval=\"often\"", "/podMonitor/interval"),
        ("serviceAccount.create=false", "write serviceAccount.name"),
    ] {
        let error = template(&helm, &[value]).expect_err(value);
        assert!(format!("{error:#}").contains(says), "{value}: {error:#}");
    }
}

#[test]
fn what_to_apply_by_hand_is_what_is_committed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rbac/install.yaml");
    let committed = std::fs::read_to_string(folder).unwrap();
    let all = serde_saphyr::from_multiple::<Value>(&committed).unwrap();
    let install = Install::default();
    let expected = std::iter::once(manifests::namespace(&install)).chain(manifests::objects(&install)).collect();
    assert_eq!(comparable(all), comparable(expected));
}
