//! Nothing has changed, so nothing is written; what others wrote stays, and what they spoilt comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::TypeMeta;
use matriarch_crds::names::SLICE_MANAGER;
use serde_json::json;

use super::super::herd::{Herd, Wanted};
use super::super::list::On;
use super::super::report::Row;
use super::super::runner;
use super::super::world::World;
use super::outside::Outside;
use super::wiped;
use crate::operator::USER;

/// So often the operator looks at a cluster in which nothing has changed.
const RECONCILES: usize = 100;
/// Longer than changes are gathered before a look.
const APART: Duration = Duration::from_millis(220);
const A_MINUTE: Duration = Duration::from_mins(1);
/// What belongs to a cluster: API version and kind, and whether only the operator writes such objects.
const KINDS: &[(&str, &str, bool)] = &[
    ("v1", "ConfigMap", false),
    ("v1", "Secret", true),
    ("v1", "Service", true),
    ("v1", "ServiceAccount", true),
    ("v1", "PersistentVolumeClaim", true),
    ("v1", "Pod", false),
    ("apps/v1", "StatefulSet", true),
    ("discovery.k8s.io/v1", "EndpointSlice", false),
    ("policy/v1", "PodDisruptionBudget", true),
    ("rbac.authorization.k8s.io/v1", "Role", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", true),
];
/// Somebody else's label and annotation.
const FOREIGN: &str = "example.org/team";

/// On a slice: who writes it.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Object by kind and name.
type Objects = BTreeMap<(String, String), DynamicObject>;

/// The operator looks a hundred times and starts anew three times: no write, no other resourceVersion.
pub async fn drift(world: &World, row: &mut Row) -> Result<()> {
    let herd = runner::herd_on(world, On::ConfigMaps).await?;
    herd.steady(Duration::from_mins(2)).await?;
    let outside = Outside::take_over(world, "drift").await?;
    wiped::config(world, &herd, false).await?;
    let mut operator = outside.start()?;
    reconciled(&outside, world, 1).await?;
    let foreign = json!({"metadata": {"labels": {(FOREIGN): "billing"}, "annotations": {(FOREIGN): "since 2019"}}});
    for ((kind, name), object) in objects(world, &herd, |_| true).await? {
        patch(world, &object.types.unwrap_or_default(), &name, &foreign).await.map_err(|e| e.context(kind))?;
    }
    herd.steady(A_MINUTE).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let before = versions(&objects(world, &herd, |own| own).await?);
    let since = Timestamp::now();
    let begin = outside.reconciles()?;
    let members = herd.members().await?;
    let pod = TypeMeta { api_version: "v1".into(), kind: "Pod".into() };
    let mut touches = 0;
    while outside.reconciles()? < begin + RECONCILES && touches < 3 * RECONCILES {
        let touch = json!({"metadata": {"annotations": {"example.org/touched": touches.to_string()}}});
        patch(world, &pod, &members[touches % members.len()].name, &touch).await?;
        touches += 1;
        tokio::time::sleep(APART).await;
    }
    let looks = outside.reconciles()? - begin;
    ensure!(looks >= RECONCILES, "the operator looked only {looks} times at {touches} touches");
    let manifest = manifest(world, &herd).await?;
    herd.apply(&manifest).await?; // from now on all of its fields have this owner, whoever changed some before
    let generation = herd.resource().await?.metadata.resource_version;
    for _ in 0..3 {
        herd.apply(&manifest).await?;
        drop(operator);
        let seen = outside.reconciles()?;
        operator = outside.start()?;
        reconciled(&outside, world, seen + 1).await?;
    }
    ensure!(herd.resource().await?.metadata.resource_version == generation, "applying the same changed the resource");
    let written = writes(world, since)?;
    ensure!(written.is_empty(), "the operator wrote although nothing had changed: {written:?}");
    let after = versions(&objects(world, &herd, |own| own).await?);
    let changed: Vec<_> = after.iter().filter(|(key, version)| before.get(*key) != Some(*version)).collect();
    ensure!(changed.is_empty() && before.len() == after.len(), "other versions: {changed:?}");
    row.note(format!("{looks} reconciles, 3 restarts of the operator, the manifest applied 3 times: 0 writes"));

    let spoilt = spoil(world, &herd).await?;
    for ((kind, name), object) in objects(world, &herd, |_| true).await? {
        let metadata = object.metadata;
        let kept = metadata.labels.unwrap_or_default().get(FOREIGN).is_some_and(|value| value == "billing")
            && metadata.annotations.unwrap_or_default().get(FOREIGN).is_some_and(|value| value == "since 2019");
        ensure!(kept, "{kind} {name} lost somebody's label or annotation");
    }
    row.note(format!("{spoilt} objects changed by hand came back, foreign labels and annotations stayed"));
    drop(operator);
    world.operator_in_its_pod().await
}

/// What a user would have written for the cluster as it is.
async fn manifest(world: &World, herd: &Herd) -> Result<String> {
    let wanted = Wanted { name: "orders", instances: 3, endpoints: false, major: world.major.clone() };
    let mut manifest: serde_json::Value = serde_saphyr::from_str(&herd.manifest(&wanted))?;
    let live = herd.resource().await?.spec;
    manifest["spec"]["image"] = json!(live.image);
    manifest["spec"]["storage"]["size"] = json!(live.storage.size);
    Ok(manifest.to_string())
}

async fn reconciled(outside: &Outside, world: &World, count: usize) -> Result<()> {
    world
        .cluster
        .wait("the operator has looked", A_MINUTE, async || {
            let seen = outside.reconciles()?;
            Ok((seen < count).then(|| format!("{seen} times of {count}")))
        })
        .await
}

/// What the operator wrote since then, but for its own Lease.
fn writes(world: &World, since: Timestamp) -> Result<Vec<String>> {
    let requests = world.cluster.api_requests(since, Timestamp::now())?;
    let own = requests.iter().filter(|(one, _)| one.user == USER && one.is_write() && one.resource != "leases");
    Ok(own.map(|(one, count)| format!("{} {} ({count})", one.verb, one.resource)).collect())
}

/// The cluster's objects, of those kinds that only the operator writes if `wanted` says so.
async fn objects(world: &World, herd: &Herd, wanted: impl Fn(bool) -> bool) -> Result<Objects> {
    let mut found = Objects::new();
    let params = ListParams::default().labels(&format!("cluster-name={}", herd.name()));
    for (api_version, kind, own) in KINDS.iter().filter(|(_, _, own)| wanted(*own)) {
        let types = TypeMeta { api_version: (*api_version).to_owned(), kind: (*kind).to_owned() };
        let api = world.cluster.api_of(&types, &world.namespace.name).await?;
        for mut object in api.list(&params).await?.items {
            // Slices of Services with a selector are Kubernetes' own: it writes their labels.
            let manager = object.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
            if manager.is_some_and(|manager| manager != SLICE_MANAGER) {
                continue;
            }
            object.types = Some(types.clone());
            let name = object.metadata.name.clone().unwrap_or_default();
            found.insert(((*kind).to_owned(), name), object);
        }
        ensure!(!own || found.keys().any(|(of, _)| of == kind), "no {kind} belongs to the cluster");
    }
    Ok(found)
}

fn versions(objects: &Objects) -> BTreeMap<(String, String), String> {
    let version = |object: &DynamicObject| object.metadata.resource_version.clone().unwrap_or_default();
    objects.iter().map(|(key, object)| (key.clone(), version(object))).collect()
}

async fn patch(world: &World, types: &TypeMeta, name: &str, body: &serde_json::Value) -> Result<()> {
    let api = world.cluster.api_of(types, &world.namespace.name).await?;
    api.patch(name, &PatchParams::default(), &Patch::Merge(body)).await?;
    Ok(())
}

/// Changes what the operator wrote, and waits until it is as it was; how many objects.
async fn spoil(world: &World, herd: &Herd) -> Result<usize> {
    let names = &herd.names;
    let spoilt = [
        ("v1", "Service", names.read_only_service(), json!({"spec": {"selector": {"role": "nobody"}}})),
        ("policy/v1", "PodDisruptionBudget", names.scope().to_owned(), json!({"spec": {"minAvailable": 2}})),
        (
            "apps/v1",
            "StatefulSet",
            names.scope().to_owned(),
            json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
        ),
    ];
    for (api_version, kind, name, change) in &spoilt {
        let types = TypeMeta { api_version: (*api_version).to_owned(), kind: (*kind).to_owned() };
        let api = world.cluster.api_of(&types, &world.namespace.name).await?;
        let content = |object: &DynamicObject| {
            let mut data = object.data.clone();
            data["status"] = serde_json::Value::Null;
            data
        };
        let as_it_was = content(&api.get(name).await?);
        patch(world, &types, name, change).await?;
        let what = format!("{kind} {name} is as it was");
        world
            .cluster
            .wait(&what, A_MINUTE, async || {
                let now = content(&api.get(name).await?);
                Ok((now != as_it_was).then(|| format!("it is {now}")))
            })
            .await?;
    }
    Ok(spoilt.len())
}
