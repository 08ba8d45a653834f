//! Roles and databases as the spec declares them: made, changed, dropped.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::case::Case;
use super::changes::{postmasters, same};
use crate::workload::Database;

const A_MINUTE: Duration = Duration::from_mins(1);

/// A role that logs in and owns a database, then less, then nothing.
pub async fn all(case: &Case) -> Result<()> {
    let before = postmasters(case).await?;
    let password = "from-a-secret";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reports"}, "stringData": {"password": password},
    });
    case.herd.apply(&secret.to_string()).await?;
    let role = |change: Value| {
        let mut role = json!({"name": "reports", "login": true, "passwordSecret": {"name": "reports"}});
        if let (Some(role), Some(change)) = (role.as_object_mut(), change.as_object()) {
            role.extend(change.clone());
        }
        role
    };
    let database = json!({
        "name": "reports", "owner": "reports", "extensions": [{"name": "plpgsql"}], "schemas": [{"name": "raw", "owner": "reports"}],
    });
    let own = case.herd.database().await?;
    let there = Database { user: "reports".into(), password: password.into(), dbname: "reports".into(), ..own.clone() };

    let begin = Instant::now();
    case.herd.patch(&json!({"roles": [role(json!({"connectionLimit": 7}))], "databases": [database]})).await?;
    says(case, &there, "CREATE TABLE IF NOT EXISTS raw.mine(); SELECT 'made'", "made").await?;
    case.note(format!("a role and its database after {:.1} s", begin.elapsed().as_secs_f32()));
    applied(case).await?;

    let begin = Instant::now();
    case.herd.patch(&json!({"roles": [role(json!({"connectionLimit": 3}))]})).await?;
    says(case, &own, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'reports'", "3").await?;
    case.note(format!("another limit after {:.1} s", begin.elapsed().as_secs_f32()));
    applied(case).await?;

    // What cannot be is said, and what can be is done.
    let odd = json!([database, {"name": "other", "extensions": [{"name": "no_such_extension"}]}]);
    case.herd.patch(&json!({"databases": odd})).await?;
    let message = case.herd.condition("DeclaredStateApplied", "False", "Failed", A_MINUTE).await?;
    ensure!(message.contains("other"), "the condition does not name the database: {message}");
    case.note(message);

    case.herd
        .patch(&json!({
            "roles": [{"name": "reports", "ensure": "absent"}],
            "databases": [{"name": "reports", "ensure": "absent"}, {"name": "other", "ensure": "absent"}],
        }))
        .await?;
    let left = "SELECT count(*) FROM (SELECT rolname FROM pg_roles UNION ALL SELECT datname FROM pg_database) AS n(name) \
                WHERE name IN ('reports', 'other')";
    says(case, &own, left, "0").await?;
    applied(case).await?;
    case.herd.patch(&json!({"roles": null, "databases": null})).await?;
    same(case, &before).await
}

async fn applied(case: &Case) -> Result<()> {
    let what = "the condition DeclaredStateApplied is True for this generation";
    case.cluster()
        .wait(what, A_MINUTE, async || {
            let resource = case.herd.resource().await?;
            let conditions = resource.status.map(|status| status.conditions).unwrap_or_default();
            let one = conditions.into_iter().find(|one| one.type_ == "DeclaredStateApplied");
            Ok(match one {
                Some(one) if one.status == "True" && one.observed_generation == resource.metadata.generation => None,
                other => Some(format!("{other:?}")),
            })
        })
        .await
}

async fn says(case: &Case, database: &Database, sql: &str, wanted: &str) -> Result<()> {
    let what = format!("{sql} says {wanted}");
    case.cluster()
        .wait(&what, A_MINUTE, async || {
            let rows = case.workload.ask(database, sql).await.context("no answer")?;
            let said = rows.last().and_then(|row| row.first()).cloned().unwrap_or_default();
            Ok((said != wanted).then(|| format!("it says {said}")))
        })
        .await
}
