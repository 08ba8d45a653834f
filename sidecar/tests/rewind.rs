//! Former primaries come back: compared over the replication protocol, rewound only where they have left the leader's history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod common;

use common::{Member, Tools, server, until};
use matriarch_ha::effect::{Change, Task};
use matriarch_ha::event::{DataDir, TaskError};
use matriarch_ha::types::Timeline;

const STOP: Task = Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 };

async fn primary(tools: &Tools, name: &str, postgresql: &str, parameters: &[(&str, &str)]) -> Member {
    let mut member = Member::with(tools, name, "", postgresql).await;
    member.task(Task::Initdb).await.unwrap();
    member.permit_ms(120_000);
    member.task(Task::StartPrimary { config: server(parameters) }).await.unwrap();
    member.task(Task::PostBootstrap).await.unwrap();
    member
}

async fn standby(tools: &Tools, name: &str, of: &Member) -> Member {
    let mut member = Member::new(tools, name).await;
    member.permit_ms(120_000);
    member.task(of.copy(None)).await.unwrap();
    follow(&member, of).await;
    member
}

async fn follow(member: &Member, of: &Member) {
    let mut config = server(&[]);
    config.upstream = Some(of.upstream(None));
    member.task(Task::StartStandby { config }).await.unwrap();
    until("streaming", async || Some(member.status().await).filter(|status| status.streaming)).await;
}

async fn caught_up(member: &Member, with: &Member) {
    let lsn = with.status().await.flush;
    until("caught up", async || (member.status().await.replayed >= lsn).then_some(())).await;
}

fn rewind(from: &Member, pg_rewind: bool) -> Task {
    Task::Rewind { from: from.upstream(None), pg_rewind }
}

async fn promote(member: &Member) {
    let timeline = member.status().await.timeline;
    member.task(Task::Promote { from: timeline, to: timeline }).await.unwrap();
    member.postgres.change(Change::Checkpoint).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn who_has_not_left_the_leaders_history_needs_no_pg_rewind() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one", "", &[]).await;
    let two = standby(&tools, "two", &one).await;
    let three = standby(&tools, "three", &one).await;
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    for member in [&two, &three] {
        caught_up(member, &one).await;
    }
    // Nothing is rewound from a server that is no primary.
    three.task(STOP).await.unwrap();
    let refused = three.task(rewind(&two, true)).await;
    assert!(matches!(&refused, Err(TaskError::Failed(why)) if why.contains("no primary")), "{refused:?}");
    // A clean switchover: the shutdown checkpoint reached the new primary.
    one.task(STOP).await.unwrap();
    promote(&two).await;
    two.sql("INSERT INTO t VALUES (2)").await;
    for member in [&one, &three] {
        member.task(rewind(&two, false)).await.unwrap();
        assert!(!member.dir.join("volume/pgdata.rewinding").exists());
        follow(member, &two).await;
        caught_up(member, &two).await;
        assert_eq!(member.status().await.timeline, Timeline(2));
        assert_eq!(member.sql("SELECT count(*) FROM t").await, [[Some("2".to_owned())]]);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn who_has_left_it_is_told_apart() {
    let Some(tools) = Tools::find() else { return };
    let mut one = primary(&tools, "one", "", &[]).await;
    let two = standby(&tools, "two", &one).await;
    let three = standby(&tools, "three", &one).await;
    caught_up(&two, &one).await;
    two.task(STOP).await.unwrap();
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    caught_up(&three, &one).await;
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    three.task(STOP).await.unwrap();
    // The one that was behind leads: primary and standby have what it has not.
    two.task(Task::StartStandby { config: server(&[]) }).await.unwrap();
    promote(&two).await;
    for member in [&one, &three] {
        let refused = member.task(rewind(&two, false)).await;
        assert!(
            matches!(&refused, Err(TaskError::Hopeless(why)) if why.contains("use_pg_rewind is off")),
            "{refused:?}"
        );
        assert!(matches!(member.postgres.inspect().await, DataDir::Present(_)), "nothing was touched");
    }
    // Another primary that makes a timeline of the same number: pg_rewind does not see it.
    one.permit_ms(60_000);
    one.task(Task::StartStandby { config: server(&[]) }).await.unwrap();
    promote(&one).await;
    one.sql("INSERT INTO t VALUES (2)").await;
    one.task(STOP).await.unwrap();
    let refused = one.task(rewind(&two, true)).await;
    assert!(matches!(&refused, Err(TaskError::Hopeless(_))), "{refused:?}");
    assert!(one.task(Task::StartStandby { config: server(&[]) }).await.is_err(), "it must not follow");
    // The standby is rewound.
    three.task(rewind(&two, true)).await.unwrap();
    follow(&three, &two).await;
    assert_eq!(three.sql("SELECT to_regclass('t')::text").await, [[None]]);
}

/// What waited for the archiver is archived first, and what pg_wal has lost comes from the archive.
#[tokio::test(flavor = "current_thread")]
async fn the_archive_is_filled_before_and_used_for_a_rewind() {
    let Some(tools) = Tools::find() else { return };
    let archive = "recovery_conf: {restore_command: 'cp DIR/volume/archive/%f %p'},
        parameters: {archive_mode: 'on', archive_command: 'mkdir -p DIR/volume/archive && cp %p DIR/volume/archive/%f'}";
    let parameters = [("archive_mode", "on"), ("archive_command", "false")];
    let mut one = primary(&tools, "one", &format!(", {archive}"), &parameters).await;
    let two = standby(&tools, "two", &one).await;
    caught_up(&two, &one).await;
    two.task(STOP).await.unwrap();
    two.task(Task::StartStandby { config: server(&[]) }).await.unwrap();
    promote(&two).await;
    // The old primary goes on alone.
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    let segment = one.sql("SELECT pg_walfile_name(pg_current_wal_lsn())").await[0][0].clone().unwrap();
    one.sql("SELECT pg_switch_wal()").await;
    one.sql("INSERT INTO t VALUES (2)").await;
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&parameters) }).await.unwrap();
    one.sql("CHECKPOINT").await;
    one.task(Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 }).await.unwrap();
    let wal = one.dir.join("volume/pgdata/pg_wal");
    assert!(wal.join(format!("archive_status/{segment}.ready")).exists());
    // Once with what is here: the segment is archived on the way.
    let away = one.dir.join("volume/away");
    let copied = std::process::Command::new("cp").arg("-a").arg(one.dir.join("volume/pgdata")).arg(&away).status();
    assert!(copied.unwrap().success());
    one.task(rewind(&two, true)).await.unwrap();
    assert!(one.dir.join("volume/archive").join(&segment).exists());
    // Once more, with the segment gone from pg_wal: it comes from there.
    std::fs::remove_dir_all(one.dir.join("volume/pgdata")).unwrap();
    std::fs::rename(&away, one.dir.join("volume/pgdata")).unwrap();
    std::fs::rename(
        wal.join(format!("archive_status/{segment}.ready")),
        wal.join(format!("archive_status/{segment}.done")),
    )
    .unwrap();
    std::fs::remove_file(wal.join(&segment)).unwrap();
    one.task(rewind(&two, true)).await.unwrap();
    follow(&one, &two).await;
    assert_eq!(one.sql("SELECT to_regclass('t')::text").await, [[None]]);
}

/// What the leader of a standby cluster asks while it runs, when nothing comes from the server that it follows.
#[tokio::test(flavor = "current_thread")]
async fn a_running_standby_is_told_when_its_log_has_parted_from_its_source() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one", "", &[]).await;
    let two = standby(&tools, "two", &one).await;
    let three = standby(&tools, "three", &one).await;
    let compare = |from: &Member| Task::Compare { from: from.upstream(None) };
    two.task(compare(&one)).await.unwrap();
    for member in [&two, &three] {
        caught_up(member, &one).await;
    }
    // The source has a failover that loses the end of our log.
    two.task(STOP).await.unwrap();
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    caught_up(&three, &one).await;
    one.task(STOP).await.unwrap();
    let away = three.task(compare(&one)).await;
    assert!(matches!(&away, Err(TaskError::Failed(_))), "{away:?}");
    two.task(Task::StartStandby { config: server(&[]) }).await.unwrap();
    promote(&two).await;
    let parted = three.task(compare(&two)).await;
    assert!(matches!(&parted, Err(TaskError::Hopeless(why)) if why.contains("timeline 1")), "{parted:?}");
    assert!(three.status().await.in_recovery, "it runs on");
}
