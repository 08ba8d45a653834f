//! The StatefulSet: the pods with their agent (a native sidecar) and PostgreSQL under its supervisor.
//!
//! Nothing that carries a version is in arguments or environment, so that the agent can be upgraded by its image
//! alone. `OnDelete`: the operator decides which pod goes when.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use matriarch_crds::Resources;
use matriarch_crds::names::{
    AGENT_CONFIG, AGENT_CONTAINER, AGENT_UID, API_PORT, APPLICATION, APPLICATION_LABEL, BIN_DIR, DATA_VOLUME,
    INSTALL_CONTAINER, POSTGRES_CONTAINER, POSTGRES_PORT, POSTGRES_PORT_NAME, POSTGRES_SOCKET_DIR, RUN_DIR,
    SCOPE_LABEL, SECRETS_DIR, SUPERVISOR_SOCKET, TLS_DIR,
};
use serde_json::{Value, json};

use super::diff::quantity;
use super::{RESTART_ANNOTATION, Write, labels, metadata, restart_hash};
use crate::kinds::Kind;
use crate::next_step;
use crate::observe::Seen;

/// For how long PostgreSQL may take to stop (60 s) and the lock to be handed over, before the kubelet kills.
const GRACE_PERIOD: i32 = 90;
/// Name of the volume claim template.
const DATA: &str = "data";

/// The StatefulSet.
pub fn object(seen: &Seen) -> Value {
    let names = seen.names();
    let labels = labels(&seen.name());
    let selector = json!({(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()});
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(seen, &seen.name()),
        "spec": {
            "replicas": next_step::replicas(seen),
            "serviceName": names.pods_service(),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        (RESTART_ANNOTATION): restart_hash(&seen.cluster.spec),
                        "kubectl.kubernetes.io/default-container": POSTGRES_CONTAINER,
                    },
                },
                "spec": pod_spec(seen),
            },
            "volumeClaimTemplates": [claim(seen)],
        },
    })
}

fn pod_spec(seen: &Seen) -> Value {
    let spec = &seen.cluster.spec;
    let selector = json!({(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()});
    let apart = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector}},
    }]}});
    let mut pod = json!({
        "serviceAccountName": seen.names().agent(),
        // Only the agent gets a token, from a volume of its own.
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_PERIOD,
        "securityContext": {
            "runAsNonRoot": true,
            "fsGroup": spec.postgres_uid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": spec.affinity.as_ref().map_or(apart, |a| json!(a)),
        "initContainers": [install(seen), agent(seen)],
        "containers": [postgres(seen)],
        "volumes": volumes_of_pod(seen),
    });
    if !spec.tolerations.is_empty() {
        pod["tolerations"] = json!(spec.tolerations);
    }
    if !spec.node_selector.is_empty() {
        pod["nodeSelector"] = json!(spec.node_selector);
    }
    if !spec.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(spec.image_pull_secrets);
    }
    pod
}

fn locked_down(uid: i64) -> Value {
    json!({
        "runAsUser": uid,
        "runAsGroup": uid,
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    })
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

fn read_only(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path, "readOnly": true})
}

/// Copies the static binaries to where the postgres container, whose image knows nothing of them, finds them.
fn install(seen: &Seen) -> Value {
    json!({
        "name": INSTALL_CONTAINER,
        "image": seen.sidecar_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/matriarch-sidecar", "install", BIN_DIR],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": locked_down(AGENT_UID),
        "volumeMounts": [mount("bin", BIN_DIR)],
    })
}

fn agent(seen: &Seen) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |path: &str| json!({"path": path, "port": API_PORT, "scheme": "HTTPS"});
    json!({
        "name": AGENT_CONTAINER,
        "image": seen.sidecar_image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["/matriarch-sidecar", "run", AGENT_CONFIG],
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
            field("POD_UID", "metadata.uid"),
        ],
        "ports": [{"name": "api", "containerPort": API_PORT, "protocol": "TCP"}],
        // No startup probe: it would keep PostgreSQL from starting. The pod is ready when PostgreSQL is usable.
        "livenessProbe": {"httpGet": probe("/liveness"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {"httpGet": probe("/readiness"), "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3},
        "resources": {"requests": {"cpu": "25m", "memory": "32Mi"}},
        "securityContext": locked_down(AGENT_UID),
        "volumeMounts": [
            read_only("agent-config", "/etc/matriarch/agent"),
            read_only("secrets", SECRETS_DIR),
            read_only("tls", TLS_DIR),
            read_only("api-access", "/var/run/secrets/kubernetes.io/serviceaccount"),
            mount("run", RUN_DIR),
            mount("socket", POSTGRES_SOCKET_DIR),
        ],
    })
}

fn postgres(seen: &Seen) -> Value {
    let spec = &seen.cluster.spec;
    let mut container = json!({
        "name": POSTGRES_CONTAINER,
        "image": spec.image,
        "command": [
            format!("{BIN_DIR}/matriarch-supervisor"), "run",
            "--volume", DATA_VOLUME,
            "--socket", SUPERVISOR_SOCKET,
            "--agent-uid", AGENT_UID.to_string(),
        ],
        "ports": [{"name": POSTGRES_PORT_NAME, "containerPort": POSTGRES_PORT, "protocol": "TCP"}],
        "resources": resources(&spec.resources),
        "securityContext": locked_down(spec.postgres_uid),
        "volumeMounts": [
            mount(DATA, DATA_VOLUME),
            read_only("bin", BIN_DIR),
            read_only("tls", TLS_DIR),
            mount("run", RUN_DIR),
            mount("socket", POSTGRES_SOCKET_DIR),
            mount("tmp", "/tmp"),
            mount("shm", "/dev/shm"),
        ],
    });
    if let Some(policy) = spec.image_pull_policy {
        container["imagePullPolicy"] = json!(policy.as_str());
    }
    container
}

/// A small request unless the spec says another; limits only as the spec says.
fn resources(spec: &Resources) -> Value {
    let text = |list: &BTreeMap<String, IntOrString>| -> BTreeMap<String, String> {
        list.iter()
            .map(|(name, value)| {
                let value = match value {
                    IntOrString::Int(number) => number.to_string(),
                    IntOrString::String(text) => text.clone(),
                };
                (name.clone(), value)
            })
            .collect()
    };
    let mut requests = text(&spec.requests);
    let limits = text(&spec.limits);
    for (name, small) in [("cpu", "100m"), ("memory", "256Mi")] {
        if !requests.contains_key(name) && !limits.contains_key(name) {
            requests.insert(name.to_owned(), small.to_owned());
        }
    }
    json!({"requests": requests, "limits": limits})
}

fn volumes_of_pod(seen: &Seen) -> Value {
    let names = seen.names();
    let spec = &seen.cluster.spec;
    let mut credentials: Vec<Value> = spec
        .secrets
        .by_user()
        .into_iter()
        .map(|(user, own)| {
            let name = own.map_or_else(|| names.secret(user), str::to_owned);
            let file = |key: &str| json!({"key": key, "path": format!("{user}/{key}")});
            json!({"secret": {"name": name, "optional": true, "items": [file("username"), file("password")]}})
        })
        .collect();
    credentials.push(json!({"configMap": {
        "name": names.agent_config(), "optional": true, "items": [{"key": "dbname", "path": "app/dbname"}],
    }}));
    json!([
        {"name": "bin", "emptyDir": {}},
        {"name": "run", "emptyDir": {}},
        {"name": "socket", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        // PostgreSQL's shared memory: a runtime's own /dev/shm has 64 MiB.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "agent-config", "configMap": {"name": names.agent_config(), "defaultMode": 0o444}},
        {"name": "tls", "secret": {"secretName": names.tls_secret(), "defaultMode": 0o440}},
        {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": credentials}},
        {"name": "api-access", "projected": {"defaultMode": 0o440, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}},
    ])
}

/// The claim template. Kubernetes lets nobody change it: with a StatefulSet that exists, its size stays as it was
/// there, and [`volumes`] grows the claims.
fn claim(seen: &Seen) -> Value {
    let storage = &seen.cluster.spec.storage;
    let size = seen
        .object(Kind::StatefulSet, &seen.name())
        .and_then(|set| set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].as_str())
        .unwrap_or(&storage.size);
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DATA, "labels": labels(&seen.name())},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    });
    if let Some(class) = &storage.storage_class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    claim
}

/// Grows the claims that are smaller than the spec says.
pub fn volumes(seen: &Seen) -> Vec<Write> {
    let wanted = json!(seen.cluster.spec.storage.size);
    let smaller = |claim: &Value| {
        let has = quantity(&claim["spec"]["resources"]["requests"]["storage"]);
        has.is_some_and(|has| quantity(&wanted).is_some_and(|wanted| has < wanted))
    };
    seen.objects
        .iter()
        .filter(|((kind, name), claim)| {
            *kind == Kind::PersistentVolumeClaim
                && name.starts_with(&format!("{DATA}-{}-", seen.name()))
                && smaller(claim)
        })
        .map(|((kind, name), _)| Write::Patch {
            kind: *kind,
            name: name.clone(),
            body: json!({"spec": {"resources": {"requests": {"storage": wanted}}}}),
        })
        .collect()
}
