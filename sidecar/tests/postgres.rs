//! A member's life with a real supervisor and a real PostgreSQL, by the tasks that the core orders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod common;

use std::time::{Duration, Instant};

use common::{Member, Tools, server, until};
use matriarch_ha::effect::{Change, Task};
use matriarch_ha::event::{DataDir, Event, QueryError, TaskError};
use matriarch_ha::slots::{SlotKind, SlotPlan};
use matriarch_ha::types::Timeline;

const STOP: Task = Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 };

fn slots(create: &[&str], drop: &[&str]) -> Change {
    Change::Slots(SlotPlan {
        create: create.iter().map(|name| ((*name).to_owned(), SlotKind::Physical)).collect(),
        drop: drop.iter().map(|name| (*name).to_owned()).collect(),
        ..SlotPlan::default()
    })
}

/// A new primary, ready for standbys.
async fn primary(tools: &Tools, name: &str) -> Member {
    let mut member = Member::new(tools, name).await;
    assert_eq!(member.postgres.inspect().await, DataDir::Empty);
    member.task(Task::Initdb).await.unwrap();
    member.permit_ms(60_000);
    member.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    member.task(Task::PostBootstrap).await.unwrap();
    member
}

#[tokio::test(flavor = "current_thread")]
async fn a_cluster_of_two_fails_over_and_comes_back() {
    let Some(tools) = Tools::find() else { return };
    let mut one = primary(&tools, "one").await;
    one.task(Task::PostBootstrap).await.unwrap(); // again: nothing changes
    assert!(one.postgres.change(slots(&["two", "old"], &[])).await.is_ok());
    assert_eq!(one.postgres.change(slots(&["two"], &["old"])).await, Ok(()));
    let status = one.status().await;
    assert!(!status.in_recovery && status.timeline == Timeline(1) && status.version >= 130_000, "{status:?}");
    assert_eq!(status.slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["two"]);
    assert!(status.system_id.len() > 10 && status.flush.0 > 0);
    one.sql_in("shop", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i").await;
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'";
    assert_eq!(one.sql(owner).await[0][0].as_deref(), Some("shop"));

    // A clone streams.
    let mut two = Member::new(&tools, "two").await;
    two.task(one.copy(Some("two"))).await.unwrap();
    let DataDir::Present(data) = two.postgres.inspect().await else { panic!() };
    assert!(data.standby_signal && data.system_id == status.system_id, "{data:?}");
    let below_the_primarys = ("max_connections", "20"); // raised
    let mut config = server(&[below_the_primarys, ("wal_receiver_status_interval", "1000s")]);
    config.upstream = Some(one.upstream(Some("two")));
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    let status = until("streaming", async || Some(two.status().await).filter(|status| status.streaming)).await;
    assert!(status.in_recovery && status.has_conninfo && status.timeline == Timeline(1), "{status:?}");
    assert_eq!(status.upstream.as_deref(), Some("one.invalid"));
    assert_eq!(two.postgres.change(Change::Configure(config.clone())).await, Ok(()));
    // It has what its primary has, and would get what it is told when that has no more either.
    assert!(two.status().await.pending_restart.keys().eq(["max_connections"]));

    // Synchronous replication, in force when the change is done.
    let mut sync = server(&[]);
    sync.sync_names = "ANY 1 (two)".into();
    let start = Instant::now();
    assert_eq!(one.postgres.change(Change::Configure(sync.clone())).await, Ok(()));
    eprintln!("configure took {} ms", start.elapsed().as_millis());
    let status = one.status().await;
    assert_eq!(status.sync_names, "ANY 1 (two)");
    assert_eq!((status.standbys[0].member.as_str(), status.standbys[0].sync_state.as_str()), ("two", "quorum"));
    // A commit that waits for others goes on as soon as one that has it counts, and not at that one's next report.
    let mut others = server(&[]);
    others.sync_names = "ANY 1 (three)".into();
    assert_eq!(one.postgres.change(Change::Configure(others)).await, Ok(()));
    let wait = async {
        one.sql_in("shop", "INSERT INTO t VALUES (0)").await;
        Instant::now()
    };
    let change = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        assert_eq!(one.postgres.change(Change::Configure(sync.clone())).await, Ok(()));
        begin
    };
    let (went, changed) = tokio::join!(wait, change);
    assert!(went > changed && went - changed < Duration::from_secs(1), "{:?}", went.checked_duration_since(changed));
    assert_eq!(one.postgres.change(Change::Configure(server(&[]))).await, Ok(()));

    // Failover: without a permit there is none, with one the old primary comes back by pg_rewind.
    assert_eq!(two.task(promote(1, 2)).await, Err(TaskError::NoPermit));
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    let clean = one.event("exit", |event| match event {
        Event::Exited { clean, .. } => Some(clean),
        _ => None,
    });
    eprintln!("clean: {}", clean.await);
    assert!(matches!(one.postgres.query(Duration::from_secs(1)).await, Err(QueryError::Failed(_))));
    two.permit_ms(60_000);
    // Somebody else may have made timelines 2 and 3: they are left out.
    two.task(promote(1, 4)).await.unwrap();
    two.task(promote(1, 4)).await.unwrap(); // the goal is met
    assert_eq!(two.status().await.timeline, Timeline(4));
    let history = two.postgres.history(Timeline(4)).await.unwrap();
    assert_eq!((history[0].timeline, history[0].reason.is_empty()), (Timeline(1), false), "{history:?}");
    let begun = history.last().and_then(|line| line.at.as_deref());
    assert!(history[0].lsn.0 > 0 && begun.is_some_and(|at| at.ends_with("+00:00")), "{history:?}");
    two.sql_in("shop", "INSERT INTO t VALUES (-1)").await;
    // The old primary goes on alone for a moment, so that the two diverge.
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    one.sql_in("shop", "INSERT INTO t VALUES (-2)").await;
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    assert_eq!(two.postgres.change(slots(&["one"], &[])).await, Ok(()));
    // The rewind waits for the new primary's checkpoint: before, pg_rewind would not see its timeline.
    let checkpoint = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        two.postgres.change(Change::Checkpoint).await
    };
    let rewind = one.task(Task::Rewind { from: two.upstream(Some("one")), pg_rewind: true });
    assert_eq!(tokio::join!(rewind, checkpoint), (Ok(()), Ok(())));
    let DataDir::Present(data) = one.postgres.inspect().await else { panic!() };
    assert!(data.standby_signal, "{data:?}");
    let mut config = server(&[]);
    config.upstream = Some(two.upstream(Some("one")));
    one.task(Task::StartStandby { config }).await.unwrap();
    let status = until("streaming again", async || Some(one.status().await).filter(|status| status.streaming)).await;
    assert_eq!(status.timeline, Timeline(4));
    let rows = until("the row of the new primary", async || {
        let rows = one.sql_in("shop", "SELECT i FROM t WHERE i < 0").await;
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows.await, [[Some("-1".to_owned())]]);
    // A standby's directory is never started as a primary.
    one.task(STOP).await.unwrap();
    one.task(STOP).await.unwrap(); // the goal is met
    let refused = one.task(Task::StartPrimary { config: server(&[]) }).await;
    assert!(matches!(&refused, Err(TaskError::Failed(why)) if why.contains("promotion")), "{refused:?}");
    two.task(STOP).await.unwrap();
}

fn promote(from: u32, to: u32) -> Task {
    Task::Promote { from: Timeline(from), to: Timeline(to) }
}

/// Two members promote at the same place without knowing of each other, as after a partition at the wrong moment. PostgreSQL would
/// give both the same timeline, pg_rewind would find nothing to do, and the loser would go on with a log that is not its own.
#[tokio::test(flavor = "current_thread")]
async fn two_promotions_at_the_same_place_are_told_apart() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one").await;
    let mut two = Member::new(&tools, "two").await;
    let mut three = Member::new(&tools, "three").await;
    for member in [&mut two, &mut three] {
        let name = member.name.clone();
        member.task(Task::BaseBackup { from: one.upstream(None), leader: one.upstream(None) }).await.unwrap();
        let mut config = server(&[]);
        config.upstream = Some(one.upstream(None));
        member.task(Task::StartStandby { config }).await.unwrap();
        until(&name, async || Some(member.status().await).filter(|status| status.streaming)).await;
    }
    one.task(STOP).await.unwrap();
    for member in [&mut two, &mut three] {
        member.permit_ms(60_000);
    }
    two.task(promote(1, 2)).await.unwrap();
    two.sql_in("shop", "CREATE TABLE of_two AS SELECT 1").await;
    three.task(promote(1, 3)).await.unwrap();
    three.sql_in("shop", "CREATE TABLE of_three AS SELECT 1").await;
    assert_eq!((two.status().await.timeline, three.status().await.timeline), (Timeline(2), Timeline(3)));
    assert_eq!(three.postgres.change(Change::Checkpoint).await, Ok(()));
    two.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    two.task(Task::Rewind { from: three.upstream(None), pg_rewind: true }).await.unwrap();
    let mut config = server(&[]);
    config.upstream = Some(three.upstream(None));
    two.task(Task::StartStandby { config }).await.unwrap();
    until("streaming", async || Some(two.status().await).filter(|status| status.streaming)).await;
    let tables = until("the table of the winner", async || {
        let tables = two.sql_in("shop", "SELECT relname::text FROM pg_class WHERE relname LIKE 'of\\_%'").await;
        (tables == [[Some("of_three".to_owned())]]).then_some(tables)
    });
    tables.await;
    two.task(STOP).await.unwrap();
    three.task(STOP).await.unwrap();
}

/// A standby follows its upstream's promotion by streaming; when that is gone as well, it still knows its timeline, although
/// its control file has not heard of it. Otherwise it would seem to be behind all others, whatever it has.
#[tokio::test(flavor = "current_thread")]
async fn a_standby_without_an_upstream_knows_its_timeline() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one").await;
    let mut two = Member::new(&tools, "two").await;
    let mut three = Member::new(&tools, "three").await;
    let mut config = server(&[]);
    for member in [&mut two, &mut three] {
        member.task(one.copy(None)).await.unwrap();
    }
    config.upstream = Some(one.upstream(None));
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    config.upstream = Some(two.upstream(None));
    three.task(Task::StartStandby { config }).await.unwrap();
    until("streaming", async || Some(three.status().await).filter(|status| status.streaming)).await;
    assert_eq!(three.status().await.timeline, Timeline(1));
    one.task(STOP).await.unwrap();
    two.permit_ms(60_000);
    two.task(promote(1, 2)).await.unwrap();
    two.sql_in("shop", "CREATE TABLE t AS SELECT 1").await;
    let on_two = async || Some(three.status().await).filter(|s| s.streaming && s.timeline == Timeline(2));
    until("streaming on timeline 2", on_two).await;
    two.task(STOP).await.unwrap();
    let status = until("alone", async || Some(three.status().await).filter(|status| !status.streaming)).await;
    assert_eq!(status.timeline, Timeline(2), "{status:?}");
    three.task(STOP).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn bad_parameters_break_nothing() {
    let Some(tools) = Tools::find() else { return };
    let mut one = Member::new(&tools, "one").await;
    one.task(Task::Initdb).await.unwrap();
    one.permit_ms(60_000);
    let bad = [("no_such_thing", "1"), ("work_mem", "lots"), ("max_connections", "-5"), ("a\nb", "1"), ("port", "1")];
    one.task(Task::StartPrimary { config: server(&bad) }).await.unwrap();
    let invalid = one.postgres.invalid_parameters();
    let names: Vec<&str> = invalid.keys().map(String::as_str).collect();
    assert_eq!(names, ["a\nb", "max_connections", "no_such_thing", "work_mem"], "{invalid:?}");
    assert!(invalid["no_such_thing"].contains("unrecognized"), "{invalid:?}");
    let also = server(&[("work_mem", "8MB"), ("statement_timeout", "soon"), ("my.setting", "x")]);
    assert_eq!(one.postgres.change(Change::Configure(also)).await, Ok(()));
    assert_eq!(one.postgres.invalid_parameters().len(), 1);
    until("the good one in force", async || {
        (one.sql("SHOW work_mem").await[0][0].as_deref() == Some("8MB")).then_some(())
    })
    .await;
    assert_eq!(one.sql("SHOW my.setting").await[0][0].as_deref(), Some("x"));
    // ALTER SYSTEM does not take what is ours.
    one.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    one.sql("SELECT pg_reload_conf()").await;
    let mut config = server(&[]);
    config.sync_names = String::new();
    assert_eq!(one.postgres.change(Change::Configure(config)).await, Ok(()));
    assert_eq!(one.status().await.sync_names, "");
    // The refused max_connections was left out at the start; the one that is wanted now needs a restart.
    until("pending restart", async || one.status().await.pending_restart.contains_key("max_connections").then_some(()))
        .await;
    one.task(STOP).await.unwrap();
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    assert_eq!(one.status().await.pending_restart.len(), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn a_cancelled_clone_leaves_nothing_running() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one").await;
    one.sql("CREATE TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 200000)").await;
    let two = Member::new(&tools, "two").await;
    let task = one.copy(None);
    let start = Instant::now();
    let result = two.postgres.task(task.clone(), tokio::time::sleep(Duration::from_millis(150))).await;
    assert_eq!(result, Err(TaskError::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(two.postgres.inspect().await, DataDir::Empty);
    two.task(task).await.unwrap();
    assert!(matches!(two.postgres.inspect().await, DataDir::Present(_)));
    let refused = two.task(Task::StartPrimary { config: server(&[]) }).await;
    assert!(matches!(&refused, Err(TaskError::Failed(_))), "{refused:?}");
    let nowhere = matriarch_ha::effect::Upstream { port: 1, ..one.upstream(None) };
    let failed = two.task(Task::BaseBackup { from: nowhere.clone(), leader: nowhere.clone() }).await;
    assert!(matches!(&failed, Err(TaskError::Failed(why)) if why.contains("refused")), "{failed:?}");
    // What is here stays as long as no leader says that it has another copy, and as long as the leader is none.
    let failed = two.task(Task::BaseBackup { from: one.upstream(None), leader: nowhere }).await;
    assert!(matches!(&failed, Err(TaskError::Failed(_))), "{failed:?}");
    let mut three = Member::new(&tools, "three").await;
    three.task(Task::Initdb).await.unwrap();
    three.permit_ms(60_000);
    three.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    three.task(Task::PostBootstrap).await.unwrap();
    let failed = two.task(three.copy(None)).await;
    assert!(matches!(&failed, Err(TaskError::Failed(why)) if why.contains("another cluster")), "{failed:?}");
    assert!(matches!(two.postgres.inspect().await, DataDir::Present(_)));
}

#[tokio::test(flavor = "current_thread")]
async fn a_crash_is_told_and_a_broken_rewind_is_remembered() {
    let Some(tools) = Tools::find() else { return };
    let mut one = primary(&tools, "one").await;
    let rewind = one.task(Task::Rewind { from: one.upstream(None), pg_rewind: true }).await;
    assert!(matches!(&rewind, Err(TaskError::Failed(why)) if why.contains("stopped")), "{rewind:?}");
    let pid = one.event("start", |event| match event {
        Event::Started { pid } => Some(pid),
        _ => None,
    });
    let pid = i32::try_from(pid.await).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let (clean, fenced) = one
        .event("exit", |event| match event {
            Event::Exited { clean, fenced, .. } => Some((clean, fenced)),
            _ => None,
        })
        .await;
    assert!(!clean && !fenced);
    one.postgres.forget_connection();
    assert!(one.postgres.query(Duration::from_secs(1)).await.is_err());
    // A source that cannot be reached changes nothing: the directory is still good.
    let failed = one
        .task(Task::Rewind { from: matriarch_ha::effect::Upstream { port: 1, ..one.upstream(None) }, pg_rewind: true })
        .await;
    assert!(matches!(failed, Err(TaskError::Failed(_))), "{failed:?}");
    assert!(matches!(one.postgres.inspect().await, DataDir::Present(_)));
    std::fs::write(one.dir.join("volume/pgdata.rewinding"), "two\n").unwrap();
    assert!(matches!(one.postgres.inspect().await, DataDir::Broken(why) if why.contains("two")));
    assert!(one.task(Task::StartPrimary { config: server(&[]) }).await.is_err());
}
