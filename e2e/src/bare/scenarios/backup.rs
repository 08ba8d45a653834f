//! A backup tool as people use it: the real pgBackRest, with a repository in a folder. The configuration is that of `docs/pgbackrest.md`.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Play;
use super::making::folder;
use super::streams::has;
use crate::bare::member::{Member, PASSWORD};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team, merge};
use crate::scenarios::Row;
use crate::workload::Promise;

/// Of the first cluster.
const OLD: &str = "orders";
/// Of the one that is made from its backups. Its own: in the old one's archive is WAL from after the target, which a restored replica
/// would replay.
const NEW: &str = "renewed";
const ROWS: &str = "SELECT string_agg(name, ',' ORDER BY name) FROM facts";

/// `pgbackrest.conf` of a member; on machines of their own all would have the same.
fn configure(stage: &Stage, member: &Member, repository: &Path) -> Result<()> {
    let folder = member.folder.display();
    for name in ["log", "lock", "spool"] {
        let path = member.folder.join(format!("backrest-{name}"));
        fs::create_dir_all(&path)?;
        chown(&path, Some(stage.postgres.uid), Some(stage.postgres.gid))?;
    }
    let file = member.folder.join("pgbackrest.conf");
    let text = format!(
        "[global]\nrepo1-path={}\nrepo1-retention-full=2\nlog-path={folder}/backrest-log\nlock-path={folder}/backrest-lock\n\
         spool-path={folder}/backrest-spool\nlog-level-console=info\nlog-level-file=info\nstart-fast=y\ncompress-type=lz4\n\n\
         [{OLD}]\n{server}\n[{NEW}]\n{server}",
        repository.display(),
        server = format!("pg1-path={folder}/pgdata\npg1-socket-path={folder}\npg1-user=postgres\n"),
    );
    Ok(fs::write(&file, text)?)
}

fn tool(member: &Member, stanza: &str) -> String {
    format!("/usr/bin/pgbackrest --config={}/pgbackrest.conf --stanza={stanza}", member.folder.display())
}

/// Fails where its data did not come from a restore of this stanza.
fn restored(member: &Member, stanza: &str) -> Result<()> {
    let log = fs::read_to_string(member.folder.join(format!("backrest-log/{stanza}-restore.log"))).unwrap_or_default();
    ensure!(log.contains("restore command end: completed successfully"), "{} was not restored: {log}", member.name);
    Ok(())
}

/// Archives to the repository, restores from it, and makes replicas of it.
fn postgresql(pgbackrest: &str) -> Value {
    let get = format!("{pgbackrest} --log-level-console=warn archive-get %f \"%p\"");
    json!({"postgresql": {
        "parameters": {
            "archive_mode": "on", "archive_timeout": "60s",
            "archive_command": format!("{pgbackrest} --log-level-console=warn archive-push \"%p\""),
        },
        "recovery_conf": {"restore_command": get},
        "create_replica_methods": ["pgbackrest", "basebackup"],
        "pgbackrest": {"command": format!("{pgbackrest} --delta --type=standby restore"), "keep_data": true, "no_params": true},
    }})
}

/// A command of pgBackRest's, as PostgreSQL's user.
async fn run(member: &Member, pgbackrest: &str, command: &str) -> Result<()> {
    let mut words = pgbackrest.split(' ');
    let mut process = Command::new(words.next().unwrap_or_default());
    process.args(words).arg(command).env("PGPASSWORD", PASSWORD).current_dir("/");
    process.uid(member.postgres.uid).gid(member.postgres.gid);
    let output = tokio::task::spawn_blocking(move || process.output()).await??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbackrest {command}: {out} {err}");
    Ok(())
}

/// A cluster archives and is backed up; another one is made from that up to a target; it archives on for itself, and a replica is made
/// from the backup of its own leader.
pub async fn pgbackrest(stage: &Stage, row: &mut Row) -> Result<()> {
    if !stage.postgres.bin_dir.ends_with("15/bin") {
        row.skipped = Some("Debian's pgBackRest knows PostgreSQL up to 15".to_owned());
        return Ok(());
    }
    let repository = folder(stage, "pgbackrest-repository")?;
    let source =
        Team::new(stage, Plan { members: 1, first: 11, ..Plan::new("pgbackrest-source") }.asynchronous()).await?;
    let old = &source.members[0];
    configure(stage, old, &repository)?;
    let backrest = tool(old, OLD);
    let mut file = source.plan.patroni(old);
    merge(&mut file, postgresql(&backrest));
    old.configure(&file)?;
    source.start_all()?;
    source.steady(STEADY).await?;
    run(old, &backrest, "stanza-create").await?;
    old.sql("CREATE TABLE facts AS SELECT 'in the backup' AS name").await?;
    run(old, &backrest, "backup").await?;
    old.sql("INSERT INTO facts VALUES ('in the archive')").await?;
    old.sql("SELECT pg_create_restore_point('here')").await?;
    old.sql("INSERT INTO facts VALUES ('too late')").await?;
    old.sql("SELECT pg_switch_wal()").await?;
    old.terminate(Duration::from_secs(30)).await?;

    let team = Team::new(stage, Plan::new("pgbackrest")).await?;
    for member in &team.members {
        configure(stage, member, &repository)?;
        let mut file = team.plan.patroni(member);
        merge(&mut file, postgresql(&tool(member, NEW)));
        let backrest = tool(member, OLD);
        let recovery = json!({
            "restore_command": format!("{backrest} --log-level-console=warn archive-get %f \"%p\""), "recovery_target_name": "here",
            "recovery_target_action": "promote", "recovery_target_timeline": "latest",
        });
        merge(
            &mut file,
            json!({"bootstrap": {"method": "pgbackrest", "initdb": null, "pgbackrest": {
                "command": format!("{backrest} --delta restore"), "no_params": true,
                "keep_existing_recovery_conf": false, "recovery_conf": recovery,
            }}}),
        );
        member.configure(&file)?;
    }
    team.start_all()?;
    team.steady(STEADY * 2).await?;
    let play = Play::on(team).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    for member in &team.members {
        has(member, ROWS, "in the archive,in the backup").await?;
        ensure!(!member.logged().contains("pg_controldata: "), "pg_controldata complained at {}", member.name);
    }
    restored(leader, OLD)?;
    // From its own first backup on replicas are restored as well; before, there was nothing, and the next method was tried.
    let backrest = tool(leader, NEW);
    run(leader, &backrest, "stanza-create").await?;
    run(leader, &backrest, "backup").await?;
    leader.sql("INSERT INTO facts VALUES ('later')").await?;
    let standby = team.standbys().await?[0];
    standby.kill_everything()?;
    fs::remove_dir_all(standby.data_dir())?;
    team.start(standby)?;
    team.steady(STEADY).await?;
    restored(standby, NEW)?;
    has(standby, ROWS, "in the archive,in the backup,later").await?;
    play.end(row, Promise::QUORUM).await
}
