//! Fields of the spec, one by one: what is written because of them.

use super::*;

fn bytes(text: &str) -> k8s_openapi::ByteString {
    k8s_openapi::ByteString(text.as_bytes().to_vec())
}

fn set_spec(seen: &mut Seen, field: &str, value: &Value) {
    let mut spec = serde_json::to_value(&seen.cluster.spec).unwrap();
    spec[field] = value.clone();
    seen.cluster.spec = parse(&spec);
}

fn stored(seen: &Seen) -> Value {
    config::change(seen).map_or_else(|| config::current(seen).unwrap().0, |change| change.config)
}

#[test]
fn what_an_application_connects_with_follows_its_password() {
    let mut seen = running();
    let data =
        json!({"username": bytes("app"), "password": bytes("p:4/\"w\\"), "uri": bytes("postgresql://app:old@x/app")});
    let live = json!({"metadata": {"name": "orders-app", "resourceVersion": "7"}, "data": data});
    seen.objects.insert((Kind::Secret, "orders-app".to_owned()), live);
    let writes = plan(&seen).writes;
    let Write::Patch { kind: Kind::Secret, name, body } = &writes[0] else { panic!("{writes:?}") };
    assert_eq!((name.as_str(), &body["metadata"]["resourceVersion"]), ("orders-app", &json!("7")));
    let changed = &body["stringData"];
    assert_eq!(changed["uri"], "postgresql://app:p%3A4%2F%22w%5C@orders.shop.svc:5432/app");
    assert_eq!(changed["pgpass"], "orders.shop.svc:5432:app:app:p\\:4/\"w\\\\\n");
    assert_eq!(changed["userlist.txt"], "\"app\" \"p:4/\"\"w\\\"\n");
    assert_eq!((&changed["type"], &changed["provider"]), (&json!("postgresql"), &json!("matriarch")));
    assert!(changed["username"].is_null() && changed["password"].is_null(), "what is right already is not written");
}

#[test]
fn declared_roles_have_their_passwords_and_a_missing_one_says_how_to_make_it() {
    let mut seen = running();
    let role = json!([{"name": "reporting", "login": true, "passwordSecret": {"name": "reporting"}}]);
    set_spec(&mut seen, "roles", &role);
    let said = |seen: &Seen| {
        let status = status(seen, &plan(seen).step, &Outcome::Done);
        status.conditions.into_iter().find(|c| c.type_ == "DeclaredStateApplied").unwrap()
    };
    let missing = said(&seen);
    assert_eq!(missing.reason, "PasswordSecretMissing");
    assert!(
        missing.message.contains("create secret generic reporting --from-literal=password="),
        "{}",
        missing.message
    );
    let secret = json!({"metadata": {"resourceVersion": "3"}, "data": {"password": bytes("geheim")}});
    seen.named_secrets.insert("reporting".to_owned(), Some(secret));
    let (state, lacking) = declared::state(&seen);
    assert_eq!((state["roles"][0]["password"].as_str(), lacking.len()), (Some("geheim"), 0));
    assert!(state["roles"][0]["passwordSecret"].is_null());
    assert_eq!(said(&seen).reason, "Applying");
    // The generation, which agents repeat on pods, changes with the Secret and tells nothing about what is in it.
    let generation = state["generation"].as_str().unwrap().to_owned();
    seen.named_secrets.get_mut("reporting").unwrap().as_mut().unwrap()["data"]["password"] = json!(bytes("anders"));
    assert_eq!(declared::state(&seen).0["generation"], generation.as_str());
    let failed = BTreeMap::from([("role/reporting".to_owned(), "no".to_owned())]);
    seen.members[0].report.matriarch.declared = Some(crate::member::Declared { generation, failed });
    assert!(said(&seen).message.contains("role/reporting: no"));
}

#[test]
fn fences_and_standby_clusters_are_in_the_dynamic_configuration_as_long_as_the_spec_says_so() {
    let mut seen = running();
    set_spec(&mut seen, "fenced", &json!(["orders-2"]));
    set_spec(&mut seen, "standbyOf", &json!({"host": "elsewhere", "primarySlotName": "dr"}));
    let config = stored(&seen);
    assert_eq!(config["matriarch"], json!({"fenced": ["orders-2"]}));
    assert_eq!(config["standby_cluster"], json!({"host": "elsewhere", "port": 5432, "primary_slot_name": "dr"}));
    annotate(&mut seen, "orders-config", "config", &config.to_string());
    set_spec(&mut seen, "fenced", &json!([]));
    set_spec(&mut seen, "standbyOf", &Value::Null);
    // One that somebody else wrote is not the spec's to remove: that would promote the cluster.
    assert!(stored(&seen)["matriarch"].is_null() && stored(&seen)["standby_cluster"].is_object());
    annotate(&mut seen, "orders-config", config::NAMED_ANNOTATION, r#"["standby_cluster"]"#);
    assert!(stored(&seen)["standby_cluster"].is_null());
}

#[test]
fn a_fenced_member_is_left_alone_and_nothing_else_is_stopped() {
    let fenced = |s: &mut Seen| {
        set_spec(s, "fenced", &json!(["orders-1"]));
        set_spec(s, "image", &json!("postgres:18"));
        (s.members[1].ready, s.members[1].report.state) = (false, Some("stopped".to_owned()));
    };
    assert_eq!(wait_of(fenced), "Fenced");
}

#[test]
fn a_rolling_update_waits_for_its_window_and_a_repair_does_not() {
    let windows = json!([{"days": ["Fri"], "start": "02:00", "duration": "2h"}]);
    let closed = |s: &mut Seen| {
        set_spec(s, "maintenanceWindows", &windows);
        set_spec(s, "image", &json!("postgres:18"));
    };
    // The epoch was a Thursday.
    assert_eq!(wait_of(closed), "MaintenanceWindow");
    let open = |s: &mut Seen| {
        closed(s);
        s.now = "1970-01-02T02:30:00Z".parse().unwrap();
    };
    assert!(matches!(step_of(open), Step::ReplacePod { pod, .. } if pod == "orders-2"));
    let broken = |s: &mut Seen| {
        closed(s);
        (s.members[1].ready, s.members[1].postgres_down) = (false, true);
    };
    assert!(matches!(step_of(broken), Step::ReplacePod { pod, .. } if pod == "orders-1"));
}

#[test]
fn kubelets_are_told_when_what_pods_mount_has_changed() {
    let mut seen = running();
    let state = mounted::state(&seen, &seen.members[0]);
    for m in &mut seen.members {
        (m.node, m.mounted) = (Some("node-1".to_owned()), Some(state.clone()));
        m.claims = vec![format!("data-{}", m.name)];
    }
    assert_eq!(plan(&seen).writes, []);
    // A volume that has grown, and waits for its kubelet.
    let claim = json!({"metadata": {"name": "data-orders-1"}, "status": {
        "allocatedResources": {"storage": "30Gi"},
        "conditions": [{"type": "FileSystemResizePending", "status": "True"}],
    }});
    seen.objects.insert((Kind::PersistentVolumeClaim, "data-orders-1".to_owned()), claim);
    let writes = plan(&seen).writes;
    assert!(matches!(&writes[..], [Write::Patch { kind: Kind::Pod, name, .. }] if name == "orders-1"), "{writes:?}");
    seen.members[1].mounted = Some(mounted::state(&seen, &seen.members[1]));
    assert_eq!(plan(&seen).writes, [], "once");
    seen.objects.remove(&(Kind::PersistentVolumeClaim, "data-orders-1".to_owned()));
    seen.members[1].mounted = Some(state);
    seen.objects.get_mut(&(Kind::Secret, "orders-tls".to_owned())).unwrap()["metadata"]["resourceVersion"] = json!("2");
    let writes = plan(&seen).writes;
    assert_eq!(writes.len(), 3);
    assert!(matches!(&writes[0], Write::Patch { kind: Kind::Pod, name, .. } if name == "orders-0"), "{writes:?}");
}

#[test]
fn a_lost_volume_is_replaced_only_beside_good_copies() {
    let lost = |s: &mut Seen, ordinal: usize| {
        let name = format!("data-orders-{ordinal}");
        let claim = json!({"metadata": {"name": name, "uid": "claim-1"}, "status": {"phase": "Lost"}});
        s.objects.insert((Kind::PersistentVolumeClaim, name.clone()), claim);
        let m = &mut s.members[ordinal];
        (m.ready, m.postgres_down, m.claims) = (false, true, vec![name]);
        annotate(s, "orders-sync", "sync_standby", "orders-1,orders-2");
    };
    let mut seen = running();
    lost(&mut seen, 2);
    let plan_of = plan(&seen);
    assert!(matches!(&plan_of.step, Step::ReplaceVolume { pod, .. } if pod == "orders-2"), "{plan_of:?}");
    // Noted before anything is deleted, so that the next one waits.
    let kinds: Vec<Kind> = plan_of
        .writes
        .iter()
        .map(|w| match w {
            Write::Patch { kind, .. } | Write::Delete { kind, .. } => *kind,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [Kind::ConfigMap, Kind::PersistentVolumeClaim, Kind::Pod]);
    annotate(&mut seen, "orders-failover", locks::VOLUME_ANNOTATION, "1970-01-01T00:00:00Z");
    assert!(!matches!(plan(&seen).step, Step::ReplaceVolume { .. }), "two within ten minutes");

    let refused = |change: &dyn Fn(&mut Seen)| {
        let mut seen = running();
        lost(&mut seen, 2);
        change(&mut seen);
        assert!(!matches!(plan(&seen).step, Step::ReplaceVolume { .. }));
        status(&seen, &Step::Stable, &Outcome::Done).conditions[0].message.clone()
    };
    assert!(refused(&|s| s.members[0].ready = false).contains("this may be the last copy"));
    assert!(refused(&|s| s.members[1].ready = false).contains("no other standby that confirms commits"));
    let leads = |s: &mut Seen| annotate(s, "orders-leader", "leader", "orders-2");
    assert!(refused(&leads).contains("kubectl -n shop delete pvc data-orders-2"));
}
