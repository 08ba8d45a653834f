//! Making data directories by commands of the user's: custom bootstrap to a point in time, its scripts, its failures, and
//! replica methods, with a real supervisor and a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod common;

use std::path::Path;

use common::{Member, Tools, server, until};
use matriarch_ha::effect::Task;
use matriarch_ha::event::{DataDir, TaskError};
use matriarch_ha::types::Timeline;
use matriarch_supervisor::protocol::Run;

const STOP: Task = Task::Stop { immediate: false, checkpoint: true, timeout_ms: 10_000 };

/// Takes `--datadir=X` and `--connstring=X` apart, and writes down all arguments.
const ARGUMENTS: &str = r#"for a in "$@"; do echo "$a" >> DIR/volume/arguments; case "$a" in
  --datadir=*) data="${a#*=}" ;; --connstring=*) conn="${a#*=}" ;; esac; done"#;

/// A primary with an archive in `volume/archive` and a base backup in `volume/backup`.
async fn archived(tools: &Tools) -> Member {
    let mut one = Member::new(tools, "one").await;
    one.task(Task::Initdb).await.unwrap();
    one.permit_ms(60_000);
    let archive = one.dir.join("volume/archive").display().to_string();
    let command = format!("mkdir -p {archive} && cp %p {archive}/%f");
    one.task(Task::StartPrimary { config: server(&[("archive_mode", "on"), ("archive_command", &command)]) })
        .await
        .unwrap();
    one.task(Task::PostBootstrap).await.unwrap();
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    let backup = one.dir.join("volume/backup").display().to_string();
    let source = format!(
        "host=127.0.0.1 port={} user=replicator passfile={}",
        one.port,
        one.dir.join("volume/conf/pgpass").display()
    );
    let args = ["-D", &backup, "-d", &source, "-X", "none", "--checkpoint=fast"].map(str::to_owned).to_vec();
    // It waits for the archive: what it has written is complete without WAL of its own.
    let run =
        Run { program: "pg_basebackup".into(), args, env: std::collections::BTreeMap::new(), stdin: String::new() };
    // The passfile is written with the first task that needs it.
    one.postgres
        .change(matriarch_ha::effect::Change::Configure(server(&[
            ("archive_mode", "on"),
            ("archive_command", &command),
        ])))
        .await
        .unwrap();
    let finished = one.supervisor.run(run).await.unwrap();
    assert!(finished.success(), "{finished:?}");
    one
}

fn failure(result: Result<(), TaskError>) -> String {
    match result {
        Err(TaskError::Hopeless(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_new_cluster_is_made_from_a_backup_up_to_a_target() {
    let Some(tools) = Tools::find() else { return };
    let one = archived(&tools).await;
    one.sql("INSERT INTO t VALUES (2)").await;
    one.sql("SELECT pg_create_restore_point('here')").await;
    one.sql("INSERT INTO t VALUES (3)").await;
    one.sql("SELECT pg_switch_wal()").await;
    one.task(STOP).await.unwrap(); // archives all

    let source = one.dir.join("volume").display().to_string();
    let bootstrap = format!(
        ", method: restore, post_bootstrap: 'DIR/post.sh first', restore: {{command: DIR/restore.sh, bucket: b,
            recovery_conf: {{restore_command: 'cp {source}/archive/%f %p', recovery_target_name: here,
                             recovery_target_action: promote}}}}"
    );
    let mut two = Member::with(&tools, "two", &bootstrap, "").await;
    std::fs::write(two.dir.join("secrets/superuser/password"), "another\n").unwrap();
    two.script("restore.sh", &format!("{ARGUMENTS}\ncp -a {source}/backup \"$data\""));
    two.script("post.sh", "echo \"$@\" > DIR/volume/post && psql -X -w -c 'CREATE TABLE made AS SELECT 1' \"$2\"");
    two.task(Task::Initdb).await.unwrap();
    let arguments = std::fs::read_to_string(two.dir.join("volume/arguments")).unwrap();
    let data_dir = two.dir.join("volume/pgdata").display().to_string();
    assert_eq!(arguments, format!("--scope=test\n--datadir={data_dir}\n--bucket=b\n"));
    // Not writable without a permit, as any primary.
    assert_eq!(two.task(Task::StartPrimary { config: server(&[]) }).await, Err(TaskError::NoPermit));
    two.permit_ms(60_000);
    // Also below what the backup's server had: raised.
    two.task(Task::StartPrimary { config: server(&[("max_connections", "20")]) }).await.unwrap();
    two.task(Task::PostBootstrap).await.unwrap();
    assert_eq!(two.sql("SELECT i FROM t ORDER BY 1").await, [[Some("1".to_owned())], [Some("2".to_owned())]]);
    let status = two.status().await;
    assert!(!status.in_recovery && status.timeline == Timeline(2), "{status:?}");
    assert_eq!(two.sql("SELECT count(*) FROM made").await, [[Some("1".to_owned())]]);
    let post = std::fs::read_to_string(two.dir.join("volume/post")).unwrap();
    assert!(post.starts_with("first postgres://postgres@") && !post.contains("another"), "{post}");
    assert!(!two.dir.join("volume/conf/pgpass.bootstrap").exists(), "no password is left");
    // The superuser has our password, and needs it from now on.
    until("scram", async || {
        let hba = std::fs::read_to_string(two.dir.join("volume/pgdata/pg_hba.conf")).unwrap();
        (!hba.contains("trust")).then_some(())
    })
    .await;
    std::fs::write(two.dir.join("secrets/superuser/password"), "wrong\n").unwrap();
    let refused = matriarch_sidecar::postgres::local::connect(&two.config, "postgres", "").await;
    assert!(refused.is_err(), "no password is asked for");
    std::fs::write(two.dir.join("secrets/superuser/password"), "another\n").unwrap();
    // A later start recovers to no target.
    two.task(STOP).await.unwrap();
    two.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    assert_eq!(two.status().await.timeline, Timeline(2));
    assert_eq!(two.status().await.pending_restart.len(), 0);
    // And a member of it can be copied as ever.
    two.task(STOP).await.unwrap();
}

/// `standby.signal` and settings that a tool left behind are kept, and recovery ends with the archive.
#[tokio::test(flavor = "current_thread")]
async fn recovery_settings_of_the_command_are_kept_where_asked() {
    let Some(tools) = Tools::find() else { return };
    let one = archived(&tools).await;
    one.sql("INSERT INTO t VALUES (2)").await;
    one.task(STOP).await.unwrap();
    let source = one.dir.join("volume").display().to_string();
    let bootstrap =
        ", method: restore, restore: {command: DIR/restore.sh DIR, no_params: true, keep_existing_recovery_conf: true}";
    let mut two = Member::with(&tools, "two", bootstrap, "").await;
    two.script(
        "restore.sh",
        &format!(
            "test $# = 1 && cp -a {source}/backup DIR/volume/pgdata && touch DIR/volume/pgdata/standby.signal &&
             echo \"restore_command = 'cp {source}/archive/%f %p'\" >> DIR/volume/pgdata/postgresql.auto.conf"
        ),
    );
    two.task(Task::Initdb).await.unwrap();
    two.permit_ms(60_000);
    two.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    until("the end of recovery", async || (!two.status().await.in_recovery).then_some(())).await;
    two.task(Task::PostBootstrap).await.unwrap();
    assert_eq!(two.sql("SELECT max(i) FROM t").await, [[Some("2".to_owned())]]);
    let auto = std::fs::read_to_string(two.dir.join("volume/pgdata/postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("restore_command"), "from now on the configuration is ours: {auto}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_failed_bootstrap_leaves_its_evidence() {
    let Some(tools) = Tools::find() else { return };
    let bootstrap = ", method: m, m: {command: DIR/make.sh}, post_init: DIR/post.sh";
    let mut one = Member::with(&tools, "one", bootstrap, "").await;
    let evidence = one.dir.join("volume/pgdata.failed");
    let kept = |name: &str| evidence.join(name).exists();
    assert!(failure(one.task(Task::Initdb).await).contains("make.sh"), "no such command");
    one.script(
        "make.sh",
        "mkdir DIR/volume/pgdata; touch DIR/volume/pgdata/half; echo 'ERROR: no such bucket' >&2; exit 3",
    );
    let why = failure(one.task(Task::Initdb).await);
    assert!(why.contains("code 3") && why.contains("no such bucket"), "{why}");
    assert!(kept("half"));
    assert_eq!(one.postgres.inspect().await, DataDir::Empty);
    one.script("make.sh", "mkdir DIR/volume/pgdata; touch DIR/volume/pgdata/nothing");
    assert!(failure(one.task(Task::Initdb).await).contains("left no data directory"));
    assert!(kept("nothing") && !kept("half"));
    // A cancelled one counts as empty, and is begun again.
    one.script("make.sh", "mkdir DIR/volume/pgdata; touch DIR/volume/pgdata/slow; sleep 100");
    let cancelled = one.postgres.task(Task::Initdb, tokio::time::sleep(std::time::Duration::from_millis(500))).await;
    assert_eq!(cancelled, Err(TaskError::Cancelled));
    assert!(Path::exists(&one.dir.join("volume/pgdata/slow")));
    assert_eq!(one.postgres.inspect().await, DataDir::Empty);

    one.script("make.sh", "initdb -D DIR/volume/pgdata -U postgres -A trust > /dev/null");
    one.script("post.sh", "echo 'could not make the tables' >&2; exit 1");
    one.task(Task::Initdb).await.unwrap();
    assert!(kept("slow"));
    one.permit_ms(60_000);
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    let why = failure(one.task(Task::PostBootstrap).await);
    assert!(why.contains("could not make the tables"), "{why}");
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    one.task(Task::MoveAside).await.unwrap();
    one.task(Task::MoveAside).await.unwrap(); // again: nothing is left to move, and nothing is lost
    assert!(kept("PG_VERSION"));
    assert_eq!(one.postgres.inspect().await, DataDir::Empty);
    // Once it is mended, it works.
    one.script("post.sh", "exit 0");
    one.task(Task::Initdb).await.unwrap();
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    one.task(Task::PostBootstrap).await.unwrap();
    assert!(!one.status().await.in_recovery);
}

#[tokio::test(flavor = "current_thread")]
async fn replicas_are_made_by_the_first_method_that_works() {
    let Some(tools) = Tools::find() else { return };
    let one = archived(&tools).await;
    let source = one.dir.join("volume").display().to_string();
    let methods = format!(
        ", recovery_conf: {{restore_command: 'cp {source}/archive/%f %p'}},
         create_replica_methods: [broken, fetch, basebackup], broken: {{command: DIR/broken.sh}},
         fetch: {{command: DIR/fetch.sh, keep_data: true, threshold: 10, no_leader: true}}, basebackup: [{{max-rate: 900M}}, verbose]"
    );
    let two = Member::with(&tools, "two", "", &methods).await;
    two.script("broken.sh", "mkdir -p DIR/volume/pgdata; touch DIR/volume/pgdata/broken; exit 1");
    two.script(
        "fetch.sh",
        &format!("{ARGUMENTS}\ntest -f \"$data/broken\" || exit 1; rm -r \"$data\"; cp -a {source}/backup \"$data\""),
    );
    two.task(one.copy(None)).await.unwrap();
    let arguments = std::fs::read_to_string(two.dir.join("volume/arguments")).unwrap();
    let wanted = format!("--connstring=postgres://replicator@one.invalid:{}/postgres?hostaddr=127.0.0.1\n", one.port);
    for argument in [&wanted, "--scope=test\n", "--role=replica\n", "--threshold=10\n", "--no_leader=true\n"] {
        assert!(arguments.contains(argument), "{argument} in {arguments}");
    }
    let mut config = server(&[]);
    config.recovery.insert("restore_command".into(), format!("cp {source}/archive/%f %p"));
    config.upstream = Some(one.upstream(None));
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    until("streaming", async || Some(two.status().await).filter(|status| status.streaming)).await;
    assert!(two.sql("SHOW restore_command").await[0][0].as_deref().unwrap().starts_with("cp "));

    // Where all commands fail, there is pg_basebackup.
    let three = Member::with(&tools, "three", "", &methods).await;
    three.script("broken.sh", "exit 1");
    three.script("fetch.sh", "exit 1");
    three.task(one.copy(None)).await.unwrap();
    assert!(matches!(three.postgres.inspect().await, DataDir::Present(data) if data.standby_signal));
    // A copy of a standby, which the leader vouches for.
    let four = Member::new(&tools, "four").await;
    let from_two = Task::BaseBackup { from: two.upstream(None), leader: one.upstream(None) };
    four.task(from_two).await.unwrap();
    let no_leader = Task::BaseBackup { from: two.upstream(None), leader: two.upstream(None) };
    let refused = four.task(no_leader).await;
    assert!(matches!(&refused, Err(TaskError::Failed(why)) if why.contains("no primary")), "{refused:?}");
    assert!(matches!(four.postgres.inspect().await, DataDir::Present(_)));

    // Without a leader, by the method that needs none.
    let five = Member::with(&tools, "five", "", &methods).await;
    five.script("fetch.sh", &format!("{ARGUMENTS}\ncp -a {source}/backup \"$data\""));
    five.task(Task::Restore).await.unwrap();
    assert!(std::fs::read_to_string(five.dir.join("volume/arguments")).unwrap().contains("--connstring=\n"));
    config.upstream = None;
    five.task(Task::StartStandby { config }).await.unwrap();
    until("the table", async || (five.status().await.in_recovery).then_some(())).await;
    for member in [two, five] {
        member.task(STOP).await.unwrap();
    }
}
