//! The CEL rules of `PostgresCluster` against a real API server: each refuses what it should, and says what to write.
//!
//! Needs an API server that may be written to: `make wrong-specs` starts one, and `make test` does that. Without it this
//! says so and tests nothing. What a user is told is committed as `docs/wrong-specs.md`; `MATRIARCH_GENERATE=1` writes it.

#![allow(clippy::unwrap_used, clippy::panic)] // all of this is a test, which clippy does not see of helpers

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};
use matriarch_crds::PostgresCluster;
use serde_json::{Value, json};

async fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("MATRIARCH_TEST_KUBECONFIG") else {
        eprintln!("SKIPPED: MATRIARCH_TEST_KUBECONFIG is not set, so no rule was tried against an API server");
        return None;
    };
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Some(Client::try_from(config).unwrap())
}

async fn install(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let crd = matriarch_crds::generated::crd();
    let name = "postgresclusters.matriarch.dev";
    api.patch(name, &PatchParams::apply("matriarch-test").force(), &Patch::Apply(crd)).await.unwrap();
    await_condition(api, name, conditions::is_crd_established()).await.unwrap();
}

fn cluster(name: &str, change: &Value) -> DynamicObject {
    let mut spec = json!({"instances": 3, "image": "postgres:17", "storage": {"size": "20Gi", "storageClass": "slow"}});
    merge(&mut spec, change);
    let object = json!({
        "apiVersion": "matriarch.dev/v1alpha1", "kind": "PostgresCluster", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, change: &Value) {
    match (into.as_object_mut(), change.as_object()) {
        (Some(into), Some(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = change.clone(),
    }
}

#[tokio::test]
async fn every_rule_refuses_and_says_what_to_write() {
    let Some(client) = client().await else { return };
    install(&client).await;
    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &ApiResource::erase::<PostgresCluster>(&()));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let name = "cel-rules";

    for change in [
        json!({}),
        json!({"durability": "quorum", "storeMode": "Endpoints", "paused": true}),
        json!({"postgresql": {"parameters": {"shared_buffers": "64MB", "max_connections": 50, "pg_stat_statements.max": "9"}}}),
        json!({"ha": {"ttl": 30, "loopWait": 10, "retryTimeout": 10}}),
        json!({"resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}),
        json!({"walStorage": {"size": "5Gi"}, "volumePolicy": {"whenScaled": "Delete"}}),
        json!({"bootstrap": {"initdb": {"locale": "de_DE.UTF-8", "walSegmentSize": 64, "postInitSql": ["create extension hstore"]}}}),
        json!({"bootstrap": {"initdb": {"localeProvider": "icu", "icuLocale": "de-DE"}}}),
        json!({"bootstrap": {"clone": {"host": "orders.shop.svc", "sslMode": "require", "secret": {"name": "there"}}}}),
        json!({"standbyOf": {"host": "a.example.com,b.example.com", "primarySlotName": "dr"}}),
        json!({"roles": [{"name": "reports", "login": true, "validUntil": "2027-01-31T00:00:00Z", "inRoles": ["app"], "passwordSecret": {"name": "reports"}}]}),
        json!({"databases": [{"name": "reports", "owner": "reports", "extensions": [{"name": "uuid-ossp"}], "schemas": [{"name": "raw"}]}]}),
        json!({"services": {"primary": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local"}}}),
        json!({"tls": {"extraNames": ["*.example.com", "db.example.com"]}}),
        json!({"networkPolicy": {"enabled": true, "from": [{"namespaceSelector": {}}]}, "monitoring": {"podMonitor": true}}),
        json!({"pod": {"labels": {"team": "shop"}, "env": [{"name": "TZ", "value": "UTC"}],
            "volumes": [{"name": "extra", "emptyDir": {"medium": "Memory"}}], "volumeMounts": [{"name": "extra", "mountPath": "/mnt/extra"}],
            "containers": [{"name": "exporter", "image": "exporter:1", "ports": [{"containerPort": 9187}]}]}}),
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}], "priorityClassName": "high"}),
        json!({"fenced": ["cel-rules-1"], "switchover": {"id": "1", "to": "cel-rules-2"}, "hibernate": true, "deletionProtection": true}),
        json!({"maintenanceWindows": [{"days": ["Sat", "Sun"], "start": "02:00", "duration": "1h30m"}, {"start": "23:30"}]}),
    ] {
        if let Err(error) = api.create(&dry, &cluster(name, &change)).await {
            panic!("{change} is refused: {error}");
        }
    }

    let mut told = Vec::new();
    for (name, change, says) in [
        (name, json!({"instances": 0}), "write instances: 3"),
        (name, json!({"instances": 10}), "1 to 9"),
        (name, json!({"image": ""}), "write e.g. image:"),
        (name, json!({"image": "a b"}), "write e.g. image:"),
        (name, json!({"storage": {"size": "20GB"}}), "write e.g. size: 20Gi"),
        (name, json!({"storage": {"size": "0"}}), "write e.g. size: 20Gi"),
        (name, json!({"durability": "sync"}), "supported values: \"async\", \"quorum\""),
        (name, json!({"durability": "quorum", "instances": 1}), "write instances: 2 or more"),
        (name, json!({"ha": {"ttl": 7}}), "loopWait + 2 * retryTimeout"),
        (name, json!({"ha": {"ttl": 4, "loopWait": 1, "retryTimeout": 1}}), "5 to 300"),
        (name, json!({"postgresUid": 0}), "non-root uid"),
        (name, json!({"postgresUid": 65532}), "non-root uid"),
        (name, json!({"postgresql": {"parameters": {"port": 1}}}), "Matriarch controls"),
        (name, json!({"postgresql": {"parameters": {"Port": 1}}}), "lower case"),
        (name, json!({"application": {"database": "postgres"}}), "database: orders"),
        (name, json!({"application": {"owner": "pg_me"}}), "owner: orders"),
        (name, json!({"walStorage": {"size": "much"}}), "write e.g. size: 20Gi"),
        (name, json!({"bootstrap": {"initdb": {}, "clone": {"host": "a", "secret": {"name": "b"}}}}), "not both"),
        (name, json!({"bootstrap": {"initdb": {"icuLocale": "de"}}}), "localeProvider: icu"),
        (name, json!({"bootstrap": {"initdb": {"encoding": "UTF 8"}}}), "encoding: UTF8"),
        (name, json!({"bootstrap": {"initdb": {"walSegmentSize": 3}}}), "power of two"),
        (name, json!({"bootstrap": {"clone": {"host": "a b", "secret": {"name": "b"}}}}), "host: orders.shop.svc"),
        (name, json!({"bootstrap": {"clone": {"host": "a"}}}), "bootstrap.clone.secret: Required value"),
        (name, json!({"bootstrap": {"clone": {"host": "a", "port": 0, "secret": {"name": "b"}}}}), "port: 5432"),
        (name, json!({"bootstrap": {"initdb": {}}, "standbyOf": {"host": "a"}}), "remove bootstrap, or standbyOf"),
        (name, json!({"standbyOf": {"host": ""}}), "host: orders.shop.svc"),
        (name, json!({"standbyOf": {"host": "a", "primarySlotName": "My-Slot"}}), "primarySlotName: orders_dr"),
        (name, json!({"roles": [{"name": "postgres"}]}), "name: reporting"),
        (name, json!({"roles": [{"name": "pg_read_all_data"}]}), "name: reporting"),
        (name, json!({"roles": [{"name": "a"}, {"name": "a"}]}), "Duplicate value"),
        (name, json!({"roles": [{"name": "a", "validUntil": "tomorrow"}]}), "2027-01-31T00:00:00Z"),
        (name, json!({"roles": [{"name": "a", "connectionLimit": -2}]}), "connectionLimit: 20"),
        (name, json!({"roles": [{"name": "a", "ensure": "gone"}]}), "supported values: \"present\", \"absent\""),
        (name, json!({"databases": [{"name": "template1"}]}), "name: reports"),
        (name, json!({"databases": [{"name": "a", "extensions": [{"name": "Not This"}]}]}), "pg_stat_statements"),
        (
            name,
            json!({"databases": [{"name": "a", "ensure": "absent", "extensions": [{"name": "b"}]}]}),
            "ensure: present",
        ),
        (name, json!({"databases": [{"name": "a", "schemas": [{"name": "pg_toast"}]}]}), "PostgreSQL's own"),
        (
            name,
            json!({"services": {"primary": {"type": "Ingress"}}}),
            "supported values: \"ClusterIP\", \"NodePort\", \"LoadBalancer\"",
        ),
        (name, json!({"services": {"primary": {"nodePort": 30432}}}), "write type: NodePort"),
        (name, json!({"services": {"readOnly": {"loadBalancerClass": "x"}}}), "write type: LoadBalancer"),
        (
            name,
            json!({"services": {"primary": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}}}),
            "[10.0.0.0/8]",
        ),
        (name, json!({"tls": {"extraNames": ["not a name"]}}), "extraNames: [orders.example.com]"),
        (name, json!({"pod": {"labels": {"role": "primary"}}}), "remove it"),
        (name, json!({"pod": {"annotations": {"status": "{}"}}}), "remove it"),
        (name, json!({"pod": {"env": [{"name": "PGDATA", "value": "/x"}]}}), "remove it"),
        (name, json!({"pod": {"volumes": [{"name": "data", "emptyDir": {}}]}}), "name: extra"),
        (
            name,
            json!({"pod": {"volumeMounts": [{"name": "extra", "mountPath": "/var/lib/matriarch/pgdata"}]}}),
            "mountPath: /mnt/extra",
        ),
        (name, json!({"pod": {"containers": [{"name": "postgres", "image": "x"}]}}), "name: exporter"),
        (name, json!({"pod": {"containers": [{"image": "x"}]}}), "name: Required value"),
        (name, json!({"fenced": ["orders-1"]}), "fenced must name members"),
        (name, json!({"fenced": ["cel-rules-11"]}), "fenced must name members"),
        (name, json!({"switchover": {"id": "a b"}}), "another for each switchover"),
        (name, json!({"switchover": {"id": "1", "to": "orders-1"}}), "switchover.to must name a member"),
        (
            name,
            json!({"fenced": ["cel-rules-1"], "switchover": {"id": "1", "to": "cel-rules-1"}}),
            "names a fenced member",
        ),
        (name, json!({"maintenanceWindows": [{"start": "2:00"}]}), "start: \"02:00\""),
        (name, json!({"maintenanceWindows": [{"start": "02:00", "duration": "5m"}]}), "10m to 24h"),
        (name, json!({"maintenanceWindows": [{"start": "02:00", "duration": "long"}]}), "10m to 24h"),
        (name, json!({"maintenanceWindows": [{"start": "02:00", "days": ["Saturday"]}]}), "supported values: \"Mon\""),
        (name, json!({"volumePolicy": {"whenDeleted": "Keep"}}), "supported values: \"Retain\", \"Delete\""),
        ("a.b", json!({}), "name of a Service"),
        ("orders-ro", json!({}), "write another name"),
        ("a-name-that-has-more-than-forty-characters", json!({}), "write a shorter name"),
    ] {
        let change = if name == "cel-rules" { change } else { json!({"metadata": {"name": name}}) };
        let object = if change["metadata"].is_null() { cluster(name, &change) } else { cluster(name, &json!({})) };
        told.push((flow(&change), refused(api.create(&dry, &object).await, &change, says)));
    }
    let mut changes = Vec::new();

    api.create(&PostParams::default(), &cluster(name, &json!({}))).await.unwrap();
    let update = PatchParams { dry_run: true, ..PatchParams::default() };
    for (change, says) in [
        (json!({"storage": {"size": "19Gi"}}), "cannot shrink"),
        (json!({"storage": {"storageClass": "fast"}}), "storageClass cannot change"),
        (json!({"storage": {"storageClass": null}}), "storageClass cannot change"),
        (json!({"storeMode": "Endpoints"}), "storeMode cannot change"),
        (json!({"postgresUid": 70}), "postgresUid owns the files"),
        (json!({"walStorage": {"size": "1Gi"}}), "neither added nor removed"),
        (json!({"bootstrap": {"initdb": {}}}), "bootstrap is used once"),
        (json!({"application": {"database": "orders"}}), "rename the database or the role by SQL"),
    ] {
        let patch = Patch::Merge(json!({"spec": change}));
        changes.push((flow(&change), refused(api.patch(name, &update, &patch).await, &change, says)));
    }
    let grown = json!({"spec": {"storage": {"size": "20481Mi"}, "instances": 5}});
    let grown = api.patch(name, &update, &Patch::Merge(grown)).await;
    api.delete(name, &DeleteParams::default()).await.unwrap();
    grown.unwrap();
    page_is_current(&told, &changes);
}

/// What the API server says, if that is a refusal that says it.
fn refused(result: Result<DynamicObject, kube::Error>, change: &Value, says: &str) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.message.contains(says) => {
            let (_, message) = status.message.split_once(" is invalid: ").unwrap_or(("", &status.message));
            message.to_owned()
        }
        other => panic!("{change} should be refused with {says:?}: {other:?}"),
    }
}

/// As a person writes it on one line of YAML.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let all: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", all.join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text)
            if text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) && !text.is_empty() =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn page_is_current(told: &[(String, String)], changes: &[(String, String)]) {
    let table = |rows: &[(String, String)]| {
        let escape = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let line = |(spec, says): &(String, String)| format!("| `{}` | {} |\n", escape(spec), escape(says));
        format!(
            "| what is written | what the API server says |\n|---|---|\n{}",
            rows.iter().map(line).collect::<String>()
        )
    };
    let page = format!(
        "# Specs that cannot work\n\nThe API server refuses them at once, and nothing that runs is touched. Written by `MATRIARCH_GENERATE=1 make \
         wrong-specs` from a real API server's answers; `make test` compares.\n\n{} specs of new clusters: the least that works, \
         changed so.\n\n{}\n{} changes of a cluster that exists, with `size: 20Gi` and `storageClass: slow`.\n\n{}",
        told.len(),
        table(told),
        changes.len(),
        table(changes)
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wrong-specs.md");
    if std::env::var_os("MATRIARCH_GENERATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page, "docs/wrong-specs.md is stale: run `MATRIARCH_GENERATE=1 make wrong-specs`");
}
