//! What a user adds to the members' pods.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, VolumeMount};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is added to the members' pods. A change replaces the pods one by one.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Labels. Those that Matriarch sets stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(validation = Rule::new("self.all(key, !(key in ['application', 'cluster-name', 'role']) && !key.startsWith('matriarch.dev/') && !key.startsWith('statefulset.kubernetes.io/'))")
        .message("pod.labels names a label that Matriarch or Kubernetes sets (application, cluster-name, role, matriarch.dev/*): remove it"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations. Those that Matriarch sets stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(validation = Rule::new("self.all(key, key != 'status' && !key.startsWith('matriarch.dev/'))")
        .message("pod.annotations names an annotation that Matriarch sets (status, matriarch.dev/*): remove it"))]
    pub annotations: BTreeMap<String, String>,
    /// Environment of the postgres container, e.g. for an archive command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = Rule::new("self.all(e, !(e.name in ['PGDATA', 'PGPORT', 'PGHOST', 'PGUSER', 'PGPASSWORD', 'PGPASSFILE']))")
        .message("pod.env names a variable that changes where PostgreSQL's programs connect to (PGDATA, PGHOST, PGPORT, PGUSER, PGPASSWORD, PGPASSFILE): remove it"))]
    pub env: Vec<EnvVar>,
    /// More volumes, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.all(v, !(v.name in ['data', 'wal', 'bin', 'run', 'socket', 'tmp', 'shm', 'agent-config', 'tls', 'secrets', 'declared', 'api-access']))")
        .message("pod.volumes has a name that Matriarch uses (data, wal, bin, run, socket, tmp, shm, agent-config, tls, secrets, declared, api-access): write another name, e.g. name: extra"))]
    pub volumes: Vec<Named>,
    /// Where the postgres container has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.all(m, !m.mountPath.startsWith('/var/lib/matriarch') && !m.mountPath.startsWith('/run/matriarch') && !m.mountPath.startsWith('/opt/matriarch') && !m.mountPath.startsWith('/etc/matriarch'))")
        .message("pod.volumeMounts has a path that Matriarch uses (/var/lib/matriarch, /run/matriarch, /opt/matriarch, /etc/matriarch): write another, e.g. mountPath: /mnt/extra"))]
    pub volume_mounts: Vec<VolumeMount>,
    /// More containers, as in a pod: exporters, log shippers, poolers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = Rule::new("self.all(c, !(c.name in ['postgres', 'agent', 'install']))")
        .message("pod.containers has the name of one of Matriarch's containers (postgres, agent, install): write another name, e.g. name: exporter"))]
    pub containers: Vec<Named>,
}

/// An object of Kubernetes' pod API that is passed on as it is; the API server looks at it when pods are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Named(pub Map<String, Value>);

impl JsonSchema for Named {
    fn schema_name() -> Cow<'static, str> {
        "Named".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "description": "Its name.", "minLength": 1, "maxLength": 63}},
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}
