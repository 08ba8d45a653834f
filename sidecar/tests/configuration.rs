//! What the configuration makes of a real PostgreSQL: files, pending restarts and their reasons, standbys that need as much as their
//! primary, and the way back from a server to a configuration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Member, Tools, server, until};
use matriarch_ha::effect::{Change, ServerConfig, Task};
use matriarch_ha::event::Pending;
use matriarch_sidecar::commands::generate;
use matriarch_sidecar::config::Config;
use matriarch_sidecar::postgres::Postgres;
use serde_json::json;

const STOP: Task = Task::Stop { immediate: false, checkpoint: false, timeout_ms: 10_000 };

async fn primary(tools: &Tools, name: &str, config: ServerConfig) -> Member {
    let mut one = Member::new(tools, name).await;
    one.permit_ms(600_000);
    for task in [Task::Initdb, Task::StartPrimary { config }, Task::PostBootstrap] {
        one.task(task).await.unwrap();
    }
    one
}

async fn configure(member: &Member, config: &ServerConfig) {
    assert_eq!(member.postgres.change(Change::Configure(config.clone())).await, Ok(()));
}

async fn pending(member: &Member) -> Vec<(String, String, String)> {
    let all = member.status().await.pending_restart;
    all.into_iter().map(|(name, Pending { old_value, new_value })| (name, old_value, new_value)).collect()
}

fn waits(name: &str, old: &str, new: &str) -> Vec<(String, String, String)> {
    vec![(name.to_owned(), old.to_owned(), new.to_owned())]
}

async fn shown(member: &Member, name: &str) -> String {
    member.sql(&format!("SHOW {name}")).await[0][0].clone().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_restart_waits_with_its_reason_and_the_files_stand_on_their_own() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one", server(&[])).await;
    let pgdata = one.dir.join("volume/pgdata");
    // The same in another unit is no change; a name in any case is the parameter.
    configure(&one, &server(&[("shared_buffers", "16384kB"), ("DateStyle", "SQL, DMY")])).await;
    assert_eq!((pending(&one).await, shown(&one, "datestyle").await), (Vec::new(), "SQL, DMY".to_owned()));
    configure(&one, &server(&[("shared_buffers", "0.03125GB"), ("max_connections", "50")])).await;
    until("a restart is pending", async || (pending(&one).await.len() == 2).then_some(())).await;
    let all = [waits("max_connections", "40", "50"), waits("shared_buffers", "16MB", "32MB")].concat();
    assert_eq!(pending(&one).await, all);
    // Taken back, nothing waits any more.
    let mut config = server(&[]);
    config.pg_ident = vec!["people /^(.*)@example$ \\1".to_owned(), "x y\nz".to_owned()];
    config.pg_hba = vec!["host all all 127.0.0.1/32 scram-sha-256".to_owned()];
    configure(&one, &config).await;
    until("nothing is pending", async || pending(&one).await.is_empty().then_some(())).await;
    let ident = std::fs::read_to_string(pgdata.join("pg_ident.conf")).unwrap();
    assert!(ident.ends_with("people /^(.*)@example$ \\1\nx y z\n"), "{ident}");
    // The dynamic configuration is kept beside it.
    let dynamic = json!({"ttl": 20, "postgresql": {"parameters": {"max_connections": 40}}});
    one.postgres.keep_dynamic(&dynamic).await;
    assert_eq!(one.postgres.kept_dynamic().await, Some(dynamic));
    // An agent that is told another port reaches the server that runs, and says what waits.
    let mut document = one.config.document.clone();
    document["postgresql"]["listen"] = json!("127.0.0.1:1");
    let env = |name: &str| Some(if name == "POD_NAME" { "one".to_owned() } else { name.to_lowercase() });
    let moved = Arc::new(Config::parse(Path::new("moved.yml"), &document.to_string(), env).unwrap());
    let other = Postgres::new(moved, one.supervisor.clone());
    assert!(other.query(Duration::from_secs(2)).await.is_err());
    other.look_at_running().await;
    let waiting = other.query(Duration::from_secs(2)).await.unwrap().pending_restart;
    let port = Pending { old_value: one.port.to_string(), new_value: "1".into() };
    assert_eq!(waiting, BTreeMap::from([("port".to_owned(), port)]));
    one.task(STOP).await.unwrap();
    // Without us PostgreSQL finds the same in its files.
    for (name, value) in
        [("port", one.port.to_string()), ("max_connections", "40".into()), ("listen_addresses", "127.0.0.1".into())]
    {
        let args = ["-C", name, "-D", &pgdata.display().to_string()].map(ToOwned::to_owned).to_vec();
        let run = matriarch_supervisor::protocol::Run {
            program: "postgres".into(),
            args,
            env: BTreeMap::new(),
            stdin: String::new(),
        };
        let said = one.supervisor.run(run).await.unwrap();
        assert_eq!(said.output.stdout.trim(), value, "{name}: {}", said.output.stderr);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_standby_never_has_less_than_its_primary_in_either_direction() {
    let Some(tools) = Tools::find() else { return };
    let connections = |number: &'static str| server(&[("max_connections", number)]);
    let one = primary(&tools, "one", connections("60")).await;
    let two = Member::new(&tools, "two").await;
    two.task(one.copy(None)).await.unwrap();
    let follow = |number: &'static str| ServerConfig { upstream: Some(one.upstream(None)), ..connections(number) };
    // Lowered: the standby keeps what the primary has, says so, and a restart changes nothing before the primary's.
    two.task(Task::StartStandby { config: follow("40") }).await.unwrap();
    assert_eq!(
        (shown(&two, "max_connections").await, pending(&two).await),
        ("60".into(), waits("max_connections", "60", "40"))
    );
    configure(&one, &connections("40")).await;
    until("the primary waits", async || (pending(&one).await == waits("max_connections", "60", "40")).then_some(()))
        .await;
    one.task(STOP).await.unwrap();
    one.task(Task::StartPrimary { config: connections("40") }).await.unwrap();
    let now = one.sql("SELECT pg_current_wal_flush_lsn() - '0/0'").await[0][0].clone().unwrap().parse::<u64>().unwrap();
    until("it has replayed that", async || (two.status().await.replayed.0 >= now).then_some(())).await;
    two.task(STOP).await.unwrap();
    two.task(Task::StartStandby { config: follow("40") }).await.unwrap();
    assert_eq!((shown(&two, "max_connections").await, pending(&two).await), ("40".into(), Vec::new()));
    // Raised: the primary waits for a standby that has not been restarted, through a restart of its own.
    let limited = ServerConfig { limits: BTreeMap::from([("max_connections".into(), 40)]), ..connections("70") };
    configure(&one, &limited).await;
    assert_eq!(pending(&one).await, waits("max_connections", "40", "70"));
    one.task(STOP).await.unwrap();
    one.task(Task::StartPrimary { config: limited }).await.unwrap();
    assert_eq!(
        (shown(&one, "max_connections").await, pending(&one).await),
        ("40".into(), waits("max_connections", "40", "70"))
    );
    two.task(STOP).await.unwrap();
    two.task(Task::StartStandby { config: follow("70") }).await.unwrap();
    assert_eq!((shown(&two, "max_connections").await, pending(&two).await), ("70".into(), Vec::new()));
    configure(&one, &connections("70")).await;
    one.task(STOP).await.unwrap();
    one.task(Task::StartPrimary { config: connections("70") }).await.unwrap();
    assert_eq!((shown(&one, "max_connections").await, pending(&one).await), ("70".into(), Vec::new()));
}

#[tokio::test(flavor = "current_thread")]
async fn a_password_that_is_read_again_reaches_those_who_log_in() {
    let Some(tools) = Tools::find() else { return };
    let secret = |password: &str| {
        format!(
            ", authentication: {{superuser: {{password: one}}, replication: {{username: replicator, password: '{password}'}}}}"
        )
    };
    let mut one = Member::with(&tools, "one", "", &secret("former")).await;
    one.permit_ms(600_000);
    for task in [Task::Initdb, Task::StartPrimary { config: server(&[]) }, Task::PostBootstrap] {
        one.task(task).await.unwrap();
    }
    let two = Member::with(&tools, "two", "", &secret("former")).await;
    two.task(one.copy(None)).await.unwrap();
    let config = ServerConfig { upstream: Some(one.upstream(None)), ..server(&[]) };
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    until("it streams", async || two.status().await.streaming.then_some(())).await;
    // Somebody changes it in the database and in the file.
    one.sql("ALTER ROLE replicator PASSWORD 'latter'").await;
    let mut document = two.config.document.clone();
    document["postgresql"]["authentication"]["replication"]["password"] = json!("latter");
    two.postgres.reconfigure(Arc::new(two.config.with(&document).unwrap()));
    configure(&two, &config).await;
    let sender = async || one.sql("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'").await;
    let former = sender().await;
    one.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    until("it streams again", async || {
        let present = sender().await;
        (!present.is_empty() && present != former).then_some(())
    })
    .await;
    let passfile = std::fs::read_to_string(two.dir.join("volume/conf/pgpass")).unwrap();
    assert!(passfile.contains(":latter\n") && !passfile.contains("former"), "{passfile}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_configuration_is_made_from_a_server_that_runs() {
    let Some(tools) = Tools::find() else { return };
    let mut config = server(&[("work_mem", "7MB")]);
    config.pg_hba = vec!["host all all 127.0.0.1/32 scram-sha-256".to_owned()];
    let one = primary(&tools, "one", config).await;
    let who = one.config.credentials(matriarch_sidecar::config::User::Superuser).unwrap();
    let quoted = who.password.replace('\\', "\\\\").replace('\'', "\\'");
    let dsn = format!("host=127.0.0.1 port={} user={} password='{quoted}'", one.port, who.username);
    let text = generate::from_server(&dsn).await.unwrap();
    let document = matriarch_sidecar::config::value::yaml(&text).unwrap();
    assert_eq!(document["scope"], "test");
    let postgresql = &document["postgresql"];
    assert_eq!(postgresql["listen"], format!("127.0.0.1:{}", one.port));
    assert_eq!(postgresql["data_dir"], one.dir.join("volume/pgdata").display().to_string());
    assert_eq!(postgresql["authentication"]["superuser"]["password"], who.password);
    assert!(
        postgresql["pg_hba"].as_array().unwrap().iter().any(|line| line == "host all all 127.0.0.1/32 scram-sha-256")
    );
    let parameters = &document["bootstrap"]["dcs"]["postgresql"]["parameters"];
    assert_eq!((&parameters["work_mem"], &parameters["max_connections"]), (&json!("7MB"), &json!("40")));
    assert!(parameters.get("port").is_none() && parameters.get("cluster_name").is_none(), "{parameters}");
    // And it can be used.
    let path = one.dir.join("generated.yml");
    std::fs::write(&path, &text).unwrap();
    let grave: Vec<String> = matriarch_sidecar::config::validate::check(Some(&path), true)
        .iter()
        .filter(|finding| finding.grave)
        .map(ToString::to_string)
        .collect();
    assert_eq!(grave, Vec::<String>::new());
    let error = generate::from_server("host=127.0.0.1 port=1 user=x").await.unwrap_err().to_string();
    assert!(error.contains("--dsn"), "{error}");
}

/// `pg_ctl` as a person runs it on Debian, as the user of the data.
fn pg_ctl(tools: &Tools, bin_dir: &Path, member: &Member, arguments: &[&str]) {
    use std::os::unix::process::CommandExt;
    let log = std::fs::File::options().append(true).open(member.dir.join("log")).unwrap();
    let mut command = std::process::Command::new(bin_dir.join("pg_ctl"));
    command.args(["-D", &member.dir.join("volume/pgdata").display().to_string(), "-w"]).args(arguments);
    command.current_dir("/").stdout(log.try_clone().unwrap()).stderr(log);
    if rustix::process::getuid().is_root() {
        command.uid(tools.uid).gid(tools.gid);
    }
    assert!(command.status().unwrap().success(), "pg_ctl {arguments:?}\n{}", member.log());
}

#[tokio::test(flavor = "current_thread")]
async fn the_configuration_lies_anywhere() {
    let Some(tools) = Tools::find() else { return };
    let mut one = Member::with_config_dir(&tools, "one").await;
    one.permit_ms(600_000);
    let etc = one.dir.join("etc");
    // Debian's, from before there was an agent.
    std::fs::write(etc.join("postgresql.conf"), "work_mem = '5MB'\nvacuum_cost_limit = 300\n").unwrap();
    for task in [Task::Initdb, Task::StartPrimary { config: server(&[("work_mem", "7MB")]) }, Task::PostBootstrap] {
        one.task(task).await.unwrap();
    }
    let path = |name: &str| etc.join(name).display().to_string();
    for (name, value) in [
        ("config_file", path("postgresql.conf")),
        ("hba_file", path("pg_hba.conf")),
        ("ident_file", path("pg_ident.conf")),
        ("data_directory", one.dir.join("volume/pgdata").display().to_string()),
        ("work_mem", "7MB".to_owned()),
        ("vacuum_cost_limit", "300".to_owned()),
    ] {
        assert_eq!(shown(&one, name).await, value, "{name}");
    }
    assert!(std::fs::read_to_string(path("postgresql.base.conf")).unwrap().contains("5MB"));
    // A reload, and a restart.
    configure(&one, &server(&[("work_mem", "8MB")])).await;
    assert_eq!((shown(&one, "work_mem").await, pending(&one).await), ("8MB".into(), Vec::new()));
    let mut two = Member::with_config_dir(&tools, "two").await;
    two.permit_ms(600_000);
    two.task(one.copy(None)).await.unwrap();
    let follow = |upstream| ServerConfig { upstream: Some(upstream), ..server(&[("work_mem", "8MB")]) };
    let streams = async |member: &Member, of: &Member| {
        member.task(Task::StartStandby { config: follow(of.upstream(None)) }).await.unwrap();
        until("it streams", async || member.status().await.streaming.then_some(())).await;
        assert_eq!(shown(member, "config_file").await, member.dir.join("etc/postgresql.conf").display().to_string());
    };
    streams(&two, &one).await;
    two.task(STOP).await.unwrap();
    streams(&two, &one).await;
    // A former primary comes back by pg_rewind, which needs the configuration: nothing of it is in the data directory, as on Debian.
    one.sql("CREATE TABLE t AS SELECT 1 AS i").await;
    let lsn = one.status().await.flush;
    until("it has that", async || (two.status().await.replayed >= lsn).then_some(())).await;
    two.task(STOP).await.unwrap();
    one.sql("INSERT INTO t VALUES (2)").await;
    one.task(Task::Stop { immediate: true, checkpoint: false, timeout_ms: 5_000 }).await.unwrap();
    two.task(Task::StartStandby { config: server(&[]) }).await.unwrap();
    let timeline = two.status().await.timeline;
    two.task(Task::Promote { from: timeline, to: timeline }).await.unwrap();
    assert_eq!(two.postgres.change(Change::Checkpoint).await, Ok(()));
    std::fs::remove_file(one.dir.join("volume/pgdata/postgresql.conf")).unwrap();
    one.task(Task::Rewind { from: two.upstream(None), pg_rewind: true }).await.unwrap();
    streams(&one, &two).await;
    assert_eq!(one.sql("SELECT i FROM t").await, [[Some("1".to_owned())]]);
    // Made anew, it has the same configuration.
    one.task(STOP).await.unwrap();
    one.task(two.copy(None)).await.unwrap();
    streams(&one, &two).await;
    // Without us.
    let bin_dir = two.bin_dir();
    two.task(STOP).await.unwrap();
    pg_ctl(
        &tools,
        &bin_dir,
        &two,
        &["-o", &format!("-c config_file={}/etc/postgresql.conf", two.dir.display()), "start"],
    );
    assert_eq!(two.sql("SHOW hba_file").await[0][0].as_deref(), two.dir.join("etc/pg_hba.conf").to_str());
    pg_ctl(&tools, &bin_dir, &two, &["-m", "fast", "stop"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_folder_that_cannot_be_written_stops_nothing_and_another_one_waits_for_a_restart() {
    let Some(tools) = Tools::find() else { return };
    let mut one = Member::with_config_dir(&tools, "one").await;
    one.permit_ms(600_000);
    for task in [Task::Initdb, Task::StartPrimary { config: server(&[]) }, Task::PostBootstrap] {
        one.task(task).await.unwrap();
    }
    let (etc, away) = (one.dir.join("etc"), one.dir.join("away"));
    std::fs::rename(&etc, &away).unwrap();
    let refused = one.postgres.change(Change::Configure(server(&[("work_mem", "7MB")]))).await.unwrap_err();
    assert!(refused.contains(&etc.display().to_string()), "{refused}");
    assert!(!one.status().await.in_recovery, "it runs on");
    std::fs::rename(&away, &etc).unwrap();
    configure(&one, &server(&[("work_mem", "7MB")])).await;
    assert_eq!(shown(&one, "work_mem").await, "7MB");
    // An agent that was given another folder, or none, says that the server has another one until it is restarted.
    let mut document = one.config.document.clone();
    document["postgresql"]["config_dir"] = json!(null);
    let env = |name: &str| (name == "POD_NAME").then(|| "one".to_owned());
    let moved = Arc::new(Config::parse(Path::new("moved.yml"), &document.to_string(), env).unwrap());
    let waiting =
        Postgres::new(moved, one.supervisor.clone()).query(Duration::from_secs(20)).await.unwrap().pending_restart;
    let expected = Pending {
        old_value: etc.join("postgresql.conf").display().to_string(),
        new_value: one.dir.join("volume/pgdata/postgresql.conf").display().to_string(),
    };
    assert_eq!(waiting, BTreeMap::from([("config_file".to_owned(), expected)]));
}
