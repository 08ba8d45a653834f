//! What is planned, case by case, and all objects of the smallest cluster as they are committed in `golden.yaml`.

mod fields;
mod restarts;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use matriarch_crds::cluster::Durability;
use serde_json::{Value, json};

use super::*;
use crate::config;
use crate::member::{AgentReport, MatriarchReport, Member, Trouble};
use crate::next_step::Step;
use crate::observe::UserSecret;
use crate::status::{Outcome, status};

fn new_cluster() -> Seen {
    example(example_spec(false))
}

/// Puts what a plan creates and applies among the objects that exist, as the API server would.
fn carry_out(seen: &mut Seen) {
    for write in plan(seen).writes {
        match write {
            Write::Apply { kind, mut object } | Write::Create { kind, mut object } => {
                object["metadata"]["resourceVersion"] = json!("1");
                seen.objects.insert((kind, object["metadata"]["name"].as_str().unwrap().to_owned()), object);
            }
            Write::Issue(_) => {
                let authority = tls::issue_authority("orders", seen.now).unwrap();
                let member = tls::issue_member(&authority, "orders", "shop", seen.now).unwrap();
                let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
                for (name, pair) in [("orders-ca", &authority), ("orders-tls", &member)] {
                    let data = json!({
                        "tls.crt": bytes(&pair.certificate), "tls.key": bytes(&pair.key), "ca.crt": bytes(&authority.certificate),
                    });
                    let secret = json!({"metadata": {"name": name, "resourceVersion": "1"}, "data": data});
                    seen.objects.insert((Kind::Secret, name.to_owned()), secret);
                }
            }
            other => panic!("not expected of a new cluster: {other:?}"),
        }
    }
}

fn annotate(seen: &mut Seen, object: &str, key: &str, value: &str) {
    let found = seen.objects.get_mut(&(Kind::ConfigMap, object.to_owned())).unwrap();
    found["metadata"]["annotations"][key] = json!(value);
}

/// Three members that run; orders-0 leads.
fn running() -> Seen {
    let mut seen = new_cluster();
    carry_out(&mut seen);
    annotate(&mut seen, "orders-leader", "leader", "orders-0");
    annotate(&mut seen, "orders-config", "initialize", "7123456789012345678");
    let made_with = restart_hash(&seen.cluster.spec);
    seen.members = (0..3)
        .map(|ordinal| Member {
            name: format!("orders-{ordinal}"),
            ordinal,
            uid: format!("uid-{ordinal}"),
            ready: true,
            agent_image: seen.sidecar_image.clone(),
            agent_settled: true,
            made_with: Some(made_with.clone()),
            report: AgentReport {
                state: Some("running".to_owned()),
                xlog_location: Some(5_000_000),
                timeline: Some(1),
                ..AgentReport::default()
            },
            ..Member::default()
        })
        .collect();
    seen
}

fn step_of(change: impl FnOnce(&mut Seen)) -> Step {
    let mut seen = running();
    change(&mut seen);
    plan(&seen).step
}

fn wait_of(change: impl FnOnce(&mut Seen)) -> &'static str {
    match step_of(change) {
        Step::Wait { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_objects_of_the_smallest_cluster_are_those_committed() {
    let mut text = String::new();
    for write in plan(&new_cluster()).writes {
        if let Write::Apply { object, .. } | Write::Create { object, .. } = write {
            text.push_str(&crate::manifests::yaml(&[object]).unwrap());
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/golden.yaml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "golden.yaml is stale: review the difference after `UPDATE_GOLDEN=1 cargo test -p matriarch-operator`"
    );
}

#[test]
fn a_cluster_as_planned_needs_nothing_more() {
    let seen = running();
    assert_eq!(plan(&seen), Plan { writes: vec![], step: Step::Stable });
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    fn same<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) {
        let typed: K = serde_json::from_value(object.clone()).unwrap();
        let back = serde_json::to_value(typed).unwrap();
        assert!(super::diff::contains(&back, object), "{object:#} became {back:#}");
    }
    for endpoints in [false, true] {
        for write in plan(&example(example_spec(endpoints))).writes {
            let (Write::Apply { kind, object } | Write::Create { kind, object }) = write else { continue };
            match kind {
                Kind::StatefulSet => same::<StatefulSet>(&object),
                Kind::Service => same::<k8s_openapi::api::core::v1::Service>(&object),
                Kind::Secret => same::<k8s_openapi::api::core::v1::Secret>(&object),
                Kind::ConfigMap => same::<k8s_openapi::api::core::v1::ConfigMap>(&object),
                Kind::Endpoints => same::<k8s_openapi::api::core::v1::Endpoints>(&object),
                Kind::EndpointSlice => same::<k8s_openapi::api::discovery::v1::EndpointSlice>(&object),
                Kind::Role => same::<k8s_openapi::api::rbac::v1::Role>(&object),
                Kind::RoleBinding => same::<k8s_openapi::api::rbac::v1::RoleBinding>(&object),
                Kind::ServiceAccount => same::<k8s_openapi::api::core::v1::ServiceAccount>(&object),
                Kind::PodDisruptionBudget => same::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(&object),
                Kind::NetworkPolicy => same::<k8s_openapi::api::networking::v1::NetworkPolicy>(&object),
                Kind::Pod | Kind::PodMonitor | Kind::PersistentVolumeClaim => panic!("not planned: {kind:?}"),
            }
        }
    }
}

#[test]
fn what_agents_wrote_is_never_written() {
    let mut seen = running();
    seen.cluster.spec.postgresql.parameters = parse(&json!({"work_mem": "8MB"}));
    let mut stored = config::current(&seen).unwrap().0;
    stored["postgresql"]["parameters"]["jit"] = json!("off");
    stored["slots"] = json!({"mine": {"type": "physical"}});
    annotate(&mut seen, "orders-config", "config", &stored.to_string());
    let writes = plan(&seen).writes;
    let Write::Patch { name, body, .. } = &writes[0] else { panic!("{writes:?}") };
    assert_eq!((name.as_str(), &body["metadata"]["resourceVersion"]), ("orders-config", &json!("1")));
    let annotations = body["metadata"]["annotations"].as_object().unwrap();
    assert!(!annotations.contains_key("initialize") && !annotations.contains_key("history"));
    let config: Value = serde_json::from_str(annotations["config"].as_str().unwrap()).unwrap();
    assert_eq!(config["postgresql"]["parameters"], json!({"jit": "off", "work_mem": "8MB"}));
    assert_eq!(config["slots"], json!({"mine": {"type": "physical"}}));
}

#[test]
fn a_setting_that_leaves_the_spec_leaves_the_configuration_and_others_stay() {
    let mut seen = running();
    let mut stored = config::current(&seen).unwrap().0;
    stored["postgresql"]["parameters"] = json!({"jit": "off", "work_mem": "8MB"});
    annotate(&mut seen, "orders-config", "config", &stored.to_string());
    annotate(&mut seen, "orders-config", config::NAMED_ANNOTATION, r#"["parameters.work_mem"]"#);
    let change = config::change(&seen).unwrap();
    assert_eq!(change.config["postgresql"]["parameters"], json!({"jit": "off"}));
}

#[test]
fn a_lost_status_does_not_lower_durability() {
    let mut seen = running();
    seen.cluster.spec.instances = 1;
    assert_eq!(config::durability(&seen), Durability::Quorum);
    assert_eq!(config::change(&seen), None);
}

#[test]
fn a_missing_user_secret_touches_no_pod_and_says_how_to_make_it() {
    let mut seen = running();
    seen.cluster.spec.image = "postgres:18".to_owned();
    let lacks = Some("does not exist".to_owned());
    seen.user_secrets = vec![UserSecret { user: "superuser", name: "mine".to_owned(), lacks }];
    let plan = plan(&seen);
    let touched = |w: &Write| matches!(w, Write::Apply { kind: Kind::StatefulSet, .. } | Write::Delete { .. });
    assert!(!plan.writes.iter().any(touched), "{:?}", plan.writes);
    let ready = status(&seen, &plan.step, &Outcome::Done).conditions[0].clone();
    assert_eq!(ready.reason, "SecretMissing");
    assert!(
        ready.message.contains("kubectl -n shop create secret generic mine --from-literal=username=postgres"),
        "{}",
        ready.message
    );
}

#[test]
fn agents_are_upgraded_in_place_replicas_first_one_at_a_time() {
    let mut seen = running();
    seen.sidecar_image = "matriarch-sidecar:0.2.0".to_owned();
    let mut upgraded = Vec::new();
    while let Step::UpgradeAgent { pod } = plan(&seen).step {
        let now = seen.now;
        let m = seen.members.iter_mut().find(|m| m.name == pod).unwrap();
        m.agent_image = seen.sidecar_image.clone();
        (m.agent_settled, m.agent_upgraded) = (false, Some(now));
        assert!(matches!(plan(&seen).step, Step::Wait { reason: "AgentUpgrade", .. }), "did not wait for {pod}");
        seen.members.iter_mut().for_each(|m| m.agent_settled = true);
        assert!(
            matches!(plan(&seen).step, Step::Wait { reason: "AgentUpgrade", .. }),
            "trusted the old agent's readiness"
        );
        seen.now = jiff::Timestamp::from_second(now.as_second() + 10).unwrap();
        upgraded.push(pod);
    }
    assert_eq!(upgraded, ["orders-2", "orders-1", "orders-0"]);
    assert_eq!(plan(&seen).step, Step::Stable);
}

#[test]
fn steps() {
    let other_image = |s: &mut Seen| s.cluster.spec.image = "postgres:18".to_owned();
    // A new image: replicas first, then a switchover, then the former leader.
    assert!(matches!(step_of(other_image), Step::ReplacePod { pod, .. } if pod == "orders-2"));
    let last = |s: &mut Seen| {
        other_image(s);
        let hash = restart_hash(&s.cluster.spec);
        s.members[1..].iter_mut().for_each(|m| m.made_with = Some(hash.clone()));
    };
    assert!(matches!(step_of(last), Step::Switchover { from, to, .. } if from == "orders-0" && to == "orders-1"));
    // In quorum mode only a standby that may have every commit is a candidate.
    let synced = |s: &mut Seen| {
        last(s);
        annotate(s, "orders-sync", "sync_standby", "orders-2");
    };
    assert!(matches!(step_of(synced), Step::Switchover { to, .. } if to == "orders-2"));
    // One that is back from its restart is waited for until it confirms commits, but not for ever.
    let back = |s: &mut Seen| {
        synced(s);
        s.members[1].ready_since = Some(s.now - jiff::SignedDuration::from_secs(5));
    };
    assert_eq!(wait_of(back), "RollingUpdate");
    let listed = |s: &mut Seen| {
        back(s);
        annotate(s, "orders-sync", "sync_standby", "orders-1,orders-2");
    };
    assert!(matches!(step_of(listed), Step::Switchover { .. }));
    // Whose address the Services have just taken up: nobody's clients shall wait for the next change.
    let just_back = |s: &mut Seen| {
        listed(s);
        s.members[1].ready_since = Some(s.now - jiff::SignedDuration::from_secs(2));
    };
    assert_eq!(wait_of(just_back), "RollingUpdate");
    let tagged = |s: &mut Seen| {
        back(s);
        s.members[1].ready_since = Some(s.now - jiff::SignedDuration::from_secs(31));
    };
    assert!(matches!(step_of(tagged), Step::Switchover { .. }));
    // One that is asked for is not asked for again.
    assert_eq!(
        wait_of(|s| {
            last(s);
            annotate(s, "orders-failover", "leader", "orders-0");
        }),
        "Switchover"
    );
    // Nothing goes on while a member is missing, stopping or not ready, nor in maintenance mode.
    assert_eq!(
        wait_of(|s| {
            other_image(s);
            s.members[0].ready = false;
        }),
        "MembersNotReady"
    );
    // One that is evicted is ready until its containers end.
    assert_eq!(
        wait_of(|s| {
            other_image(s);
            s.members[1].deleting = true;
        }),
        "MembersNotReady"
    );
    assert_eq!(
        wait_of(|s| {
            other_image(s);
            drop(s.members.pop());
        }),
        "Scaling"
    );
    assert_eq!(
        wait_of(|s| {
            other_image(s);
            s.cluster.spec.paused = Some(true);
        }),
        "Paused"
    );
    // But a broken replica of an older spec goes first, so that a bad image can be corrected.
    assert!(
        matches!(step_of(|s| { other_image(s); s.members[1].ready = false }), Step::ReplacePod { pod, .. } if pod == "orders-1")
    );
}

#[test]
fn only_the_operators_own_switchover_is_taken_back() {
    let asked = |from: &str, to: &str, acquired: &str| {
        step_of(|seen| {
            seen.now = jiff::Timestamp::from_second(1_000).unwrap();
            let write = locks::switchover(seen, "orders-0", "orders-1", None).unwrap();
            let Write::Patch { body, .. } = write else { panic!("{write:?}") };
            for (key, value) in body["metadata"]["annotations"].as_object().unwrap() {
                annotate(seen, "orders-failover", key, value.as_str().unwrap_or_default());
            }
            // Done or not; and then somebody's request.
            annotate(seen, "orders-leader", "acquireTime", acquired);
            annotate(seen, "orders-failover", "leader", from);
            annotate(seen, "orders-failover", "member", to);
            seen.now = jiff::Timestamp::from_second(1_200).unwrap();
        })
    };
    let (before, after) = ("1970-01-01T00:10:00.123456+00:00", "1970-01-01T00:16:41.123456+00:00");
    assert!(matches!(asked("orders-0", "orders-1", before), Step::Withdraw { .. }), "no agent acted on it");
    for (from, to, acquired) in
        [("orders-0", "orders-2", before), ("orders-1", "orders-0", after), ("orders-0", "orders-1", after)]
    {
        let step = asked(from, to, acquired);
        assert!(matches!(step, Step::Wait { reason: "Switchover", .. }), "a person's request: {step:?}");
    }
}

#[test]
fn scaling_down_keeps_the_leader() {
    let lead = |leader: &'static str| {
        move |s: &mut Seen| {
            s.cluster.spec.instances = 1;
            annotate(s, "orders-leader", "leader", leader);
        }
    };
    let replicas = |change: &dyn Fn(&mut Seen)| {
        let mut seen = running();
        change(&mut seen);
        crate::next_step::replicas(&seen)
    };
    assert_eq!(replicas(&lead("orders-0")), 2, "one at a time");
    assert_eq!(replicas(&lead("orders-2")), 3);
    assert_eq!(replicas(&lead("")), 3, "nobody knows who has every commit");
    assert!(
        matches!(step_of(lead("orders-2")), Step::Switchover { to, reason: "ScaleDownWaiting", .. } if to == "orders-0")
    );
}

#[test]
fn volumes_grow_and_the_set_is_made_anew_without_its_pods() {
    let mut seen = running();
    let set = seen.objects.get_mut(&(Kind::StatefulSet, "orders".to_owned())).unwrap();
    set["metadata"]["uid"] = json!("set-1");
    let claim =
        json!({"metadata": {"name": "data-orders-0"}, "spec": {"resources": {"requests": {"storage": "20Gi"}}}});
    seen.objects.insert((Kind::PersistentVolumeClaim, "data-orders-0".to_owned()), claim);
    assert_eq!(plan(&seen).writes, []);
    seen.cluster.spec.storage.size = "30Gi".to_owned();
    let body = json!({"spec": {"resources": {"requests": {"storage": "30Gi"}}}});
    let grow = Write::Grow { claim: "data-orders-0".to_owned(), body };
    let orphan = Write::Orphan { kind: Kind::StatefulSet, name: "orders".to_owned(), uid: "set-1".to_owned() };
    assert_eq!(plan(&seen).writes, [orphan, grow.clone()]);
    // While the garbage collector works nothing is applied to the set, and when it is gone it comes back for all pods,
    // also if fewer are wanted by now.
    seen.cluster.spec.instances = 1;
    let set = seen.objects.get_mut(&(Kind::StatefulSet, "orders".to_owned())).unwrap();
    set["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let touches = |w: &Write| matches!(w, Write::Apply { kind: Kind::StatefulSet, .. } | Write::Orphan { .. });
    assert!(!plan(&seen).writes.iter().any(touches));
    seen.objects.remove(&(Kind::StatefulSet, "orders".to_owned()));
    annotate(&mut seen, "orders-leader", "leader", "orders-2");
    let plan = plan(&seen);
    assert_eq!(plan.step, Step::Create);
    let Some(Write::Apply { object, .. }) = plan.writes.iter().find(|w| touches(w)) else { panic!("{plan:?}") };
    assert_eq!(object["spec"]["replicas"], 3);
    assert_eq!(object["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "30Gi");
}

#[test]
fn conditions_say_what_is_the_matter() {
    let check = |change: &dyn Fn(&mut Seen), index: usize, reason: &str, words: &str| {
        let mut seen = running();
        change(&mut seen);
        let c = status(&seen, &plan(&seen).step, &Outcome::Done).conditions[index].clone();
        assert_eq!(c.reason, reason);
        assert!(c.message.contains(words), "{}", c.message);
    };
    check(&|_| {}, 0, "AllMembersReady", "3 of 3");
    check(&|s| annotate(s, "orders-leader", "leader", ""), 0, "NoPrimary", "leader lock");
    check(&|s| drop(s.members.pop()), 0, "MembersMissing", "2 of 3");
    let broken = |s: &mut Seen| {
        s.members[1].ready = false;
        s.members[1].report.matriarch.reason = Some("the image has no PostgreSQL".to_owned());
        s.members[2].ready = false;
        s.members[2].trouble = Some(Trouble { reason: "ImagePullFailed", message: "correct spec.image".to_owned() });
    };
    check(&broken, 0, "ImagePullFailed", "orders-2: correct spec.image; orders-1: the image has no PostgreSQL");
    let invalid = |s: &mut Seen| {
        let invalid_parameters = BTreeMap::from([("shared_bufers".to_owned(), "unrecognized".to_owned())]);
        s.members[0].report.matriarch = MatriarchReport { invalid_parameters, ..MatriarchReport::default() };
    };
    check(&invalid, 2, "InvalidParameters", "shared_bufers: unrecognized: correct or remove it");
}

#[test]
fn who_cannot_grow_is_told_the_classes() {
    let mut seen = running();
    let again = |outcome| crate::controller::look_again(&seen, &Step::Stable, &outcome);
    assert_eq!(again(Outcome::Done), crate::controller::LOOK_AGAIN);
    assert_eq!(again(Outcome::CannotGrow(Vec::new())), crate::controller::PATIENT, "no watch shows the class");
    let told = |seen: &Seen| {
        let conditions =
            status(seen, &Step::Stable, &Outcome::CannotGrow(vec!["data-orders-0: no".to_owned(); 6])).conditions;
        for (kind, value) in [("StorageResized", "False"), ("Stalled", "True"), ("Reconciled", "True")] {
            let one = conditions.iter().find(|one| one.type_ == kind).unwrap();
            assert_eq!(one.status, value, "{one:?}");
        }
        conditions.into_iter().find(|one| one.reason == "ResizeRefused").unwrap().message
    };
    assert!(
        told(&seen)
            .contains("(data-orders-0: no; and 5 claims more): if its driver can, set allowVolumeExpansion: true")
    );
    assert!(told(&seen).contains("on the StorageClass (the default one),"));
    seen.cluster.spec.storage.storage_class = Some("slow".to_owned());
    seen.cluster.spec.wal_storage = Some(seen.cluster.spec.storage.clone());
    assert!(told(&seen).contains("on the StorageClass (slow),"));
    seen.cluster.spec.wal_storage.as_mut().unwrap().storage_class = Some("fast".to_owned());
    assert!(told(&seen).contains("on the StorageClass (slow for data, fast for WAL),"));
}

#[test]
fn a_member_whose_data_directory_is_damaged_is_told_of_while_its_pod_is_still_ready() {
    let mut seen = running();
    let before = status(&seen, &Step::Stable, &Outcome::Done);
    seen.members[2].report.state = Some("creating replica".to_owned());
    seen.members[2].report.matriarch.reason =
        Some("the data directory is damaged (why): trying to bootstrap".to_owned());
    let after = status(&seen, &Step::Stable, &Outcome::Done);
    let ready = after.conditions.iter().find(|one| one.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "MemberNotReady"));
    let told = |old| crate::events::events(Some(old), &after, None).into_iter().filter(|e| e.reason == "MemberCopied");
    let notes: Vec<_> = told(&before).filter_map(|e| e.note).collect();
    assert_eq!(notes, ["orders-2: the data directory is damaged (why): trying to bootstrap"]);
    assert_eq!(told(&after).count(), 0, "once");
    let other = |s: &mut Seen| {
        s.cluster.spec.image = "postgres:18".to_owned();
        s.members[1].report.state = Some("creating replica".to_owned());
    };
    assert_eq!(wait_of(other), "MembersNotReady", "no other member is stopped meanwhile");
}

#[test]
fn a_status_keeps_its_transition_times_and_is_then_the_same() {
    let mut seen = running();
    let first = status(&seen, &Step::Stable, &Outcome::Done);
    seen.cluster.status = Some(first.clone());
    seen.now = jiff::Timestamp::from_second(500).unwrap();
    let second = status(&seen, &Step::Stable, &Outcome::Done);
    assert!(!crate::status::difference(Some(&first), &second));
    annotate(&mut seen, "orders-leader", "leader", "orders-1");
    let third = status(&seen, &Step::Stable, &Outcome::Done);
    let notes: Vec<_> = crate::events::events(Some(&second), &third, None).into_iter().filter_map(|e| e.note).collect();
    assert_eq!(notes, ["the primary is orders-1, it was orders-0"]);
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}
