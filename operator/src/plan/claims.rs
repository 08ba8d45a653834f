//! The volume claims: their templates, growing them, whose they are, and those of members that were removed.

use matriarch_crds::cluster::{Keep, Storage};
use serde_json::{Value, json};

use super::diff::quantity;
use super::{Write, labels, owner};
use crate::kinds::Kind;
use crate::member::Member;
use crate::next_step::{self, Step};
use crate::observe::Seen;

/// Name of the claim template of the data volume.
pub const DATA: &str = "data";
/// Name of the claim template of the WAL volume.
pub const WAL: &str = "wal";

/// Each claim template's name, and what the spec says about it.
fn wanted(seen: &Seen) -> Vec<(&'static str, &Storage)> {
    let spec = &seen.cluster.spec;
    let mut all = vec![(DATA, &spec.storage)];
    all.extend(spec.wal_storage.as_ref().map(|storage| (WAL, storage)));
    all
}

/// Size of a template of the StatefulSet that exists.
fn live_size<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    let set = seen.object(Kind::StatefulSet, &seen.name())?;
    let templates = set["spec"]["volumeClaimTemplates"].as_array()?;
    let template = templates.iter().find(|t| t["metadata"]["name"] == name)?;
    template["spec"]["resources"]["requests"]["storage"].as_str()
}

/// The claim templates. Kubernetes lets nobody change them: with a StatefulSet that exists, sizes stay as they are
/// there until it is made anew (`next_step/set.rs`).
pub fn templates(seen: &Seen) -> Vec<Value> {
    wanted(seen)
        .into_iter()
        .map(|(name, storage)| {
            let size = live_size(seen, name).unwrap_or(&storage.size);
            let mut claim = json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "labels": labels(&seen.name())},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
            });
            if let Some(class) = &storage.storage_class {
                claim["spec"]["storageClassName"] = json!(class);
            }
            claim
        })
        .collect()
}

/// Whether the StatefulSet that exists has templates of other sizes.
pub fn template_differs(seen: &Seen) -> bool {
    wanted(seen).into_iter().any(|(name, storage)| {
        live_size(seen, name).is_some_and(|live| quantity(&json!(live)) != quantity(&json!(storage.size)))
    })
}

/// Template and ordinal of a claim of this cluster.
fn parse<'a>(seen: &Seen, claim: &'a str) -> Option<(&'a str, i32)> {
    let (rest, ordinal) = claim.rsplit_once('-')?;
    let template = rest.strip_suffix(&format!("-{}", seen.name()))?;
    Some((template, ordinal.parse().ok()?))
}

/// The claims that exist: name, template, ordinal, object.
pub fn existing(seen: &Seen) -> impl Iterator<Item = (&str, &str, i32, &Value)> {
    seen.objects.iter().filter(|((kind, _), _)| *kind == Kind::PersistentVolumeClaim).filter_map(
        |((_, name), claim)| {
            let (template, ordinal) = parse(seen, name)?;
            Some((name.as_str(), template, ordinal, claim))
        },
    )
}

/// Claims that are smaller than the spec says, with the size that they shall have. Kubernetes refuses those whose class
/// cannot expand; that is shown, and hinders nothing else.
pub fn grow(seen: &Seen) -> Vec<Write> {
    let wanted = wanted(seen);
    existing(seen)
        .filter_map(|(name, template, _, claim)| {
            let (_, storage) = wanted.iter().find(|(t, _)| *t == template)?;
            let has = quantity(&claim["spec"]["resources"]["requests"]["storage"])?;
            (has < quantity(&json!(storage.size))?).then(|| Write::Grow {
                claim: name.to_owned(),
                body: json!({"spec": {"resources": {"requests": {"storage": storage.size}}}}),
            })
        })
        .collect()
}

/// Claims that go with the cluster (`volumePolicy.whenDeleted`) carry its ownerReference.
///
/// Not the StatefulSet's own policy: that makes the claims the set's, and the set is deleted when its template changes.
pub fn ownership(seen: &Seen) -> Vec<Write> {
    let go = seen.cluster.spec.volume_policy.when_deleted == Keep::Delete;
    let uid = seen.cluster.metadata.uid.as_deref();
    existing(seen)
        .filter(|(_, _, _, claim)| claim["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|(name, _, _, claim)| {
            let mut owners = claim["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let has = owners.iter().any(|o| o["uid"].as_str() == uid);
            if has == go {
                return None;
            }
            if go {
                let mut ours = owner(seen)[0].clone();
                // A claim has no controller, and does not hold up the cluster's deletion.
                ours["controller"] = json!(false);
                ours["blockOwnerDeletion"] = json!(false);
                owners.push(ours);
            } else {
                owners.retain(|o| o["uid"].as_str() != uid);
            }
            let body = json!({"metadata": {
                "resourceVersion": claim["metadata"]["resourceVersion"],
                "ownerReferences": owners,
            }});
            Some(Write::Patch { kind: Kind::PersistentVolumeClaim, name: name.to_owned(), body })
        })
        .collect()
}

/// Claims of members that were removed by scaling down, if they shall go: only when all that stay are as they should be.
pub fn removed(seen: &Seen, step: &Step) -> Vec<Write> {
    let spec = &seen.cluster.spec;
    let whole = *step == Step::Stable && seen.leader().is_some() && seen.members.iter().all(|m| m.ready && !m.deleting);
    if spec.volume_policy.when_scaled == Keep::Retain || !whole || next_step::replicas(seen) != spec.instances {
        return Vec::new();
    }
    let used = |claim: &str| seen.members.iter().any(|m| m.claims.iter().any(|c| c == claim));
    existing(seen)
        .filter(|(name, _, ordinal, claim)| {
            *ordinal >= spec.instances && !used(name) && claim["metadata"]["deletionTimestamp"].is_null()
        })
        .filter_map(|(name, _, _, claim)| {
            let uid = claim["metadata"]["uid"].as_str()?.to_owned();
            Some(Write::Delete { kind: Kind::PersistentVolumeClaim, name: name.to_owned(), uid })
        })
        .collect()
}

/// A member's claims whose volumes have grown, so that the kubelet is to let their file systems grow, and to what size.
pub fn for_kubelet(seen: &Seen, member: &Member) -> Vec<Value> {
    let own = existing(seen).filter(|(name, ..)| member.claims.iter().any(|one| one == name));
    own.filter(|(.., claim)| has(claim, "FileSystemResizePending"))
        .map(|(name, .., claim)| json!([name, claim["status"]["allocatedResources"]["storage"]]))
        .collect()
}

/// Whether a claim has a condition.
fn has(claim: &Value, kind: &str) -> bool {
    let mut conditions = claim["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == kind && c["status"] == "True")
}

/// How the volumes' growth goes, for the condition `StorageResized`: reason and message, None when all are as large as
/// they should be.
pub fn growing(seen: &Seen) -> Option<(&'static str, String)> {
    let wanted = wanted(seen);
    for (name, template, ordinal, claim) in
        existing(seen).filter(|(.., ordinal, _)| *ordinal < seen.cluster.spec.instances)
    {
        let Some((_, storage)) = wanted.iter().find(|(t, _)| *t == template) else { continue };
        let size = &storage.size;
        let infeasible =
            claim["status"]["allocatedResourceStatuses"]["storage"].as_str().is_some_and(|s| s.ends_with("Infeasible"));
        if infeasible {
            return Some((
                "ResizeInfeasible",
                format!(
                    "the storage cannot grow the claim {name} to {size}: see `kubectl describe pvc {name}`, and write a size that it has room for (not less than the former one)"
                ),
            ));
        }
        if has(claim, "FileSystemResizePending") {
            return Some((
                "FileSystemResizePending",
                format!(
                    "the volume of {name} has {size}, and its file system is the kubelet's to grow: if that does not happen within minutes, delete the pod {}-{ordinal}",
                    seen.name()
                ),
            ));
        }
        let capacity = quantity(&claim["status"]["capacity"]["storage"]);
        if capacity.is_some_and(|c| quantity(&json!(size)).is_some_and(|wanted| c < wanted)) {
            return Some(("Resizing", format!("the volume of {name} is being grown to {size}")));
        }
    }
    None
}
