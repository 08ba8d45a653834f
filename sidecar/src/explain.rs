//! `matriarch-sidecar explain SNAPSHOT.json`: what the rules make of a recorded snapshot, and why.

use matriarch_ha::decide::decide;
use matriarch_ha::snapshot::Snapshot;

/// Rule, what it is for, reason and actions, for people.
pub fn explain(text: &str) -> Result<String, serde_json::Error> {
    let snapshot: Snapshot = serde_json::from_str(text)?;
    let verdict = decide(&snapshot);
    let mut out =
        format!("rule:   {}\n        {}\nreason: {}\n", verdict.rule.id(), verdict.rule.why(), verdict.reason);
    if verdict.actions.is_empty() {
        out.push_str("action: none\n");
    }
    for action in &verdict.actions {
        out.push_str(&format!("action: {}\n", serde_json::to_string(action)?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use matriarch_ha::core::{Core, Identity};
    use matriarch_ha::types::Boot;

    #[test]
    fn a_snapshot_says_which_rule_speaks_and_why() {
        let mut snapshot = Core::new(Identity::default()).snapshot(Boot(5));
        let text = serde_json::to_string(&snapshot).unwrap();
        let said = super::explain(&text).unwrap();
        assert!(said.starts_with("rule:   server.detached\n") && said.ends_with("action: none\n"), "{said}");
        snapshot.terminating = true;
        snapshot.server.attached = true;
        let said = super::explain(&serde_json::to_string(&snapshot).unwrap()).unwrap();
        assert!(said.contains("terminating.finish") && said.contains("action: \"Finish\""), "{said}");
        assert!(super::explain("{}").is_err());
    }
}
