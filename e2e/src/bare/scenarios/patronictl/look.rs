//! Commands that only look.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bare::ctl::{Ctl, drawn, drawn_row};
use crate::bare::team::Team;

/// What a row of `list` has beside names and host, for a leader and for a standby.
const OF_LEADER: [(&str, &str); 2] = [("Role", "Leader"), ("State", "running")];
const OF_STANDBY: [(&str, &str); 4] =
    [("Role", "Quorum Standby"), ("State", "streaming"), ("Receive Lag", "0"), ("Replay Lag", "0")];

/// `list` in every format, and `topology`.
pub async fn members(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let leader = &team.leader().await?.name;
    let id = team.annotation("config", "initialize").await?.context("not initialized")?;
    let pretty = ctl.done(&["list"]).await?;
    ensure!(pretty.contains(&format!(" Cluster: {scope} ({id}) ")), "the title is wrong: {pretty}");
    for member in &team.members {
        let row = drawn_row(&pretty, &member.name)?;
        let wanted = if member.name == *leader { &OF_LEADER[..] } else { &OF_STANDBY[..] };
        for (column, value) in
            wanted.iter().copied().chain([("Host", member.address.to_string().as_str()), ("TL", "1")])
        {
            let found = row.get(column).map(String::as_str);
            ensure!(found == Some(value), "{column} of {} is {found:?} instead of {value}: {pretty}", member.name);
        }
        for column in ["Receive LSN", "Replay LSN"] {
            let shown = row.get(column).is_some_and(|lsn| lsn.contains('/'));
            ensure!(shown == (member.name != *leader), "{column} of {}: {pretty}", member.name);
        }
    }
    let extended = ctl.done(&["list", scope, "-e", "-t"]).await?;
    let first = extended.lines().next().unwrap_or_default();
    ensure!(first.parse::<jiff::civil::DateTime>().is_ok(), "-t begins with {first:?}");
    let header = drawn(&extended).into_iter().next().unwrap_or_default();
    for column in ["Pending restart", "Pending restart reason", "Scheduled restart", "Tags"] {
        ensure!(header.iter().any(|cell| cell == column), "-e does not show {column}: {extended}");
    }
    let json = ctl.list().await?;
    let yaml: Vec<Value> = serde_saphyr::from_str(&ctl.done(&["list", "--format", "yaml"]).await?)?;
    let tsv = ctl.done(&["list", "--format", "tsv"]).await?;
    ensure!(json.len() == 3 && yaml.len() == 3, "{json:?} {yaml:?}");
    for member in &team.members {
        let row = json.get(&member.name).with_context(|| format!("{} is not in {json:?}", member.name))?;
        let role = if member.name == *leader { "Leader" } else { "Quorum Standby" };
        ensure!(row["Role"] == role && row["Cluster"] == scope && row["TL"] == 1, "{row}");
        ensure!(yaml.iter().any(|other| other["Member"] == row["Member"] && other["Role"] == role), "{yaml:?}");
        let start = format!("{scope}\t{}\t{}\t{role}\t", member.name, member.address);
        ensure!(tsv.lines().any(|line| line.starts_with(&start)), "{tsv}");
    }
    let tree = ctl.done(&["topology", scope]).await?;
    let names: Vec<String> = drawn(&tree).into_iter().skip(1).filter_map(|row| row.into_iter().next()).collect();
    ensure!(names.first() == Some(leader) && names.len() == 3, "the leader is not at the top: {tree}");
    ensure!(names.iter().skip(1).all(|name| name.starts_with("+ ")), "no tree: {tree}");
    let nowhere = ctl.done(&["list", "nowhere"]).await?;
    ensure!(nowhere.contains(" Cluster: nowhere (uninitialized) ") && drawn(&nowhere).len() == 1, "{nowhere}");
    Ok(())
}

/// `version`, `dsn`, `query`, `history`, `show-config`.
pub async fn others(team: &Team<'_>, ctl: &Ctl) -> Result<()> {
    let scope = team.plan.name.as_str();
    let leader = team.leader().await?;
    let standby = team.standbys().await?[0];
    let server = leader.value("SHOW server_version").await?;
    let number = server.split(' ').next().unwrap_or_default().to_owned();
    ensure!(ctl.done(&["version"]).await?.starts_with("patronictl version 4.1."), "no version of its own");
    let versions = ctl.done(&["version", scope]).await?;
    for member in &team.members {
        let (start, end) = (format!("{}: Patroni 4.1.", member.name), format!(" PostgreSQL {number}"));
        ensure!(versions.lines().any(|line| line.starts_with(&start) && line.ends_with(&end)), "{versions}");
    }
    let one = ctl.done(&["version", scope, &standby.name]).await?;
    ensure!(one.contains(&standby.name) && !one.contains(&leader.name), "{one}");

    let dsn = ctl.done(&["dsn"]).await?;
    ensure!(dsn.trim() == format!("host={} port=5432", leader.address), "{dsn}");
    let dsn = ctl.done(&["dsn", scope, "-m", &standby.name]).await?;
    ensure!(dsn.trim() == format!("host={} port=5432", standby.address), "{dsn}");
    let dsn = ctl.done(&["dsn", scope, "-r", "replica"]).await?;
    ensure!(!dsn.contains(&format!("host={} ", leader.address)), "that is the leader: {dsn}");
    ctl.refuses(&["dsn", scope, "-m", "nobody"], "Can not find a suitable member").await?;
    ctl.refuses(&["dsn", scope, "-m", "nobody", "-r", "replica"], "--role and --member are mutually exclusive").await?;

    let who = "SELECT pg_is_in_recovery() AS standby, host(inet_server_addr()) AS address";
    let query = async |more: &[&str]| {
        let arguments = [&["query", scope, "-U", "postgres", "-d", "postgres"], more].concat();
        ctl.run(&arguments).await
    };
    let tsv = query(&["-c", who]).await?.out;
    ensure!(tsv.trim() == format!("standby\taddress\nFalse\t{}", leader.address), "{tsv:?}");
    let json: Value = serde_json::from_str(&query(&["-c", who, "-r", "replica", "--format", "json"]).await?.out)?;
    ensure!(json[0]["standby"] == true, "{json}");
    let of_one = query(&["-c", who, "-m", &standby.name, "--format", "yaml"]).await?.out;
    ensure!(of_one.contains(&standby.address.to_string()), "{of_one}");
    let wrong = query(&["-c", "SELECT 1/0"]).await?;
    ensure!(wrong.has("ERROR, SQLSTATE: 22012"), "{wrong:?}");
    let nothing = query(&[]).await?;
    ensure!(nothing.has("You need to specify either --command or --file"), "{nothing:?}");

    let header = drawn(&ctl.done(&["history", scope]).await?).into_iter().next().unwrap_or_default();
    ensure!(header == ["TL", "LSN", "Reason", "Timestamp", "New Leader"], "{header:?}");
    let config: Value = serde_saphyr::from_str(&ctl.done(&["show-config"]).await?)?;
    ensure!(config["ttl"] == 6 && config["postgresql"]["parameters"]["shared_buffers"] == "16MB", "{config}");
    Ok(())
}
