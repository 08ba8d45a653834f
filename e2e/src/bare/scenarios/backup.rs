//! A backup tool as people use it: the real pgBackRest, with a repository in a folder. The configuration is that of `docs/pgbackrest.md`.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::making::folder;
use super::streams::has;
use super::{Play, logs};
use crate::bare::member::{Member, PASSWORD};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team, merge};
use crate::scenarios::Row;
use crate::workload::Promise;

/// Of all clusters here: the second one is made from the first one's backups.
const STANZA: &str = "orders";
const ROWS: &str = "SELECT string_agg(name, ',' ORDER BY name) FROM facts";

/// `pgbackrest.conf` of a member; on machines of their own all would have the same.
fn configure(stage: &Stage, member: &Member, repository: &Path) -> Result<String> {
    let folder = member.folder.display();
    for name in ["log", "lock", "spool"] {
        let path = member.folder.join(format!("backrest-{name}"));
        fs::create_dir_all(&path)?;
        chown(&path, Some(stage.postgres.uid), Some(stage.postgres.gid))?;
    }
    let file = member.folder.join("pgbackrest.conf");
    let text = format!(
        "[global]\nrepo1-path={}\nrepo1-retention-full=2\nlog-path={folder}/backrest-log\nlock-path={folder}/backrest-lock\n\
         spool-path={folder}/backrest-spool\nlog-level-console=info\nlog-level-file=off\nstart-fast=y\ncompress-type=lz4\n\n\
         [{STANZA}]\npg1-path={folder}/pgdata\npg1-socket-path={folder}\npg1-user=postgres\n",
        repository.display()
    );
    fs::write(&file, text)?;
    Ok(format!("/usr/bin/pgbackrest --config={} --stanza={STANZA}", file.display()))
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

/// A cluster archives and is backed up; another one is made from that up to a target, its replicas by restores; it archives on, and
/// the next replica comes from a backup that its own leader made.
pub async fn pgbackrest(stage: &Stage, row: &mut Row) -> Result<()> {
    if !stage.postgres.bin_dir.ends_with("15/bin") {
        row.skipped = Some("Debian's pgBackRest knows PostgreSQL up to 15".to_owned());
        return Ok(());
    }
    let repository = folder(stage, "pgbackrest-repository")?;
    let source =
        Team::new(stage, Plan { members: 1, first: 11, ..Plan::new("pgbackrest-source") }.asynchronous()).await?;
    let old = &source.members[0];
    let tool = configure(stage, old, &repository)?;
    let mut file = source.plan.patroni(old);
    merge(&mut file, postgresql(&tool));
    old.configure(&file)?;
    source.start_all()?;
    source.steady(STEADY).await?;
    run(old, &tool, "stanza-create").await?;
    old.sql("CREATE TABLE facts AS SELECT 'in the backup' AS name").await?;
    run(old, &tool, "backup").await?;
    old.sql("INSERT INTO facts VALUES ('in the archive')").await?;
    old.sql("SELECT pg_create_restore_point('here')").await?;
    old.sql("INSERT INTO facts VALUES ('too late')").await?;
    old.sql("SELECT pg_switch_wal()").await?;
    old.terminate(Duration::from_secs(30)).await?;

    let team = Team::new(stage, Plan::new("pgbackrest")).await?;
    for member in &team.members {
        let tool = configure(stage, member, &repository)?;
        let mut file = team.plan.patroni(member);
        merge(&mut file, postgresql(&tool));
        let recovery = json!({
            "restore_command": format!("{tool} --log-level-console=warn archive-get %f \"%p\""), "recovery_target_name": "here",
            "recovery_target_action": "promote", "recovery_target_timeline": "latest",
        });
        merge(
            &mut file,
            json!({"bootstrap": {"method": "pgbackrest", "initdb": null, "pgbackrest": {
                "command": format!("{tool} --delta restore"), "no_params": true,
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
        logs(member, "restore command end: completed successfully", STEADY).await?;
        ensure!(!member.logged().contains("pg_basebackup"), "{} was copied, not restored", member.name);
    }
    // What this cluster archives and backs up is as good.
    let tool = format!("/usr/bin/pgbackrest --config={}/pgbackrest.conf --stanza={STANZA}", leader.folder.display());
    leader.sql("INSERT INTO facts VALUES ('later')").await?;
    run(leader, &tool, "backup").await?;
    let standby = team.standbys().await?[0];
    standby.kill_everything()?;
    fs::remove_dir_all(standby.data_dir())?;
    fs::remove_file(standby.log())?;
    team.start(standby)?;
    team.steady(STEADY).await?;
    logs(standby, "restore command end: completed successfully", STEADY).await?;
    has(standby, ROWS, "in the archive,in the backup,later").await?;
    play.end(row, Promise::QUORUM).await
}
