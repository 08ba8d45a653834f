//! Permanent slots on real PostgreSQL: moved along on a standby, and a logical one that survives a failover.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod common;

use common::{Member, Tools, server, until};
use matriarch_ha::effect::{Change, Task};
use matriarch_ha::event::ServerStatus;
use matriarch_ha::slots::{SlotKind, SlotPlan, SlotStatus};
use matriarch_ha::types::{Lsn, Timeline};

const STOP: Task = Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 };

fn logical() -> SlotKind {
    SlotKind::Logical { database: "shop".into(), plugin: "test_decoding".into() }
}

fn slot<'a>(status: &'a ServerStatus, name: &str) -> Option<&'a SlotStatus> {
    status.slots.iter().find(|slot| slot.name == name)
}

async fn read(member: &Member) -> String {
    let rows = member.sql_in("shop", "SELECT data FROM pg_logical_slot_get_changes('cdc', NULL, NULL)").await;
    rows.into_iter().filter_map(|row| row[0].clone()).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn a_logical_slot_survives_a_failover() {
    let Some(tools) = Tools::find() else { return };
    let parameters = [("wal_level", "logical"), ("hot_standby_feedback", "on")];
    let mut one = Member::new(&tools, "one").await;
    one.task(Task::Initdb).await.unwrap();
    one.permit_ms(120_000);
    one.task(Task::StartPrimary { config: server(&parameters) }).await.unwrap();
    one.task(Task::PostBootstrap).await.unwrap();
    let create = [
        ("two".to_owned(), SlotKind::Physical),
        ("early".to_owned(), logical()),
        ("bad".to_owned(), SlotKind::Logical { database: "nowhere".into(), plugin: "test_decoding".into() }),
    ];
    // One that cannot be made keeps no other from it.
    let made = one.postgres.change(Change::Slots(SlotPlan { create: create.into(), ..SlotPlan::default() })).await;
    assert!(made.unwrap_err().contains("nowhere"));
    one.sql_in("shop", "CREATE TABLE t (i int)").await;

    let mut two = Member::new(&tools, "two").await;
    two.task(one.copy(Some("two"))).await.unwrap();
    let mut config = server(&parameters);
    config.upstream = Some(one.upstream(Some("two")));
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    until("streaming", async || Some(two.status().await).filter(|status| status.streaming)).await;
    let copy = |names: &[&str]| Task::CopySlots {
        from: one.upstream(None),
        slots: names.iter().map(|name| (*name).to_owned()).collect(),
        config: config.clone(),
    };
    // Nothing to copy, or one that may decode WAL which never was here: nothing is stopped.
    let started = two.status().await.started;
    one.sql("CHECKPOINT").await;
    two.task(copy(&["none", "early"])).await.unwrap();
    assert_eq!(two.status().await.started, started);
    let create = [("cdc".to_owned(), logical())].into();
    one.postgres.change(Change::Slots(SlotPlan { create, ..SlotPlan::default() })).await.unwrap();
    one.sql("CHECKPOINT").await;
    // Where the leader does not keep for us what a copy needs, the copy is dropped: it would decode from catalogs that are gone.
    let unkept = Task::CopySlots {
        from: one.upstream(None),
        slots: vec!["cdc".to_owned()],
        config: {
            let mut config = config.clone();
            config.upstream = Some(one.upstream(None));
            config
        },
    };
    two.task(unkept).await.unwrap();
    assert_eq!(slot(&two.status().await, "cdc"), None);
    let mark = two.dir.join("volume/pgdata.copied-slots");
    assert!(!mark.exists());
    two.task(copy(&["cdc"])).await.unwrap();
    assert!(!mark.exists(), "it is proven");
    let kept = one.sql("SELECT catalog_xmin FROM pg_replication_slots WHERE slot_name = 'two'").await;
    assert!(kept[0][0].is_some(), "{kept:?}");
    let status = until("streaming again", async || Some(two.status().await).filter(|status| status.streaming)).await;
    assert_eq!(slot(&status, "cdc").unwrap().kind, logical());
    assert_ne!(status.started, started);

    // A consumer reads on the primary; the standby's slot is moved along.
    one.sql_in("shop", "INSERT INTO t VALUES (1)").await;
    assert!(read(&one).await.contains("integer]:1"));
    let at = slot(&one.status().await, "cdc").unwrap().lsn;
    until("replayed", async || (two.status().await.replayed >= at).then_some(())).await;
    let advance = vec![("cdc".to_owned(), logical(), at), ("gone".to_owned(), SlotKind::Physical, Lsn(1))];
    let moved = two.postgres.change(Change::Slots(SlotPlan { advance, ..SlotPlan::default() })).await;
    assert_eq!(moved, Ok(()));
    assert!(slot(&two.status().await, "cdc").unwrap().lsn >= at);
    // A physical slot can be made on a standby.
    let create = [("three".to_owned(), SlotKind::Physical)].into();
    two.postgres.change(Change::Slots(SlotPlan { create, ..SlotPlan::default() })).await.unwrap();
    assert!(slot(&two.status().await, "three").unwrap().lsn.0 > 0);

    // What was committed before the failover and not read is read after it, and nothing twice.
    one.sql_in("shop", "INSERT INTO t VALUES (2)").await;
    let end = one.status().await.flush;
    until("replayed", async || (two.status().await.replayed >= end).then_some(())).await;
    one.task(STOP).await.unwrap();
    // A copy whose agent died before it was proven is not there after the promotion.
    let create = [("odd".to_owned(), SlotKind::Physical)].into();
    two.postgres.change(Change::Slots(SlotPlan { create, ..SlotPlan::default() })).await.unwrap();
    std::fs::write(&mark, "odd\n").unwrap();
    two.permit_ms(60_000);
    two.task(Task::Promote { from: Timeline(1), to: Timeline(2) }).await.unwrap();
    assert_eq!(slot(&two.status().await, "odd"), None);
    two.sql_in("shop", "INSERT INTO t VALUES (3)").await;
    let changes = read(&two).await;
    assert!(changes.contains("integer]:2") && changes.contains("integer]:3"), "{changes}");
    assert!(!changes.contains("integer]:1"), "{changes}");
    let drop = vec!["cdc".to_owned(), "three".to_owned()];
    two.postgres.change(Change::Slots(SlotPlan { drop, ..SlotPlan::default() })).await.unwrap();
    assert_eq!(two.status().await.slots, []);
}
