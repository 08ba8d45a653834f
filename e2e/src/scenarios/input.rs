//! Specs that cannot work: rejected, or a condition says what to do; nothing that runs is harmed.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::case::Case;
use super::herd::{Herd, Wanted};
use crate::images::NO_POSTGRES;

const A_MINUTE: Duration = Duration::from_mins(1);

/// One after the other, while clients write to a cluster that they must not harm.
pub async fn bad(case: &Case) -> Result<()> {
    let postmaster = case.herd.postmaster(&case.primary.name).await?;
    rejected(case, json!({"instances": 0}), "instances must be 1 to 9").await?;
    rejected(case, json!({"storage": {"size": "512Mi"}}), "storage.size cannot shrink").await?;
    rejected(case, json!({"postgresql": {"parameters": {"port": "1"}}}), "a setting that Matriarch controls").await?;
    unknown_parameter(case).await?;
    image_without_postgres(case).await?;
    missing_secret(case).await?;
    ensure!(postmaster.is_alive(), "the running PostgreSQL was restarted");
    let lock = case.herd.lock().await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    case.note("6 bad specs rejected or explained");
    Ok(())
}

/// The API server says no, and why.
pub async fn rejected(case: &Case, spec: Value, message: &str) -> Result<()> {
    match case.herd.patch(&spec).await {
        Ok(()) => bail!("{spec} was accepted"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains(message), "{spec} was rejected with {text:?}, which does not say {message:?}");
            Ok(())
        }
    }
}

/// PostgreSQL does not know the name: it runs on without, and the condition names it.
async fn unknown_parameter(case: &Case) -> Result<()> {
    let parameters = |value: Value| json!({"postgresql": {"parameters": {"no_such_setting": value}}});
    case.herd.patch(&parameters(json!("1"))).await?;
    let message = case.herd.condition("ConfigurationApplied", "False", "InvalidParameters", A_MINUTE).await?;
    ensure!(message.contains("no_such_setting"), "the condition does not name it: {message}");
    eprintln!("    unknown parameter: {message}");
    case.herd.patch(&parameters(Value::Null)).await?;
    case.herd.condition("ConfigurationApplied", "True", "Applied", A_MINUTE).await.map(drop)
}

async fn image_without_postgres(case: &Case) -> Result<()> {
    let herd = other(case, "bad-image", &json!({"image": NO_POSTGRES})).await?;
    let message = says(&herd, "no PostgreSQL").await?;
    eprintln!("    image without PostgreSQL: {message}");
    herd.delete().await
}

async fn missing_secret(case: &Case) -> Result<()> {
    let herd = other(case, "bad-secret", &json!({"secrets": {"superuser": "nowhere"}})).await?;
    let message = herd.condition("Ready", "False", "SecretMissing", A_MINUTE).await?;
    ensure!(message.contains("nowhere"), "the condition does not name the Secret: {message}");
    eprintln!("    Secret missing: {message}");
    herd.delete().await
}

/// Another cluster of one member, with something wrong in its spec.
async fn other(case: &Case, name: &'static str, wrong: &Value) -> Result<Herd> {
    let wanted = Wanted { name, instances: 1, endpoints: false, major: case.world.major.clone() };
    case.cluster().ensure_volumes(1).await?;
    Herd::create_with(case.world.namespace.clone(), &wanted, wrong).await
}

/// Waits until the Ready condition is False and says `part`; gives its message.
async fn says(herd: &Herd, part: &str) -> Result<String> {
    let what = format!("{} says {part:?}", herd.name());
    herd.namespace
        .cluster
        .wait_for(&what, A_MINUTE, async || {
            let conditions = herd.status().await?.conditions;
            let ready = conditions.into_iter().find(|one| one.type_ == "Ready");
            Ok(match ready {
                Some(one) if one.status == "False" && one.message.contains(part) => Ok(one.message),
                Some(one) => Err(format!("Ready={} {}: {}", one.status, one.reason, one.message)),
                None => Err("no condition Ready".to_owned()),
            })
        })
        .await
}
