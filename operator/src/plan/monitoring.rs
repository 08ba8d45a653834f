//! `spec.monitoring`: a PodMonitor, where the cluster knows that kind.

use matriarch_crds::Condition;
use matriarch_crds::names::{APPLICATION, APPLICATION_LABEL, SCOPE_LABEL};
use serde_json::{Value, json};

use super::metadata;
use crate::kinds::Kind;
use crate::observe::Seen;
use crate::plan::Write;

/// Of all members, by the certificate authority of the cluster.
pub fn object(seen: &Seen) -> Option<Value> {
    let wanted = &seen.cluster.spec.monitoring;
    if !wanted.pod_monitor || !seen.knows_pod_monitors {
        return None;
    }
    let names = seen.names();
    let mut metadata = metadata(seen, &seen.name());
    for (label, value) in &wanted.labels {
        // Those by which the operator finds its objects stay.
        if metadata["labels"].get(label).is_none() {
            metadata["labels"][label] = json!(value);
        }
    }
    Some(json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": {(APPLICATION_LABEL): APPLICATION, (SCOPE_LABEL): seen.name()}},
            "podMetricsEndpoints": [{
                "port": "api",
                "path": "/metrics",
                "scheme": "https",
                "tlsConfig": {
                    "ca": {"secret": {"name": names.tls_secret(), "key": "ca.crt"}},
                    "serverName": format!("{}.{}.svc", names.service(), seen.namespace()),
                },
            }],
        },
    }))
}

/// That a PodMonitor is wanted where nothing knows what that is: said, and nothing else waits for it.
pub fn condition(seen: &Seen) -> Option<Condition> {
    if !seen.cluster.spec.monitoring.pod_monitor {
        return None;
    }
    let (status, reason, message) = if seen.knows_pod_monitors {
        ("True", "PodMonitorMade", "the PodMonitor is as the spec says")
    } else {
        (
            "False",
            "NoPodMonitors",
            "the cluster has no kind PodMonitor (monitoring.coreos.com/v1): install the Prometheus operator's definitions, \
             which is noticed within a minute, or set spec.monitoring.podMonitor: false",
        )
    };
    Some(Condition {
        type_: "MonitoringApplied".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: String::new(),
        observed_generation: None,
    })
}

/// What the spec wants no longer: the NetworkPolicy and the PodMonitor that this operator made for this very cluster.
pub fn surplus(seen: &Seen) -> Vec<Write> {
    let spec = &seen.cluster.spec;
    let own = seen.cluster.metadata.uid.as_deref();
    [(Kind::NetworkPolicy, spec.network_policy.enabled), (Kind::PodMonitor, spec.monitoring.pod_monitor)]
        .into_iter()
        .filter(|(_, wanted)| !wanted)
        .filter_map(|(kind, _)| {
            let live = seen.object(kind, &seen.name())?;
            let mut owners = live["metadata"]["ownerReferences"].as_array()?.iter();
            let made_by_us = own.is_some() && owners.any(|one| one["uid"].as_str() == own);
            let uid = live["metadata"]["uid"].as_str().filter(|_| made_by_us)?.to_owned();
            Some(Write::Delete { kind, name: seen.name(), uid })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{example, example_spec, network_policy, plan};

    fn seen() -> Seen {
        let mut seen = example(example_spec(false));
        seen.cluster.spec.network_policy.enabled = true;
        seen.cluster.spec.monitoring.pod_monitor = true;
        seen.knows_pod_monitors = true;
        seen
    }

    fn applied(seen: &Seen, wanted: Kind) -> Option<Value> {
        plan(seen).writes.into_iter().find_map(|write| match write {
            Write::Apply { kind, object } if kind == wanted => Some(object),
            _ => None,
        })
    }

    #[test]
    fn clients_reach_only_postgresql_and_members_each_other() {
        let mut seen = seen();
        let peer = json!({"podSelector": {"matchLabels": {"app": "shop"}}});
        seen.cluster.spec.network_policy.from = vec![serde_json::from_value(peer.clone()).unwrap()];
        let policy = applied(&seen, Kind::NetworkPolicy).unwrap();
        serde_json::from_value::<k8s_openapi::api::networking::v1::NetworkPolicy>(policy.clone()).unwrap();
        let ingress = &policy["spec"]["ingress"];
        assert_eq!(ingress[0]["from"][0]["podSelector"], policy["spec"]["podSelector"]);
        assert_eq!(ingress[1], json!({"from": [peer], "ports": [{"port": 5432, "protocol": "TCP"}]}));
        // As its Deployment labels its pods.
        let labels = json!({"app.kubernetes.io/name": "matriarch-operator"});
        let operator = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": labels}});
        assert_eq!(ingress[2], json!({"from": [operator], "ports": [{"port": 8008, "protocol": "TCP"}]}));
        assert_eq!(ingress[3]["ports"], json!([{"port": 8008, "protocol": "TCP"}]));
        seen.cluster.spec.network_policy.from.clear();
        seen.cluster.spec.monitoring.pod_monitor = false;
        let policy = network_policy::object(&seen).unwrap();
        assert_eq!(policy["spec"]["ingress"][1], json!({"ports": [{"port": 5432, "protocol": "TCP"}]}));
        assert!(policy["spec"]["ingress"].as_array().is_some_and(|all| all.len() == 3), "{policy}");
    }

    #[test]
    fn a_pod_monitor_verifies_the_members_and_keeps_the_operators_labels() {
        let mut seen = seen();
        let labels = [("release", "prometheus"), (APPLICATION_LABEL, "mine")];
        seen.cluster.spec.monitoring.labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let monitor = applied(&seen, Kind::PodMonitor).unwrap();
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        assert_eq!(monitor["metadata"]["labels"][APPLICATION_LABEL], APPLICATION);
        let server = monitor["spec"]["podMetricsEndpoints"][0]["tlsConfig"]["serverName"].as_str().unwrap().to_owned();
        assert!(crate::tls::member_names("orders", "shop").contains(&server), "{server} is in no certificate");
    }

    #[test]
    fn without_the_kind_a_condition_says_so_and_nothing_fails() {
        let mut seen = seen();
        seen.knows_pod_monitors = false;
        assert_eq!(applied(&seen, Kind::PodMonitor), None);
        let step = plan(&seen).step;
        let status = crate::status::status(&seen, &step, &crate::status::Outcome::Done);
        let said = status.conditions.iter().find(|c| c.type_ == "MonitoringApplied").unwrap();
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "NoPodMonitors"));
        seen.cluster.spec.monitoring.pod_monitor = false;
        assert_eq!(condition(&seen), None);
    }

    #[test]
    fn what_is_turned_off_goes_and_what_others_made_stays() {
        let mut seen = seen();
        let mut policy = applied(&seen, Kind::NetworkPolicy).unwrap();
        policy["metadata"]["uid"] = json!("u1");
        seen.objects.insert((Kind::NetworkPolicy, "orders".to_owned()), policy.clone());
        assert_eq!(surplus(&seen), []);
        seen.cluster.spec.network_policy.enabled = false;
        let gone = Write::Delete { kind: Kind::NetworkPolicy, name: "orders".to_owned(), uid: "u1".to_owned() };
        assert_eq!(surplus(&seen), [gone]);
        policy["metadata"]["ownerReferences"] = json!([]);
        seen.objects.insert((Kind::NetworkPolicy, "orders".to_owned()), policy);
        assert_eq!(surplus(&seen), []);
    }
}
