//! The StatefulSet: the pods with their agent (a native sidecar) and PostgreSQL under its supervisor.
//!
//! Nothing that carries a version is in arguments or environment, so that the agent can be upgraded by its image
//! alone. `OnDelete`: the operator decides which pod goes when.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use matriarch_crds::Resources;
use matriarch_crds::names::{
    AGENT_CONFIG, AGENT_CONTAINER, AGENT_UID, API_PORT, APPLICATION, APPLICATION_LABEL, BIN_DIR, DATA_VOLUME,
    DECLARED_DIR, INSTALL_CONTAINER, POSTGRES_CONTAINER, POSTGRES_PORT, POSTGRES_PORT_NAME, POSTGRES_SOCKET_DIR,
    RUN_DIR, SCOPE_LABEL, SECRETS_DIR, SERVER_TLS_DIR, SUPERVISOR_SOCKET, TLS_DIR, WAL_VOLUME,
};
use serde_json::{Value, json};

use super::claims::{self, DATA, WAL};
use super::{RESTART_ANNOTATION, labels, metadata, restart_hash};
use crate::next_step;
use crate::observe::Seen;

/// For how long PostgreSQL may take to stop (60 s) and the lock to be handed over, before the kubelet kills.
const GRACE_PERIOD: i32 = 90;

/// The StatefulSet.
pub fn object(seen: &Seen) -> Value {
    let names = seen.names();
    let extra = &seen.cluster.spec.pod;
    // What is Matriarch's own wins over what the spec adds.
    let mut labels_of_pod = extra.labels.clone();
    labels_of_pod.extend(labels(&seen.name()));
    let mut annotations = extra.annotations.clone();
    annotations.insert(RESTART_ANNOTATION.to_owned(), restart_hash(&seen.cluster.spec));
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), POSTGRES_CONTAINER.to_owned());
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
                "metadata": {"labels": labels_of_pod, "annotations": annotations},
                "spec": pod_spec(seen),
            },
            "volumeClaimTemplates": claims::templates(seen),
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
    if !spec.topology_spread_constraints.is_empty() {
        pod["topologySpreadConstraints"] = json!(spread(seen));
    }
    if let Some(class) = &spec.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
    if let Some(scheduler) = &spec.scheduler_name {
        pod["schedulerName"] = json!(scheduler);
    }
    if let Some(containers) = pod["containers"].as_array_mut() {
        containers.extend(spec.pod.containers.iter().map(|c| json!(c)));
    }
    if !spec.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(spec.image_pull_secrets);
    }
    pod
}

/// Without a selector of their own they spread this cluster's members.
fn spread(seen: &Seen) -> Vec<Value> {
    let members = json!({"matchLabels": {(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()}});
    let with_selector = |constraint: Value| {
        let mut constraint = constraint;
        if constraint["labelSelector"].is_null() {
            constraint["labelSelector"] = members.clone();
        }
        constraint
    };
    seen.cluster.spec.topology_spread_constraints.iter().map(|c| with_selector(json!(c))).collect()
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
    let spec = &seen.cluster.spec;
    let mut mounts = vec![
        read_only("agent-config", "/etc/matriarch/agent"),
        read_only("secrets", SECRETS_DIR),
        read_only("tls", TLS_DIR),
        read_only("declared", DECLARED_DIR),
        read_only("api-access", "/var/run/secrets/kubernetes.io/serviceaccount"),
        mount("run", RUN_DIR),
        mount("socket", POSTGRES_SOCKET_DIR),
    ];
    if spec.tls.secret.is_some() {
        mounts.push(read_only("server-tls", SERVER_TLS_DIR));
    }
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
        "volumeMounts": mounts,
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
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.extend(spec.wal_storage.iter().map(|_| mount(WAL, WAL_VOLUME)));
        mounts.extend(spec.pod.volume_mounts.iter().map(|m| json!(m)));
    }
    if !spec.pod.env.is_empty() {
        container["env"] = json!(spec.pod.env);
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
    if let Some(secret) = clone_secret(seen) {
        let file = |key: &str| json!({"key": key, "path": format!("clone/{key}")});
        let items = [file("username"), file("password")];
        credentials.push(json!({"secret": {"name": secret, "optional": true, "items": items}}));
    }
    credentials.push(json!({"configMap": {
        "name": names.agent_config(), "optional": true, "items": [{"key": "dbname", "path": "app/dbname"}],
    }}));
    let mut volumes = vec![
        json!({"name": "bin", "emptyDir": {}}),
        json!({"name": "run", "emptyDir": {}}),
        json!({"name": "socket", "emptyDir": {}}),
        json!({"name": "tmp", "emptyDir": {}}),
        // PostgreSQL's shared memory: a runtime's own /dev/shm has 64 MiB.
        json!({"name": "shm", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "agent-config", "configMap": {"name": names.agent_config(), "defaultMode": 0o444}}),
        json!({"name": "tls", "secret": {"secretName": names.tls_secret(), "defaultMode": 0o440}}),
        json!({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": credentials}}),
        json!({"name": "declared", "secret": {
            "secretName": names.declared_secret(), "optional": true, "defaultMode": 0o440,
        }}),
        json!({"name": "api-access", "projected": {"defaultMode": 0o440, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}),
    ];
    if let Some(secret) = &spec.tls.secret {
        let file = |key: &str| json!({"key": key, "path": key});
        let mut sources = vec![json!({"secret": {"name": secret, "items": [file("tls.crt"), file("tls.key")]}})];
        // Without an authority of clients' certificates the members' own is used.
        let authority = spec.tls.ca_secret.as_ref().unwrap_or(secret);
        sources.push(json!({"secret": {"name": authority, "optional": true, "items": [file("ca.crt")]}}));
        volumes.push(json!({"name": "server-tls", "projected": {"defaultMode": 0o440, "sources": sources}}));
    }
    volumes.extend(spec.pod.volumes.iter().map(|v| json!(v)));
    json!(volumes)
}

/// The Secret of `bootstrap.clone`.
fn clone_secret(seen: &Seen) -> Option<&str> {
    Some(seen.cluster.spec.bootstrap.as_ref()?.clone.as_ref()?.secret.name.as_str())
}
