//! How a cluster begins: with its WAL on a volume of its own, with SQL that runs once, as a copy of another server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::path::PathBuf;

use common::{Member, Tools, server, until};
use matriarch_ha::effect::Task;
use matriarch_ha::event::{DataDir, TaskError};
use matriarch_ha::types::Timeline;

const STOP: Task = Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 };
const CRASH: Task = Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 };

/// One whose section `matriarch` has more.
async fn member(tools: &Tools, name: &str, more: &str) -> Member {
    let member = Member::with_matriarch(tools, name, more).await;
    let wal = member.dir.join("volume-wal");
    std::fs::create_dir_all(&wal).unwrap();
    std::os::unix::fs::chown(&wal, Some(tools.uid), Some(tools.gid)).unwrap();
    member
}

async fn make(member: &mut Member) {
    member.permit_ms(600_000);
    for task in [Task::Initdb, Task::StartPrimary { config: server(&[]) }, Task::PostBootstrap] {
        member.task(task).await.unwrap();
    }
}

fn segments(member: &Member) -> usize {
    let names = std::fs::read_dir(member.dir.join("volume-wal/pg_wal")).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().len() == 24).count()
}

fn link(member: &Member) -> PathBuf {
    std::fs::read_link(member.dir.join("volume/pgdata/pg_wal")).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn the_wal_lies_on_a_volume_of_its_own() {
    let Some(tools) = Tools::find() else { return };
    let wal_dir = ", wal_dir: DIR/volume-wal/pg_wal";
    let mut one = member(&tools, "one", wal_dir).await;
    make(&mut one).await;
    assert_eq!(link(&one), one.dir.join("volume-wal/pg_wal"));
    assert!(segments(&one) > 0);
    one.sql_in("shop", "CREATE TABLE t AS SELECT 1 AS i").await;

    // A copy, and another after it: what was there is removed with the data.
    let mut two = member(&tools, "two", wal_dir).await;
    two.task(one.copy(None)).await.unwrap();
    let stale = two.dir.join("volume-wal/pg_wal/stale");
    std::fs::write(&stale, "").unwrap();
    two.task(one.copy(None)).await.unwrap();
    assert!(!stale.exists() && segments(&two) > 0 && link(&two) == two.dir.join("volume-wal/pg_wal"));
    let mut config = server(&[]);
    config.upstream = Some(one.upstream(None));
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    until("streaming", async || Some(two.status().await).filter(|status| status.streaming)).await;

    // The old primary, which has diverged, comes back by pg_rewind.
    one.task(CRASH).await.unwrap();
    two.permit_ms(600_000);
    two.task(Task::Promote { from: Timeline(1), to: Timeline(4) }).await.unwrap();
    two.sql_in("shop", "INSERT INTO t VALUES (2)").await;
    two.postgres.change(matriarch_ha::effect::Change::Checkpoint).await.unwrap();
    one.permit_ms(600_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    one.sql_in("shop", "INSERT INTO t VALUES (3)").await;
    one.task(CRASH).await.unwrap();
    one.task(Task::Rewind { from: two.upstream(None), pg_rewind: true }).await.unwrap();
    assert_eq!(link(&one), one.dir.join("volume-wal/pg_wal"));
    config.upstream = Some(two.upstream(None));
    one.task(Task::StartStandby { config }).await.unwrap();
    until("streaming again", async || Some(one.status().await).filter(|s| s.streaming && s.timeline == Timeline(4)))
        .await;

    // The volume of the WAL is lost: the directory is of no use, and a copy heals it.
    one.task(STOP).await.unwrap();
    std::fs::remove_dir_all(one.dir.join("volume-wal/pg_wal")).unwrap();
    let DataDir::Broken(why) = one.postgres.inspect().await else { panic!("it is not missed") };
    assert!(why.contains("volume-wal"), "{why}");
    one.task(two.copy(None)).await.unwrap();
    assert!(matches!(one.postgres.inspect().await, DataDir::Present(_)));
    // A new cluster never takes the folder of a directory that is there.
    let refused = one.task(Task::Initdb).await;
    assert!(matches!(&refused, Err(TaskError::Failed(why)) if why.contains("not empty")), "{refused:?}");
    assert!(segments(&one) > 0);
    two.task(STOP).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn sql_runs_once_and_a_copy_of_another_server_becomes_a_cluster_of_its_own() {
    let Some(tools) = Tools::find() else { return };
    let sql = r#", post_init_sql: ["CREATE TABLE made AS SELECT current_user::text AS who", "INSERT INTO made VALUES ('twice')"]"#;
    let mut one = member(&tools, "one", sql).await;
    make(&mut one).await;
    one.task(Task::PostBootstrap).await.unwrap(); // again: nothing changes
    assert_eq!(
        one.sql_in("shop", "SELECT string_agg(who, ',') FROM made").await[0][0].as_deref(),
        Some("postgres,twice")
    );

    // What fails makes the bootstrap fail, and says which statement.
    let mut bad = member(&tools, "bad", r#", post_init_sql: ["SELECT 1", "SELECT nothing_there"]"#).await;
    bad.permit_ms(600_000);
    bad.task(Task::Initdb).await.unwrap();
    bad.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    let failed = bad.task(Task::PostBootstrap).await;
    assert!(
        matches!(&failed, Err(TaskError::Hopeless(why)) if why.contains("statement 2") && why.contains("nothing_there")),
        "{failed:?}"
    );
    bad.task(CRASH).await.unwrap();

    // A copy.
    let more =
        format!(", wal_dir: DIR/volume-wal/pg_wal, clone: {{host: 127.0.0.1, port: {}, ssl_mode: disable}}", one.port);
    let mut two = member(&tools, "two", &more).await;
    let folder = two.dir.join("secrets/clone");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("username"), "replicator").unwrap();
    std::fs::write(folder.join("password"), "wrong").unwrap();
    std::fs::write(two.dir.join("secrets/superuser/password"), "its own").unwrap();
    let failed = two.task(Task::Initdb).await;
    assert!(matches!(&failed, Err(TaskError::Hopeless(why)) if why.contains("matriarch.clone")), "{failed:?}");
    std::fs::write(folder.join("password"), "replicator's pass:word\\").unwrap();
    make(&mut two).await;
    assert!(!two.dir.join("volume/conf/pgpass.clone").exists(), "no password is left");
    let status = two.status().await;
    assert!(!status.in_recovery && status.timeline == Timeline(2), "a timeline of its own: {status:?}");
    assert_eq!(two.sql_in("shop", "SELECT count(*) FROM made").await[0][0].as_deref(), Some("2"));
    assert_eq!(link(&two), two.dir.join("volume-wal/pg_wal"));
    two.sql_in("shop", "CREATE TABLE only_here AS SELECT 1").await;
    assert!(one.sql_in("shop", "SELECT 1 FROM pg_class WHERE relname = 'only_here'").await.is_empty());
    two.task(STOP).await.unwrap();
    one.task(STOP).await.unwrap();
}
