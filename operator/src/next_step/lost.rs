//! Volumes that are lost for good: a claim whose volume is gone, one that somebody deleted, or a local volume on a node
//! that no longer exists.
//!
//! A pod whose claim is gone only waits; it is made anew, and its claim with it. A claim that is still there is deleted
//! only if all of this holds: the member is a standby and its pod does not run; the leader serves; in quorum durability
//! another standby that confirms commits is ready; no other pod is being made or removed; and in the last ten minutes no
//! volume was replaced. So the last good copy is never touched, and a fault that takes all volumes stops at the first.

use matriarch_crds::cluster::Durability;
use serde_json::Value;

use super::{Step, leads, serving_leader, set, switchover};
use crate::config;
use crate::kinds::Kind;
use crate::member::Member;
use crate::observe::Seen;
use crate::plan::locks::volume_replaced;

/// At most one volume is replaced in so many seconds.
const APART: i64 = 600;
/// A pod of which the claim or the node is missing is given so many seconds, for caches and controllers to catch up.
const SETTLES: i64 = 30;
/// A node that is gone may be registered again: after a reboot with another name, or by its provider.
const NODE_RETURNS: i64 = 300;

/// What became of a member's volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost<'a> {
    /// Whose it is.
    pub member: &'a Member,
    /// What happened, for people.
    pub what: String,
    /// The claims that are there and have to be deleted, with their uids.
    pub claims: Vec<(String, String)>,
    /// For how many seconds the pod has to be there first.
    settles: i64,
}

/// The first member whose volume is lost.
pub fn lost(seen: &Seen) -> Option<Lost<'_>> {
    seen.members.iter().filter(|m| !m.ready && !m.deleting && m.postgres_down).find_map(|member| {
        let mut what = None;
        let mut claims = Vec::new();
        let mut settles = SETTLES;
        for name in &member.claims {
            let claim = seen.object(Kind::PersistentVolumeClaim, name);
            let Some((text, delete, patience)) = verdict(seen, member, name, claim) else { continue };
            what.get_or_insert(text);
            settles = settles.max(patience);
            claims.extend(
                claim.filter(|_| delete).and_then(|c| Some((name.clone(), c["metadata"]["uid"].as_str()?.to_owned()))),
            );
        }
        what.map(|what| Lost { member, what, claims, settles })
    })
}

/// What happened to a claim, whether it has to be deleted, and after how long.
fn verdict(seen: &Seen, m: &Member, name: &str, claim: Option<&Value>) -> Option<(String, bool, i64)> {
    let pod = &m.name;
    let Some(claim) = claim else {
        return m.node.is_none().then(|| (format!("the claim {name} of {pod} was deleted"), false, SETTLES));
    };
    if !claim["metadata"]["deletionTimestamp"].is_null() {
        return m.node.is_none().then(|| (format!("the claim {name} of {pod} is being deleted"), false, SETTLES));
    }
    if claim["status"]["phase"] == "Lost" {
        return Some((format!("the volume behind the claim {name} of {pod} no longer exists"), true, 0));
    }
    (m.node.is_none() && seen.lost_local.contains(name)).then(|| {
        let text = format!("the volume of the claim {name} of {pod} is local to a node that no longer exists");
        (text, true, NODE_RETURNS)
    })
}

/// Row 10.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    let lost = lost(seen)?;
    let m = lost.member;
    if m.created.is_some_and(|at| seen.now.as_second() - at.as_second() < lost.settles)
        || refusal(seen, &lost).is_some()
    {
        return None;
    }
    Some(Step::ReplaceVolume { pod: m.name.clone(), uid: m.uid.clone(), claims: lost.claims, why: lost.what })
}

/// Why it is not replaced now, with what to do, for people.
pub fn refusal(seen: &Seen, lost: &Lost<'_>) -> Option<String> {
    let m = lost.member;
    if seen.paused() {
        return Some("it is replaced after the end of maintenance mode".to_owned());
    }
    if seen.fenced(&m.name) {
        return Some("it is fenced: remove it from spec.fenced to have it copied anew".to_owned());
    }
    if lost.claims.is_empty() {
        return None; // the pod is made anew, and nothing else
    }
    let by_hand = format!(
        "if the data there is not needed, delete the claim and the pod by hand: `kubectl -n {} delete pvc {}` and `kubectl delete pod {}`",
        seen.namespace(),
        lost.claims.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "),
        m.name
    );
    if leads(seen, m) {
        return Some(format!("it led last, and nobody else leads yet: {by_hand}"));
    }
    if serving_leader(seen).is_none() {
        return Some(format!("no leader is ready, so this may be the last copy: {by_hand}"));
    }
    if !confirmed_without(seen, m) {
        return Some(format!("no other standby that confirms commits is ready: {by_hand}"));
    }
    if !set::complete(seen) || seen.members.iter().any(|o| o.deleting) || switchover::pending(seen) {
        return Some("another step is under way".to_owned());
    }
    volume_replaced(seen)
        .is_some_and(|at| seen.now.as_second() - at.as_second() < APART)
        .then(|| "another volume was replaced within the last ten minutes".to_owned())
}

/// Whether acknowledged commits are on the leader and, in quorum durability, on another standby.
fn confirmed_without(seen: &Seen, m: &Member) -> bool {
    if config::durability(seen) == Durability::Async {
        return true;
    }
    let voters = seen.voters().unwrap_or_default();
    !voters.contains(&m.name.as_str())
        || seen.members.iter().any(|o| o.name != m.name && o.can_lead() && voters.contains(&o.name.as_str()))
}
