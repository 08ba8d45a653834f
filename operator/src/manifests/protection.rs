//! `spec.deletionProtection`: the API server itself refuses to delete such a cluster, whether the operator runs or not.

use serde_json::{Value, json};

use super::Install;

/// A ValidatingAdmissionPolicy and its binding.
pub(super) fn objects(install: &Install) -> [Value; 2] {
    let name = format!("{}-deletion-protection", install.name);
    let group = "admissionregistration.k8s.io/v1";
    let mut binding = json!({"policyName": name, "validationActions": ["Deny"]});
    let watched = install.watched();
    if !watched.is_empty() {
        binding["matchResources"] = json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": watched},
        ]}});
    }
    [
        json!({
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": install.metadata(&name, None),
            "spec": policy(),
        }),
        json!({
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": install.metadata(&name, None),
            "spec": binding,
        }),
    ]
}

pub(super) fn policy() -> Value {
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": ["matriarch.dev"],
            "apiVersions": ["*"],
            "operations": ["DELETE"],
            "resources": ["postgresclusters"],
        }]},
        "validations": [{
            "expression": "!has(oldObject.spec.deletionProtection) || !oldObject.spec.deletionProtection",
            "messageExpression": "'PostgresCluster ' + oldObject.metadata.name + ' is protected by spec.deletionProtection: true. \
                To delete it, first run: kubectl -n ' + oldObject.metadata.namespace + ' patch postgrescluster ' + \
                oldObject.metadata.name + ' --type merge -p \\'{\"spec\":{\"deletionProtection\":false}}\\''",
            "message": "the PostgresCluster is protected by spec.deletionProtection: true: set it to false first",
            "reason": "Forbidden",
        }],
    })
}
