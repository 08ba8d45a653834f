//! How clusters and replicas are made by commands of the user's: from a backup up to a target, from a backup without a leader.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{FAILOVER, Play, logs};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::scenarios::Row;
use crate::workload::Promise;

/// A folder that belongs to PostgreSQL's user.
pub fn folder(stage: &Stage, name: &str) -> Result<PathBuf> {
    let folder = stage.root.join(name);
    fs::create_dir_all(&folder)?;
    chown(&folder, Some(stage.postgres.uid), Some(stage.postgres.gid))?;
    Ok(folder)
}

/// Parameters that archive into a folder.
pub fn archiving(archive: &Path) -> Value {
    let command = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.display());
    json!({"postgresql": {"parameters": {"archive_mode": "on", "archive_command": command}}})
}

/// A base backup of a member, complete with what the archive has.
fn backup(member: &Member, to: &Path) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(member.postgres.bin_dir.join("pg_basebackup"));
    let source = format!("host={} user=replicator password=rep-pass_%", member.address);
    command.args(["-D", &to.display().to_string(), "-d", &source, "-X", "none", "--checkpoint=fast"]);
    command.uid(member.postgres.uid).gid(member.postgres.gid).current_dir("/");
    let output = command.output()?;
    ensure!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A script that copies a backup to `--datadir=…`.
fn script(folder: &Path, backup: &Path) -> Result<PathBuf> {
    let file = folder.join("restore.sh");
    let text = format!(
        "#!/bin/sh\nset -e\nfor a in \"$@\"; do case \"$a\" in --datadir=*) data=\"${{a#*=}}\" ;; esac; done\n\
         mkdir -p \"$data\"\nchmod 700 \"$data\"\ncp -a {}/. \"$data\"/\n",
        backup.display()
    );
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

/// A new cluster is made from another one's backup and archive, up to a named moment; what came later is not there.
pub async fn point_in_time(stage: &Stage, row: &mut Row) -> Result<()> {
    let (archive, place) = (folder(stage, "pitr-archive")?, folder(stage, "pitr-backup")?);
    let plan = Plan { members: 1, first: 11, ..Plan::new("pitr-source") }.asynchronous().dcs(archiving(&archive));
    let source = Team::running(stage, plan).await?;
    let old = &source.members[0];
    let copy = place.join("base");
    backup(old, &copy)?;
    old.sql("CREATE TABLE moments AS SELECT 'before' AS name").await?;
    old.sql("SELECT pg_create_restore_point('here')").await?;
    old.sql("INSERT INTO moments VALUES ('after')").await?;
    old.sql("SELECT pg_switch_wal()").await?;
    old.terminate(Duration::from_secs(15)).await?;

    let command = script(&place, &copy)?;
    let recovery = json!({
        "restore_command": format!("cp {}/%f %p", archive.display()), "recovery_target_name": "here",
        "recovery_target_action": "promote", "recovery_target_timeline": "latest",
    });
    let custom = json!({"bootstrap": {"method": "from_backup", "initdb": null,
        "from_backup": {"command": command, "keep_existing_recovery_conf": false, "recovery_conf": recovery}}});
    let play = Play::begin(stage, Plan::new("pitr").file(custom)).await?;
    let leader = play.team.leader().await?;
    let rows = leader.sql("SELECT name FROM moments").await?.concat();
    ensure!(rows == ["before"], "after the recovery there is {rows:?}");
    let timeline = leader.status().await?["timeline"].clone();
    ensure!(timeline.as_u64() >= Some(2), "the recovery did not end on a timeline of its own: {timeline}");
    play.end(row, Promise::QUORUM).await
}

/// A member without data is restored from a backup while nobody leads, and follows when somebody does.
pub async fn replica_without_leader(stage: &Stage, row: &mut Row) -> Result<()> {
    let (archive, place) = (folder(stage, "replica-archive")?, folder(stage, "replica-backup")?);
    let copy = place.join("base");
    let command = script(&place, &copy)?;
    let methods = json!({"postgresql": {"create_replica_methods": ["from_backup", "basebackup"],
        "from_backup": {"command": command, "no_leader": true, "no_params": false},
        "parameters": {"restore_command": format!("cp {}/%f %p", archive.display())},
        "recovery_conf": {"restore_command": format!("cp {}/%f %p", archive.display())}}});
    let play =
        Play::begin(stage, Plan::new("replica-script").asynchronous().dcs(archiving(&archive)).dcs(methods)).await?;
    let team = &play.team;
    backup(team.leader().await?, &copy)?;
    let new = team.standbys().await?[0];
    for member in &team.members {
        member.kill_everything()?;
    }
    fs::remove_dir_all(new.data_dir())?;
    team.start(new)?;
    super::until(&format!("{} has data though nobody leads", new.name), STEADY, async || {
        Ok(if new.postmaster().is_ok() { Ok(()) } else { Err("no server".to_owned()) })
    })
    .await?;
    logs(new, "from_backup", FAILOVER).await?;
    team.start_all()?;
    play.end(row, Promise { keeps: false, ..Promise::QUORUM }).await
}
