//! Carries out the writes of a plan.

use k8s_openapi::ByteString;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::DynamicObject;
use kube::{Api, Client};
use matriarch_crds::names::{AGENT_CONTAINER, API_PORT, OPERATOR};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::agent::{Agent, Answer};
use crate::kinds::Kind;
use crate::member::UPGRADED_ANNOTATION;
use crate::observe::{Seen, labels};
use crate::plan::Write;
use crate::plan::restarts::{RESTARTED_ANNOTATION, Restart};
use crate::tls::{self, Need, Pair};

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error("cannot {verb} {kind:?} {name}: {source}")]
    Write {
        /// What was tried.
        verb: &'static str,
        /// Kind.
        kind: Kind,
        /// Name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The object could not be encoded.
    #[error("cannot encode {kind:?}: {source}")]
    Encode {
        /// Kind.
        kind: Kind,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An agent does not restart its PostgreSQL.
    #[error("PostgreSQL of {pod} is not restarted, which is tried again: {why}")]
    Restart {
        /// Its pod.
        pod: String,
        /// What the agent said, or why it cannot be asked.
        why: String,
    },
    /// A certificate could not be issued.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl Error {
    /// For metrics and conditions.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Write { verb: "apply", .. } => "ApplyFailed",
            Self::Write { verb: "create", .. } => "CreateFailed",
            Self::Write { verb: "delete", .. } => "DeleteFailed",
            Self::Write { .. } => "PatchFailed",
            Self::Encode { .. } => "EncodeFailed",
            Self::Restart { .. } => "RestartFailed",
            Self::Tls(e) => e.category(),
        }
    }

    /// Somebody else wrote in between: look again and decide anew.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Write { source, verb: "patch", .. } if status(source) == Some(409))
    }
}

fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// All writes, in order; stops at the first that fails. Claims that the storage refuses to grow are told, and are no
/// failure.
pub async fn apply(client: &Client, seen: &Seen, writes: &[Write]) -> Result<Vec<String>, Error> {
    let mut refused = Vec::new();
    for write in writes {
        match one(client, seen, write).await {
            Err(Error::Write { source, name, .. }) if is_refused(write, &source) => {
                warn!(claim = name, error = %source, "the claim cannot grow");
                refused.push(match &*source {
                    kube::Error::Api(status) => status.message.clone(), // it names the claim
                    other => format!("{name}: {other}"),
                });
            }
            other => other?,
        }
    }
    Ok(refused)
}

/// Admission says no to a claim of a class that cannot expand, or beyond a quota.
fn is_refused(write: &Write, source: &kube::Error) -> bool {
    matches!(write, Write::Grow { .. }) && matches!(status(source), Some(403 | 422))
}

fn api(client: &Client, seen: &Seen, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &seen.namespace(), &kind.resource())
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

async fn one(client: &Client, seen: &Seen, write: &Write) -> Result<(), Error> {
    match write {
        Write::Apply { kind, object } => {
            let name = name_of(object);
            // What is not (yet) known as the cluster's own is not taken from whoever has it: that gives a conflict.
            let params = PatchParams { force: seen.object(*kind, &name).is_some(), ..PatchParams::apply(OPERATOR) };
            info!(object.kind = ?kind, object.name = name, "apply");
            api(client, seen, *kind)
                .patch(&name, &params, &Patch::Apply(object))
                .await
                .map(drop)
                .map_err(failed("apply", *kind, &name))
        }
        Write::Create { kind, object } => create(client, seen, *kind, object).await.map(drop),
        Write::Patch { kind, name, body } => merge(client, seen, *kind, name, body).await,
        Write::AgentImage { pod, image } => {
            info!(pod.name = pod, agent.image = image, "upgrade the agent in place");
            let body = json!({
                "metadata": {"annotations": {(UPGRADED_ANNOTATION): seen.now.to_string()}},
                "spec": {"initContainers": [{"name": AGENT_CONTAINER, "image": image}]},
            });
            api(client, seen, Kind::Pod)
                .patch(
                    pod,
                    &PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() },
                    &Patch::Strategic(body),
                )
                .await
                .map(drop)
                .map_err(failed("patch", Kind::Pod, pod))
        }
        Write::Restart(order) => restart(client, seen, order).await,
        Write::Grow { claim, body } => merge(client, seen, Kind::PersistentVolumeClaim, claim, body).await,
        Write::Delete { kind, name, uid } => delete(client, seen, *kind, name, uid, None).await,
        Write::Orphan { kind, name, uid } => {
            delete(client, seen, *kind, name, uid, Some(PropagationPolicy::Orphan)).await
        }
        Write::Issue(need) => issue(client, seen, need).await,
    }
}

/// Noted when the agent has taken it: an operator that dies before asks again, and a member that no longer waits for a
/// restart refuses.
async fn restart(client: &Client, seen: &Seen, order: &Restart) -> Result<(), Error> {
    let Restart { pod, uid, role, note, replaceable } = order;
    let failed = |why: String| Err(Error::Restart { pod: pod.clone(), why });
    let tls = seen.object(Kind::Secret, &seen.names().tls_secret()).map_or(&Value::Null, |secret| &secret["data"]);
    let host = seen.names().member_host(pod, &seen.namespace());
    let ip = seen.members.iter().find(|m| m.name == *pod).and_then(|m| m.ip);
    let Some(ip) = ip else { return failed("its pod has no address".to_owned()) };
    info!(pod.name = pod, member.role = role, "restart PostgreSQL in place");
    match Agent::of(ip, &host, tls).restart(role).await {
        Answer::Done | Answer::UnderWay => {
            let text = serde_json::to_string(note).map_err(|source| Error::Encode { kind: Kind::Pod, source })?;
            let body = json!({"metadata": {"uid": uid, "annotations": {(RESTARTED_ANNOTATION): text}}});
            merge(client, seen, Kind::Pod, pod, &body).await
        }
        Answer::NotNeeded => {
            info!(pod.name = pod, "it waits for no restart any more, or has another role");
            Ok(())
        }
        Answer::Refused(said) => failed(format!("its agent says: {said}")),
        Answer::Unreachable(why) if *replaceable => {
            warn!(pod.name = pod, error = why, "its agent cannot be reached: the pod is made anew instead");
            delete(client, seen, Kind::Pod, pod, uid, None).await
        }
        Answer::Unreachable(why) => failed(format!(
            "its agent cannot be reached at {ip}:{API_PORT} ({why}): let the operator's pods in there (a NetworkPolicy may be in the way), or run `kubectl matriarch restart {} {pod}`",
            seen.name()
        )),
    }
}

/// Only the object with that uid; that it is gone, or another, is fine.
async fn delete(
    client: &Client,
    seen: &Seen,
    kind: Kind,
    name: &str,
    uid: &str,
    propagation_policy: Option<PropagationPolicy>,
) -> Result<(), Error> {
    info!(object.kind = ?kind, object.name = name, "delete");
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        propagation_policy,
        ..DeleteParams::default()
    };
    match api(client, seen, kind).delete(name, &params).await {
        Err(e) if matches!(status(&e), Some(404 | 409)) => Ok(()),
        other => other.map(drop).map_err(failed("delete", kind, name)),
    }
}

/// Whether it was created now; that it exists already is fine.
async fn create(client: &Client, seen: &Seen, kind: Kind, object: &Value) -> Result<bool, Error> {
    let name = name_of(object);
    let typed: DynamicObject =
        serde_json::from_value(object.clone()).map_err(|source| Error::Encode { kind, source })?;
    let params = PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() };
    match api(client, seen, kind).create(&params, &typed).await {
        Ok(_) => {
            info!(object.kind = ?kind, object.name = name, "create");
            Ok(true)
        }
        Err(e) if status(&e) == Some(409) => Ok(false),
        Err(e) => Err(failed("create", kind, &name)(e)),
    }
}

async fn merge(client: &Client, seen: &Seen, kind: Kind, name: &str, body: &Value) -> Result<(), Error> {
    info!(object.kind = ?kind, object.name = name, "patch");
    let params = PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() };
    api(client, seen, kind)
        .patch(name, &params, &Patch::Merge(body))
        .await
        .map(drop)
        .map_err(failed("patch", kind, name))
}

fn failed(verb: &'static str, kind: Kind, name: &str) -> impl FnOnce(kube::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Write { verb, kind, name, source: Box::new(source) }
}

/// The authority if it is missing, then the members' certificate.
async fn issue(client: &Client, seen: &Seen, need: &Need) -> Result<(), Error> {
    use kube::Resource;
    let names = seen.names();
    let secret = |name: String, pair: &Pair, ca: &str| {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": seen.namespace(),
                "labels": labels(&seen.name()),
                "ownerReferences": seen.cluster.controller_owner_ref(&()).into_iter().collect::<Vec<_>>(),
            },
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": bytes(&pair.certificate), "tls.key": bytes(&pair.key), "ca.crt": bytes(ca)},
        })
    };
    let authority = if let Some(pair) = &need.authority {
        pair.clone()
    } else {
        let pair = tls::issue_authority(&seen.name(), seen.now)?;
        let object = secret(names.ca_secret(), &pair, &pair.certificate);
        if !create(client, seen, Kind::Secret, &object).await? {
            // It is there but the watch does not show it yet (or it is not usable): look again first.
            return Ok(());
        }
        pair
    };
    let pair = tls::issue_member(&authority, &seen.name(), &seen.namespace(), seen.now)?;
    let mut object = secret(names.tls_secret(), &pair, &authority.certificate);
    match &need.replaces {
        None => create(client, seen, Kind::Secret, &object).await.map(drop),
        Some(version) => {
            object["metadata"]["resourceVersion"] = json!(version);
            merge(client, seen, Kind::Secret, &names.tls_secret(), &object).await
        }
    }
}
