//! Metrics, as Prometheus' own library for Python reads them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bare::ctl::talk;
use crate::bare::member::get;
use crate::bare::patroni::Patroni;
use crate::bare::team::Team;

/// Reads the text format on standard input; each sample with its type, labels and value.
const READ: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
print(json.dumps([[s.name, f.type, s.labels, s.value] for f in families(sys.stdin.read()) for s in f.samples]))
";

/// Every member's metrics are read, carry its name, and say who leads.
pub async fn read(team: &Team<'_>, patroni: &Patroni) -> Result<()> {
    let leader = &team.leader().await?.name;
    for member in &team.members {
        let (code, text) = get(member.address, "/metrics").await?;
        let mut python = patroni.python();
        python.arg("-c").arg(READ);
        let input = text.clone();
        let said = tokio::task::spawn_blocking(move || talk(python, &input)).await??;
        ensure!(code == 200 && said.code == Some(0), "{said:?} of {text}");
        let samples: Vec<(String, String, BTreeMap<String, Value>, f64)> = serde_json::from_str(&said.out)?;
        ensure!(samples.len() > 50, "{samples:?}");
        for (name, kind, labels, _) in &samples {
            let whose =
                labels.get("scope") == Some(&json!(team.plan.name)) && labels.get("name") == Some(&json!(member.name));
            ensure!(whose, "{name} has {labels:?}");
            ensure!(matches!(kind.as_str(), "gauge" | "counter"), "{name} is a {kind}");
        }
        // The library gives every counter the ending that OpenMetrics wants.
        let value = |name: &str| {
            let sample = samples.iter().find(|sample| sample.0.strip_suffix("_total").unwrap_or(&sample.0) == name);
            sample.map(|sample| sample.3).with_context(|| format!("{} has no {name}", member.name))
        };
        let leads = member.name == *leader;
        for (name, expected) in [
            ("patroni_postgres_running", true),
            ("patroni_primary", leads),
            ("patroni_replica", !leads),
            ("patroni_postgres_streaming", !leads),
            ("matriarch_leader", leads),
        ] {
            ensure!((value(name)? > 0.5) == expected, "{name} of {}: {text}", member.name);
        }
        let position = if leads { "patroni_xlog_location" } else { "patroni_xlog_replayed_location" };
        ensure!(value(position)? > 1_048_576.0, "{position} of {}: {text}", member.name);
        ensure!(value("patroni_postmaster_start_time")? > 1_600_000_000.0, "{text}");
    }
    Ok(())
}
