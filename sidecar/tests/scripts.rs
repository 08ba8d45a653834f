//! Scripts around PostgreSQL's life, and the watchdog: callbacks, pre_promote, before_stop, with a real supervisor and PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod common;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use common::{Member, Tools, server, until};
use matriarch_ha::effect::{Callback, Task};
use matriarch_ha::event::{Event, TaskError};
use matriarch_ha::types::Timeline;

const STOP: Task = Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 };

async fn said(member: &Member, what: &str) {
    let path = member.dir.join("volume/said");
    until(what, async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().any(|line| line == what).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_newer_callback_ends_an_older_one_and_delays_nothing() {
    let Some(tools) = Tools::find() else { return };
    let callbacks = ", callbacks: {on_start: DIR/slow.sh, on_stop: DIR/slow.sh, on_role_change: DIR/quick.sh first,
                                   on_reload: DIR/slow.sh}";
    let mut one = Member::with(&tools, "one", "", callbacks).await;
    one.script(
        "slow.sh",
        "trap 'echo ended $1 >> DIR/volume/said; exit 1' TERM
        echo $1 $2 $3 >> DIR/volume/said; sleep 100 & wait",
    );
    one.script("quick.sh", "echo $* >> DIR/volume/said");
    one.task(Task::Initdb).await.unwrap();
    one.postgres.callback(Callback::Reload, "primary");
    said(&one, "on_reload primary test").await;
    one.postgres.callback(Callback::Start, "primary");
    said(&one, "on_start primary test").await;
    // Neither a task nor its cancellation waits for them.
    let start = Instant::now();
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    let cancelled = one.postgres.task(Task::Rewind { from: one.upstream(None), pg_rewind: true }, async {}).await;
    assert!(matches!(cancelled, Err(TaskError::Cancelled | TaskError::Failed(_))));
    one.task(STOP).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    one.postgres.callback(Callback::RoleChange, "replica");
    said(&one, "ended on_start").await;
    said(&one, "first on_role_change replica test").await;
    let text = std::fs::read_to_string(one.dir.join("volume/said")).unwrap();
    assert!(!text.contains("ended on_reload"), "reloads have a lane of their own: {text}");
    one.postgres.callback(Callback::Restart, "replica"); // none is configured
    one.postgres.callback(Callback::Reload, "replica");
    said(&one, "ended on_reload").await;
}

#[tokio::test(flavor = "current_thread")]
async fn pre_promote_forbids_and_before_stop_is_waited_for() {
    let Some(tools) = Tools::find() else { return };
    let mut one = Member::with(&tools, "one", "", ", pre_promote: DIR/check.sh, before_stop: DIR/before.sh").await;
    one.script("check.sh", "test -f DIR/volume/allowed || { echo 'not yet' >&2; exit 1; }");
    one.script("before.sh", "echo before >> DIR/volume/said; sleep 100");
    one.task(Task::Initdb).await.unwrap();
    one.permit_ms(60_000);
    one.task(Task::StartStandby { config: server(&[]) }).await.unwrap();
    let refused = one.task(Task::Promote { from: Timeline(1), to: Timeline(2) }).await;
    assert!(matches!(&refused, Err(TaskError::Forbidden(why)) if why.contains("not yet")), "{refused:?}");
    assert!(one.status().await.in_recovery);
    std::fs::write(one.dir.join("volume/allowed"), "").unwrap();
    one.task(Task::Promote { from: Timeline(1), to: Timeline(2) }).await.unwrap();
    // Bounded; an immediate stop does not run it.
    let start = Instant::now();
    one.task(STOP).await.unwrap();
    said(&one, "before").await;
    assert!(start.elapsed() >= Duration::from_secs(4) && start.elapsed() < Duration::from_secs(15));
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    let start = Instant::now();
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // Not longer than the stop itself may take (`primary_stop_timeout`).
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    let start = Instant::now();
    one.task(Task::Stop { immediate: false, checkpoint: false, timeout_ms: 1_000 }).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(3_500), "{:?}", start.elapsed());
    // Nor longer than the fence lets a primary live.
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    one.permit_ms(1_500);
    let start = Instant::now();
    one.postgres.forget_connection();
    let postgres = one.postgres.clone();
    let stop = tokio::spawn(async move { postgres.task(STOP, std::future::pending()).await });
    // Earlier stops were told of as well.
    one.event("the fence's end", |event| matches!(event, Event::Exited { fenced: true, .. }).then_some(())).await;
    assert!(start.elapsed() < Duration::from_millis(2_900), "{:?}", start.elapsed());
    stop.abort();
}

#[tokio::test(flavor = "current_thread")]
async fn a_watchdog_is_armed_before_postgresql_is_writable() {
    let Some(tools) = Tools::find() else { return };
    let mut one = Member::with(&tools, "one", "", "}\nwatchdog: {mode: required, device: DIR/watchdog").await;
    one.task(Task::Initdb).await.unwrap();
    one.permit_ms(60_000);
    let refused = one.task(Task::StartPrimary { config: server(&[]) }).await;
    assert!(matches!(&refused, Err(TaskError::Forbidden(why)) if why.contains("watchdog")), "{refused:?}");
    let path = one.dir.join("watchdog");
    assert!(std::process::Command::new("mkfifo").args(["-m", "666"]).arg(&path).status().unwrap().success());
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut device = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
    let mut told = || {
        let mut bytes = [0; 100];
        let length = device.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    assert_eq!(told(), "1");
    one.permit_ms(60_000);
    until("a sign of life", || std::future::ready((told() == "1").then_some(()))).await;
    // A person is at the keyboard.
    one.postgres.configured(&serde_json::json!({"pause": true}), &[]);
    until("let go", || std::future::ready((told() == "V").then_some(()))).await;
    one.permit_ms(60_000);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(told(), "");
    one.postgres.configured(&serde_json::json!({"pause": false}), &[]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    one.permit_ms(60_000);
    until("taken again", || std::future::ready(told().starts_with('1').then_some(()))).await;
    one.task(STOP).await.unwrap();
    until("no reset is wanted", || std::future::ready(told().ends_with('V').then_some(()))).await;
    // A ttl that leaves no time between two renewals is none.
    one.postgres.configured(&serde_json::json!({"ttl": 6, "loop_wait": 2}), &[]);
    one.permit_ms(60_000);
    let refused = one.task(Task::StartPrimary { config: server(&[]) }).await;
    assert!(matches!(&refused, Err(TaskError::Forbidden(why)) if why.contains("safety_margin")), "{refused:?}");
}
