//! Changes of the spec while clients write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use serde_json::json;
use tokio::time::sleep;

use super::super::case::Case;
use super::killed::{rolled, setting};
use crate::host::process::Process;
use crate::images::postgres::reference;
use crate::workload::{clock, longest_gap};

const LONG_ENOUGH: Duration = Duration::from_mins(2);
/// What a rolling update's longest gap may be above twice a switchover's: its leader hands over to a server that has just
/// started, with cold caches, while a pod starts on one of two cores.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// Three members become four, then two while the leader is the one that would go first, then three again.
pub async fn scaled(case: &Case) -> Result<()> {
    case.cluster().ensure_volumes(2).await?;
    instances(case, 4).await?;
    let top = case.herd.members().await?.pop().context("no member")?;
    case.world.plugin(&["switchover", case.herd.name(), "--candidate", &top.name, "--yes"]).await?;
    ensure!(case.herd.primary().await?.name == top.name, "{} does not lead", top.name);
    instances(case, 2).await?;
    let primary = case.herd.primary().await?.name;
    case.note(format!("with {} leading, {primary} took over", top.name));
    instances(case, 3).await
}

async fn instances(case: &Case, count: i32) -> Result<()> {
    let begin = Instant::now();
    case.herd.patch(&json!({"instances": count})).await?;
    case.herd.steady(LONG_ENOUGH).await.with_context(|| format!("{count} instances"))?;
    case.note(format!("{count} members after {:.1} s", begin.elapsed().as_secs_f32()));
    Ok(())
}

/// Another tag of the image: replicas first, a switchover, then the old primary. Clients notice no more of it than of a
/// switchover.
pub async fn image(case: &Case) -> Result<()> {
    let plain = plain_switchovers(case).await.context("a plain switchover")?;
    let image = reference(&case.world.major);
    let other = format!("{image}-minor");
    case.cluster().tag_image(&image, &other)?;
    let before = case.herd.members().await?;
    let leader = case.herd.lock().await?.leader;
    let since = clock::now();
    case.herd.patch(&json!({"image": other})).await?;
    rolled(case, &before).await?;
    case.note(format!("three members replaced in {:.1} s", clock::now().saturating_sub(since).as_secs_f32()));
    let lock = case.herd.lock().await?;
    ensure!(lock.leader != leader, "{} leads on although it was replaced", lock.leader);
    let update = longest_gap(&case.workload.history().attempts(), since).context("no write since")?;
    let (gap, of_switchover) = (update.length.as_secs_f64(), plain.as_secs_f64());
    case.note(format!("longest gap {gap:.2} s, of a plain switchover {of_switchover:.2} s"));
    eprintln!("    {update}");
    let limit = 2 * plain + ALLOWANCE;
    ensure!(
        update.length <= limit,
        "the gap {update} is above {:.2} s, as a switchover's lets expect",
        limit.as_secs_f64()
    );
    Ok(())
}

/// The longer gap of a switchover and the one back, both by `kubectl matriarch switchover`.
async fn plain_switchovers(case: &Case) -> Result<Duration> {
    let since = clock::now();
    for candidate in [case.a_standby().await?.name, case.lock.leader.clone()] {
        let before = case.herd.lock().await?;
        case.world.plugin(&["switchover", case.herd.name(), "--candidate", &candidate, "--yes"]).await?;
        case.herd.other_leader(&before, LONG_ENOUGH).await?;
        case.workload.writable(LONG_ENOUGH).await?;
        case.herd.steady(LONG_ENOUGH).await?;
    }
    let gap = longest_gap(&case.workload.history().attempts(), since).context("no write since")?;
    Ok(gap.length)
}

/// What PostgreSQL takes by a reload is taken without a restart.
pub async fn reloaded(case: &Case) -> Result<()> {
    let before = postmasters(case).await?;
    let database = case.herd.database().await?;
    let mut elsewhere = database.clone();
    "postgres".clone_into(&mut elsewhere.dbname);
    case.workload.ask(&elsewhere, "SELECT 1").await.context("before pg_hba changed")?;
    let begin = Instant::now();
    let lines = [format!("host postgres {} all reject", database.user), "host all all all scram-sha-256".to_owned()];
    case.herd.patch(&json!({"postgresql": {"parameters": {"work_mem": "5MB"}, "pgHba": lines}})).await?;
    setting(case, "work_mem", "5MB").await?;
    case.note(format!("work_mem everywhere after {:.1} s", begin.elapsed().as_secs_f32()));
    case.cluster()
        .wait("pg_hba rejects", LONG_ENOUGH, async || {
            let said = case.workload.ask(&elsewhere, "SELECT 1").await;
            let rejected = said.is_err_and(|error| format!("{error:?}").contains("pg_hba.conf rejects"));
            Ok((!rejected).then(|| "it lets the client in".to_owned()))
        })
        .await?;
    case.note(format!("pg_hba after {:.1} s", begin.elapsed().as_secs_f32()));
    case.herd.patch(&json!({"postgresql": {"parameters": {"work_mem": null}, "pgHba": null}})).await?;
    setting(case, "work_mem", "4MB").await?;
    network_policy(case).await?;
    case.herd.steady(LONG_ENOUGH).await?;
    same(case, &before).await
}

/// A `NetworkPolicy` comes and goes.
async fn network_policy(case: &Case) -> Result<()> {
    let policies: Api<NetworkPolicy> = case.herd.namespace.api();
    let of_cluster = ListParams::default().labels(&format!("cluster-name={}", case.herd.name()));
    for (spec, count) in [(json!({"enabled": true}), 1), (json!(null), 0)] {
        case.herd.patch(&json!({"networkPolicy": spec})).await?;
        let what = format!("{count} network policies");
        case.cluster()
            .wait(&what, LONG_ENOUGH, async || {
                let there = policies.list(&of_cluster).await?.items.len();
                Ok((there != count).then(|| format!("{there} are there")))
            })
            .await?;
    }
    Ok(())
}

/// What needs a restart waits for the maintenance window, then is done, raised and lowered: at no moment has a standby less
/// than its primary, and no pod is made anew.
pub async fn restarted(case: &Case) -> Result<()> {
    let watch = Watch::start(case, "max_connections").await?;
    let (before, pods) = (postmasters(case).await?, case.herd.members().await?);
    let opens = next_minute(Timestamp::now());
    let window = json!([{"start": opens.strftime("%H:%M").to_string(), "duration": "10m"}]);
    let change = json!({"postgresql": {"parameters": {"max_connections": "130"}}, "maintenanceWindows": window});
    case.herd.patch(&change).await?;
    waits_for(case, opens).await?;
    // Half a second before it opens nothing has happened.
    sleep(left_until(opens).saturating_sub(Duration::from_millis(500))).await;
    for (name, process) in &before {
        ensure!(process.is_alive(), "PostgreSQL of {name} was restarted before the maintenance window");
    }
    sleep(left_until(opens)).await;
    in_force(case, "130", "raised").await?;
    case.herd.patch(&json!({"postgresql": {"parameters": {"max_connections": "100"}}})).await?;
    in_force(case, "100", "lowered").await?;
    watch.finish().await?;
    let now = case.herd.members().await?;
    let anew: Vec<&str> =
        now.iter().filter(|one| pods.iter().all(|old| old.uid != one.uid)).map(|one| one.name.as_str()).collect();
    ensure!(anew.is_empty(), "the pods of {anew:?} were made anew");
    case.herd.patch(&json!({"maintenanceWindows": null})).await
}

/// Waits until `max_connections` is in force; raised, another leads then, and lowered, the same.
async fn in_force(case: &Case, value: &str, how: &str) -> Result<()> {
    let (begin, leader) = (Instant::now(), case.herd.lock().await?.leader);
    setting(case, "max_connections", value).await?;
    case.herd.condition("ConfigurationApplied", "True", "Applied", LONG_ENOUGH).await?;
    case.note(format!("max_connections {how} everywhere after {:.1} s", begin.elapsed().as_secs_f32()));
    case.herd.steady(LONG_ENOUGH).await?;
    let now = case.herd.lock().await?.leader;
    ensure!((now != leader) == (how == "raised"), "{how}: {leader} led, and {now} leads");
    Ok(())
}

/// The first full minute that is ten seconds away.
fn next_minute(now: Timestamp) -> Timestamp {
    let later = now.as_second() + 10;
    Timestamp::from_second(later - later % 60 + 60).unwrap_or(now)
}

fn left_until(moment: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default() // negative: it is over
}

/// The status says what waits, and until when.
async fn waits_for(case: &Case, opens: Timestamp) -> Result<()> {
    case.cluster()
        .wait("the status says that it waits for the window", left_until(opens), async || {
            let step = case.herd.status().await?.step;
            let told = step.as_ref().filter(|step| step.reason == "MaintenanceWindow");
            Ok(if told.is_some_and(|step| step.message.contains(&opens.to_string())) {
                None
            } else {
                Some(format!("{step:?}"))
            })
        })
        .await
}

/// The postmasters of all members.
pub async fn postmasters(case: &Case) -> Result<Vec<(String, Process)>> {
    let mut all = Vec::new();
    for member in case.herd.members().await? {
        let process = case.herd.postmaster(&member.name).await?;
        all.push((member.name, process));
    }
    Ok(all)
}

/// Makes sure that nobody restarted PostgreSQL, and that the same member leads.
pub async fn same(case: &Case, before: &[(String, Process)]) -> Result<()> {
    for (name, process) in before {
        ensure!(process.is_alive(), "PostgreSQL of {name} was restarted");
    }
    let lock = case.herd.lock().await?;
    ensure!(lock.leader == case.lock.leader, "the lock went to {}", lock.leader);
    case.note("no PostgreSQL was restarted");
    Ok(())
}

/// Looks all the time whether a standby runs with less than the primary.
struct Watch {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Watch {
    async fn start(case: &Case, name: &'static str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (herd, workload, stopped) = (case.herd.clone(), case.workload.clone(), stop.clone());
        let database = herd.database().await?;
        let sql = format!("SELECT pg_is_in_recovery(), current_setting('{name}')");
        let task = tokio::spawn(async move {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let (mut primary, mut least) = (None, None);
                for member in herd.members().await.unwrap_or_default() {
                    let at = database.at(&member.address);
                    let answer = workload.ask(&at, &sql).await.unwrap_or_default();
                    let Some([standby, value]) = answer.first().map(Vec::as_slice) else { continue };
                    let value: Option<u32> = value.parse().ok();
                    if standby == "t" {
                        least = least.into_iter().chain(value).min();
                    } else {
                        primary = value;
                    }
                }
                if let (Some(primary), Some(least)) = (primary, least)
                    && least < primary
                {
                    wrong.push(format!("a standby has {least} and the primary {primary}"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            wrong
        });
        Ok(Self { stop, task })
    }

    async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.task.await?;
        ensure!(wrong.is_empty(), "{} times, first: {}", wrong.len(), wrong[0]);
        Ok(())
    }
}
