//! The operator's side: plans, and writes as the API server would take them, any number of them before it dies. Each
//! write is checked against what must never happen.

use std::sync::OnceLock;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use matriarch_operator::kinds::Kind;
use matriarch_operator::next_step::Step;
use matriarch_operator::plan::restarts::Restart;
use matriarch_operator::plan::{Plan, Write, plan};
use matriarch_operator::status::{Outcome, status};
use matriarch_operator::tls;
use serde_json::{Value, json};

use crate::world::{GRACE, World};

/// One reconcile. `dies_after`: so many writes are done, and no status is written.
pub fn reconcile(w: &mut World, dies_after: Option<usize>) -> Plan {
    let seen = w.seen();
    let plan = plan(&seen);
    check_wait(w, &plan.step);
    for (done, write) in plan.writes.iter().enumerate() {
        if dies_after == Some(done) {
            return plan;
        }
        if !one(w, write) {
            return plan; // a conflict: it looks again
        }
    }
    if dies_after.is_none() {
        w.cluster.status = Some(status(&seen, &plan.step, &Outcome::Done));
    }
    plan
}

/// False: somebody else wrote in between.
fn one(w: &mut World, write: &Write) -> bool {
    match write {
        Write::Apply { kind, object } => apply(w, *kind, object),
        Write::Create { kind, object } => {
            let name = name_of(object);
            if !w.objects.contains_key(&(*kind, name)) {
                insert(w, *kind, object.clone());
            }
        }
        Write::Patch { kind: Kind::Pod, name, body } => {
            if let Some(pod) = w.pods.get_mut(name) {
                let annotation = &body["metadata"]["annotations"]["matriarch.dev/mounted"];
                pod.mounted = Some(annotation.as_str().unwrap().to_owned());
            }
        }
        Write::Patch { kind, name, body } => {
            check_request(w, name, body);
            return merge_patch(w, *kind, name, body);
        }
        Write::Restart(order) => return restart(w, order),
        Write::Grow { claim, body } => return merge_patch(w, Kind::PersistentVolumeClaim, claim, body),
        Write::AgentImage { pod, image } => {
            let now = Timestamp::from_second(w.now).unwrap();
            if let Some(pod) = w.pods.get_mut(pod) {
                pod.agent_image.clone_from(image);
                pod.agent_upgraded = Some(now);
            }
        }
        Write::Orphan { kind, name, uid } => {
            let found = w.objects.get_mut(&(*kind, name.clone())).filter(|o| o["metadata"]["uid"] == uid.as_str());
            if let Some(found) = found {
                found["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
        }
        Write::Delete { kind: Kind::Pod, name, uid } => delete_pod(w, name, uid),
        Write::Delete { kind, name, uid } => {
            let key = (*kind, name.clone());
            if w.objects.get(&key).is_some_and(|o| o["metadata"]["uid"] == uid.as_str()) {
                if *kind == Kind::PersistentVolumeClaim {
                    check_claim(w, name);
                    w.objects.get_mut(&key).unwrap()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                } else {
                    w.objects.remove(&key);
                }
            }
        }
        Write::Issue(_) => issue(w),
    }
    true
}

/// As the agent does it: only what waits for a restart and has the role, and never in maintenance mode.
fn restart(w: &mut World, order: &Restart) -> bool {
    let Some(pod) = w.pods.get(&order.pod).filter(|p| p.uid == order.uid).cloned() else { return true };
    if w.agents_hidden {
        if order.replaceable {
            delete_pod(w, &order.pod, &order.uid);
        }
        return false;
    }
    let leads = w.serving().as_deref() == Some(order.pod.as_str());
    if !pod.up || pod.runs == w.wanted() || leads != (order.role == "primary") {
        return true;
    }
    let name = &order.pod;
    assert!(w.cluster.spec.paused != Some(true), "PostgreSQL of {name} was restarted in maintenance mode");
    let fenced = w.pods.keys().any(|name| w.fenced(name));
    assert!(!fenced, "PostgreSQL of {name} was restarted while a member is fenced");
    assert!(w.annotation("orders-failover", "member").is_none(), "{name} was restarted during a switchover");
    assert!(others_serve(w, &[name]), "{name} was restarted while another member is down: {:?}", w.pods);
    assert!(!leads || pod.runs > w.wanted() || w.pods.len() == 1, "the leader {name} was restarted for more");
    // Its lock stays.
    w.start(name);
    w.pods.get_mut(name).unwrap().restarted = Some(order.note.clone());
    true
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn insert(w: &mut World, kind: Kind, mut object: Value) {
    let version = w.next();
    object["metadata"]["resourceVersion"] = json!(version);
    if object["metadata"]["uid"].is_null() {
        object["metadata"]["uid"] = json!(format!("uid-{version}"));
    }
    w.objects.insert((kind, name_of(&object)), object);
}

fn apply(w: &mut World, kind: Kind, object: &Value) {
    let key = (kind, name_of(object));
    let mut object = object.clone();
    if let Some(live) = w.objects.get(&key) {
        object["metadata"]["uid"] = live["metadata"]["uid"].clone();
        if kind == Kind::StatefulSet {
            let (old, new) = (&live["spec"], &object["spec"]);
            assert!(live["metadata"]["deletionTimestamp"].is_null(), "a set that is being deleted was written");
            assert_eq!(old["volumeClaimTemplates"], new["volumeClaimTemplates"], "Kubernetes refuses that");
            if new["replicas"] != old["replicas"] {
                check_replicas(w, new["replicas"].as_i64().unwrap());
            }
        }
    } else if kind == Kind::StatefulSet {
        check_replicas(w, object["spec"]["replicas"].as_i64().unwrap());
    }
    insert(w, kind, object);
}

fn merge_patch(w: &mut World, kind: Kind, name: &str, body: &Value) -> bool {
    let version = w.next();
    let Some(live) = w.objects.get_mut(&(kind, name.to_owned())) else { return true };
    let expected = &body["metadata"]["resourceVersion"];
    if !expected.is_null() && *expected != live["metadata"]["resourceVersion"] {
        return false;
    }
    merge(live, body);
    live["metadata"]["resourceVersion"] = json!(version);
    true
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn issue(w: &mut World) {
    static PAIRS: OnceLock<(tls::Pair, tls::Pair)> = OnceLock::new();
    let now = Timestamp::from_second(1_000_000).unwrap();
    let (authority, member) = PAIRS.get_or_init(|| {
        let authority = tls::issue_authority("orders", now).unwrap();
        let member = tls::issue_member(&authority, "orders", "shop", now).unwrap();
        (authority, member)
    });
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    for (name, pair) in [("orders-ca", authority), ("orders-tls", member)] {
        let data = json!({
            "tls.crt": bytes(&pair.certificate), "tls.key": bytes(&pair.key), "ca.crt": bytes(&authority.certificate),
        });
        insert(w, Kind::Secret, json!({"metadata": {"name": name}, "data": data}));
    }
}

/// Everybody but these is up and has a whole copy.
fn others_serve(w: &World, but: &[&str]) -> bool {
    w.pods.iter().filter(|(n, _)| !but.contains(&n.as_str()) && !w.fenced(n)).all(|(_, p)| p.up && p.deleting.is_none())
}

fn delete_pod(w: &mut World, name: &str, uid: &str) {
    let Some(pod) = w.pods.get(name).filter(|p| p.uid == uid).cloned() else { return };
    assert!(!w.fenced(name) || !pod.up, "{name} is fenced and was replaced");
    if pod.up {
        assert!(w.cluster.spec.paused != Some(true), "{name} was stopped in maintenance mode");
        assert!(w.serving().as_deref() != Some(name) || w.pods.len() == 1, "the leader {name} was removed first");
        assert!(others_serve(w, &[name]), "{name} was replaced while another member is down: {:?}", w.pods);
        assert!(w.annotation("orders-failover", "member").is_none(), "{name} was replaced during a switchover");
    }
    let until = w.now + GRACE;
    w.pods.get_mut(name).unwrap().deleting.get_or_insert(until);
}

fn check_replicas(w: &World, replicas: i64) {
    let going: Vec<&str> = w
        .pods
        .iter()
        .filter(|(_, p)| i64::from(p.ordinal) >= replicas && p.deleting.is_none())
        .map(|(n, _)| n.as_str())
        .collect();
    if going.is_empty() {
        return;
    }
    assert!(w.cluster.spec.paused != Some(true), "members were removed in maintenance mode");
    assert!(w.annotation("orders-failover", "member").is_none(), "members were removed during a switchover");
    if w.cluster.spec.hibernate && replicas == 0 {
        return;
    }
    let leader = w.serving();
    assert!(leader.is_some(), "members were removed while nobody leads");
    assert!(!going.contains(&leader.as_deref().unwrap()), "the leader was removed by scaling down");
    assert!(going.len() == 1, "several members were removed at once: {going:?}");
    if w.cluster.spec.instances > 1 {
        assert!(others_serve(w, &going), "{going:?} removed while another member is down: {:?}", w.pods);
    }
}

/// A switchover is asked for only if the last one is over, and from whoever leads.
fn check_request(w: &World, name: &str, body: &Value) {
    let asks = name == "orders-failover" && body["metadata"]["annotations"]["member"].is_string();
    if !asks {
        return;
    }
    assert!(w.annotation(name, "member").is_none(), "a switchover was asked for while another is pending");
    assert_eq!(body["metadata"]["annotations"]["leader"].as_str(), w.leader().as_deref(), "it does not lead");
}

/// What waits for a switchover waits for one that is pending.
fn check_wait(w: &World, step: &Step) {
    let Step::Wait { message, .. } = step else { return };
    let open = w.annotation("orders-failover", "member").is_some() || w.leader().is_none();
    assert!(!message.contains("waiting for the switchover") || open, "{message}, though it is over");
}

fn check_claim(w: &World, claim: &str) {
    let holds = |disk: &&String| w.disks[*disk] >= w.acked && *disk != claim;
    let copies: Vec<&String> = w.disks.keys().filter(holds).collect();
    assert!(!copies.is_empty(), "the last good copy was deleted: {claim}");
    let leader = w.leader().map(|l| format!("data-{l}"));
    assert!(leader.as_deref() != Some(claim), "the leader's volume was deleted");
    let lost = w.lost.contains(claim);
    let removed = claim.rsplit('-').next().unwrap().parse::<i64>().unwrap() >= w.replicas();
    assert!(lost || removed, "{claim} was deleted, and it is neither lost nor a removed member's");
}
