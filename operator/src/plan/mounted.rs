//! Tells the kubelets that what pods mount has changed: by an annotation of the running pods, so that files are there, and
//! file systems of volumes have grown, within a second or two and not after the kubelet's own minute. Never on the template:
//! no pod is made anew for it.
//!
//! The annotation is made of resourceVersions, not of contents: who may read pods learns nothing about passwords.

use serde_json::json;

use super::diff::hash;
use super::{Write, claims};
use crate::kinds::Kind;
use crate::member::Member;
use crate::observe::Seen;

/// On running pods: which state of the mounted objects the kubelet was told of.
pub const MOUNTED_ANNOTATION: &str = "matriarch.dev/mounted";

/// The state of everything that a member mounts.
pub fn state(seen: &Seen, member: &Member) -> String {
    let names = seen.names();
    let version = |kind: Kind, name: &str| {
        let own = seen.object(kind, name).or_else(|| seen.named_secrets.get(name).and_then(Option::as_ref));
        json!([name, own.map(|o| o["metadata"]["resourceVersion"].clone())])
    };
    let spec = &seen.cluster.spec;
    let mut all = vec![version(Kind::ConfigMap, &names.agent_config())];
    let users = spec.secrets.by_user().map(|(user, own)| own.map_or_else(|| names.secret(user), str::to_owned));
    let server = [spec.tls.secret.clone(), spec.tls.ca_secret.clone()].into_iter().flatten();
    let ours = [names.tls_secret(), names.declared_secret()];
    let clone = spec.bootstrap.as_ref().and_then(|b| b.clone.as_ref()).map(|c| c.secret.name.clone());
    all.extend(users.into_iter().chain(ours).chain(server).chain(clone).map(|name| version(Kind::Secret, &name)));
    all.extend(claims::for_kubelet(seen, member));
    hash(&json!(all))
}

/// The pods that have to be told.
pub fn plan(seen: &Seen) -> Vec<Write> {
    seen.members
        .iter()
        .filter(|m| !m.deleting && m.node.is_some())
        .map(|m| (m, state(seen, m)))
        .filter(|(m, state)| m.mounted.as_ref() != Some(state))
        .map(|(m, state)| Write::Patch {
            kind: Kind::Pod,
            name: m.name.clone(),
            body: json!({"metadata": {"annotations": {(MOUNTED_ANNOTATION): state}}}),
        })
        .collect()
}
