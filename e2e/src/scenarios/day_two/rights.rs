//! What operator and agents did in all scenarios together, against what their roles allow: nothing was refused, and no
//! right is held in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{Api, ListParams};
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL};

use super::super::report::Row;
use super::super::world::{OPERATOR, OPERATOR_NAMESPACE, World};
use crate::operator::USER;

/// Who may do what to what: API group, resource and verb.
pub type Right = (String, String, String);

/// For so long pods of a deleted cluster may still be there when their rights have gone, also beside a new one of its name.
const LEAVING: Duration = Duration::from_mins(1);

/// Rights that no request shows here, and why they are held.
const UNSEEN: &[(&str, &str, &[&str], &str)] = &[
    (
        "matriarch.dev",
        "postgresclusters/finalizers",
        &["update"],
        "asked for by the admission plugin OwnerReferencesPermissionEnforcement, which is on here",
    ),
    (
        "monitoring.coreos.com",
        "podmonitors",
        &["list", "watch", "create", "patch", "delete"],
        "the kind is not installed here",
    ),
    ("", "endpoints", &["get"], "the lock is read again after a conflict"),
    ("", "persistentvolumes", &["get"], "read when a pod waits for a volume of a node that is gone"),
    ("", "persistentvolumeclaims", &["delete"], "a claim whose volume is gone"),
    ("policy", "poddisruptionbudgets", &["delete"], "a cluster that shrinks to one member"),
];

impl World {
    /// Writes down the rights of the agents of all clusters that exist now.
    pub async fn remember_rights(&self) -> Result<()> {
        let roles: Api<Role> = self.namespace.api();
        let params = ListParams::default().labels(&format!("{APPLICATION_LABEL}={APPLICATION}"));
        let mut granted = self.granted.lock().map_err(|_| anyhow::anyhow!("a scenario panicked"))?.clone();
        for role in roles.list(&params).await?.items {
            granted.extend(rights(role.rules.as_deref().unwrap_or_default()));
        }
        *self.granted.lock().map_err(|_| anyhow::anyhow!("a scenario panicked"))? = granted;
        Ok(())
    }
}

fn rights(rules: &[PolicyRule]) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                all.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    all
}

/// Compares. What nobody used fails only when everything has run.
pub async fn audit(world: &World, row: &mut Row) -> Result<()> {
    world.remember_rights().await?;
    let client = world.cluster.client();
    let wide = Api::<ClusterRole>::all(client.clone()).get(OPERATOR).await?;
    let mut held = rights(wide.rules.as_deref().unwrap_or_default());
    for narrow in Api::<Role>::namespaced(client, OPERATOR_NAMESPACE).list(&ListParams::default()).await?.items {
        held.extend(rights(narrow.rules.as_deref().unwrap_or_default()));
    }
    let granted = world.granted.lock().map_err(|_| anyhow::anyhow!("a scenario panicked"))?.clone();
    let unready = world.unready.lock().map_err(|_| anyhow::anyhow!("a scenario panicked"))?.clone();

    let agents = format!("system:serviceaccount:{}:", world.namespace.name);
    let mut used: BTreeMap<&str, BTreeSet<Right>> = BTreeMap::new();
    let mut failures = BTreeSet::new();
    let mut requests = 0_u64;
    // Agents of a cluster that is deleted are still there for a moment when their rights have gone already.
    let mut deleted: BTreeMap<String, Timestamp> = BTreeMap::new();
    world.cluster.accesses(world.began, Timestamp::now(), |access| {
        if access.request.resource == "postgresclusters" && access.request.verb == "delete" {
            deleted.insert(format!("{agents}{}-agent", access.name), access.arrived);
        }
        let who = match access.request.user.as_str() {
            USER => "operator",
            user if user.starts_with(&agents) && user.ends_with("-agent") => "agents",
            _ => return,
        };
        requests += 1;
        let right = (access.group.clone(), access.request.resource.clone(), access.request.verb.clone());
        let leaves = deleted.get(&access.request.user).is_some_and(|at| access.arrived < *at + LEAVING);
        let early = unready.iter().any(|range| range.contains(&access.arrived));
        if access.decision == "forbid" && (leaves || early) {
            return;
        }
        if access.decision == "forbid" {
            failures.insert(format!("{who} were refused {} {} {}", right.2, right.1, access.name));
        } else if !access.request.resource.is_empty()
            && !access.reason.contains(OPERATOR)
            && !access.reason.contains("-agent")
        {
            failures.insert(format!("{who} may {} {} by another role: {}", right.2, right.1, access.reason));
        }
        let rights = used.entry(who).or_default();
        if access.code == 201 && right.2 == "patch" {
            // Server-side apply of what is not there is asked for both.
            rights.insert((right.0.clone(), right.1.clone(), "create".to_owned()));
        }
        rights.insert(right);
    })?;
    let mut vain = Vec::new();
    for (who, all) in [("operator", &held), ("agents", &granted)] {
        let used = used.get(who).with_context(|| format!("the audit log has nothing of the {who}"))?;
        for (group, resource, verb) in all.difference(used) {
            let to_grant = who == "operator" && granted.contains(&(group.clone(), resource.clone(), verb.clone()));
            let unseen = UNSEEN.iter().any(|one| (one.0, one.1) == (group, resource) && one.2.contains(&verb.as_str()));
            if !to_grant && !unseen {
                vain.push(format!("{who}: {verb} {resource} {group}"));
            }
        }
        row.note(format!("{who}: {} rights held", all.len()));
    }
    row.note(format!("{requests} requests, {} refused", failures.len()));
    if world.everything {
        failures.extend(vain.iter().map(|right| format!("held in vain by {right}")));
    } else if !vain.is_empty() {
        row.note(format!("not used in these scenarios: {}", vain.join(", ")));
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.into_iter().collect::<Vec<_>>().join("; "))
}
