//! Who streams from whom: clusters that follow others; how long a commit waits for a standby; commands and devices that are told.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{FAILOVER, Play};
use crate::bare::member::Member;
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team, merge};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// Waits until `of` streams to exactly these.
pub async fn streams_to(of: &Member, names: &[&str]) -> Result<()> {
    let sql = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1";
    until(&format!("{} streams to {names:?}", of.name), STEADY, async || {
        let found = of.sql(sql).await?.concat();
        Ok(if found == names { Ok(()) } else { Err(format!("{found:?}")) })
    })
    .await
}

/// A whole cluster follows another one, is promoted, and follows again; its members stream from its own leader.
pub async fn standby_cluster(stage: &Stage, row: &mut Row) -> Result<()> {
    let source =
        Team::running(stage, Plan { members: 1, first: 11, ..Plan::new("standby-cluster-source") }.asynchronous())
            .await?;
    let main = &source.members[0];
    main.sql("CREATE TABLE facts AS SELECT 1 AS n").await?;
    let follows = json!({"standby_cluster": {"host": main.address.to_string(), "port": 5432, "create_replica_methods": ["basebackup"]}});
    let team = Team::running(stage, Plan::new("standby-cluster").asynchronous().dcs(follows.clone())).await?;
    let leader = team.leader().await?;
    let role = leader.status().await?["role"].clone();
    ensure!(role == "standby_leader", "the leader of a standby cluster is {role}");
    streams_to(main, &[&leader.name]).await?;
    let others: Vec<&str> =
        team.members.iter().map(|one| one.name.as_str()).filter(|name| *name != leader.name).collect();
    streams_to(leader, &others).await?;
    main.sql("INSERT INTO facts VALUES (2)").await?;
    for member in &team.members {
        has(member, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1,2").await?;
    }
    // Its own failover.
    leader.kill_everything()?;
    until("another standby leader follows", FAILOVER, async || {
        let new = team.leader().await?;
        let role = new.status().await?["role"].clone();
        Ok(if new.name != leader.name && role == "standby_leader" {
            Ok(())
        } else {
            Err(format!("{} is {role}", new.name))
        })
    })
    .await?;
    team.start(leader)?;
    team.steady(STEADY).await.context("after its own failover")?;
    // Promoted as a whole.
    team.edit_config(json!({"standby_cluster": Value::Null})).await?;
    let new = team.leader().await?;
    until("it is a primary", FAILOVER, async || {
        let role = new.status().await?["role"].clone();
        Ok(if role == "primary" { Ok(()) } else { Err(format!("{role}")) })
    })
    .await?;
    new.sql("INSERT INTO facts VALUES (3)").await?;
    team.steady(STEADY).await.context("after the promotion")?;
    // And demoted: what it wrote alone goes, what the other wrote comes.
    main.sql("INSERT INTO facts VALUES (4)").await?;
    team.edit_config(follows).await?;
    until("it follows again", STEADY, async || {
        let role = team.leader().await?.status().await?["role"].clone();
        Ok(if role == "standby_leader" { Ok(()) } else { Err(format!("{role}")) })
    })
    .await?;
    for member in &team.members {
        has(member, "SELECT string_agg(n::text, ',' ORDER BY n) FROM facts", "1,2,4").await?;
    }
    team.steady(STEADY).await.context("after the demotion")?;
    row.note("no clients");
    Ok(())
}

/// Waits until a statement says this.
pub async fn has(member: &Member, sql: &str, wanted: &str) -> Result<()> {
    until(&format!("{} has {wanted}", member.name), STEADY, async || {
        let found = member.value(sql).await?;
        Ok(if found == wanted { Ok(()) } else { Err(found) })
    })
    .await
}

/// Priority-based and strict: commits wait for the named standby, another takes its place, and without any nobody is told that a
/// commit is done.
pub async fn strict(stage: &Stage, row: &mut Row) -> Result<()> {
    let plan = Plan::new("strict").dcs(json!({"synchronous_mode": true, "synchronous_mode_strict": true}));
    let play = Play::begin(stage, plan).await?;
    let team = &play.team;
    let named = async || team.annotation("sync", "sync_standby").await.map(Option::unwrap_or_default);
    let first = until("a standby is named", STEADY, async || {
        let name = named().await?;
        Ok(if name.is_empty() { Err("none".to_owned()) } else { Ok(name) })
    })
    .await?;
    team.member(&first)?.kill_everything()?;
    let second = until("another one is named", STEADY, async || {
        let name = named().await?;
        Ok(if name.is_empty() || name == first { Err(name) } else { Ok(name) })
    })
    .await?;
    play.workload.writable(FAILOVER).await?;
    team.member(&second)?.kill_everything()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let from = clock::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    if let Some(told) = play.workload.history().last(|one| one.sent > from) {
        bail!("a commit was acknowledged without a synchronous standby: {told}");
    }
    team.start(team.member(&second)?)?;
    play.workload.writable(STEADY).await?;
    // The leader goes: the named one has all.
    let old = team.leader().await?;
    let heir = until("a standby is named again", STEADY, async || {
        let name = named().await?;
        Ok(if name.is_empty() { Err("none".to_owned()) } else { Ok(name) })
    })
    .await?;
    old.kill_everything()?;
    let new = team.other_leader(&old.name, FAILOVER).await?;
    ensure!(new.name == heir, "{} leads, although {heir} is the synchronous standby", new.name);
    team.start(old)?;
    team.start(team.member(&first)?)?;
    play.end(row, Promise::QUORUM).await
}

/// Commands are called for what happens, and a watchdog hears of every renewal.
pub async fn callbacks_and_watchdog(stage: &Stage, row: &mut Row) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
    let team = Team::new(stage, Plan::new("callbacks")).await?;
    let mut pipes = Vec::new();
    for member in &team.members {
        let (script, calls) = (member.folder.join("callback.sh"), member.folder.join("calls"));
        std::fs::write(&script, format!("#!/bin/sh\necho \"$@\" >> {}\n", calls.display()))?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        let device = member.folder.join("watchdog");
        crate::host::run::run(&["mkfifo", &device.display().to_string()])?;
        chown(&device, Some(stage.postgres.uid), Some(stage.postgres.gid))?;
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        pipes.push(std::fs::File::options().read(true).custom_flags(flags).open(&device)?);
        let names = ["on_start", "on_stop", "on_role_change", "on_reload", "on_restart"];
        let callbacks: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!(script))).collect();
        let mut file = team.plan.patroni(member);
        merge(
            &mut file,
            json!({"postgresql": {"callbacks": callbacks}, "watchdog": {"mode": "automatic", "safety_margin": 2, "device": device}}),
        );
        member.configure(&file)?;
    }
    team.start_all()?;
    team.steady(STEADY).await?;
    let play = Play::on(team).await?;
    let team = &play.team;
    let mut heard = |index: usize| -> usize {
        use std::io::Read as _;
        let mut bytes = [0; 4096];
        pipes.get_mut(index).and_then(|pipe| pipe.read(&mut bytes).ok()).unwrap_or_default()
    };
    let number = |name: &str| team.members.iter().position(|member| member.name == name).context("no such member");
    let old = team.leader().await?;
    let leads = number(&old.name)?;
    heard(leads);
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(heard(leads) >= 2, "the leader's watchdog heard nothing");
    let others: usize = (0..3).filter(|index| *index != leads).map(&mut heard).sum();
    ensure!(others == 0, "the watchdog of a standby was opened");

    let to = team.standbys().await?[0];
    super::switch_over(team, &to.name).await?;
    team.steady(STEADY).await?;
    let scope = &team.plan.name;
    for (member, call) in
        [(to, format!("on_role_change primary {scope}")), (old, format!("on_role_change replica {scope}"))]
    {
        until(&format!("{} was called with {call:?}", member.name), FAILOVER, async || {
            let calls = std::fs::read_to_string(member.folder.join("calls"))?;
            Ok(if calls.lines().any(|line| line == call) { Ok(()) } else { Err(calls) })
        })
        .await?;
    }
    // Without a renewal there is no sign of life: an agent that hangs is what the device is for.
    let agent = to.agent()?;
    agent.signal(rustix::process::Signal::STOP)?;
    let postmaster = to.postmaster()?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    heard(number(&to.name)?);
    let outcome = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let signs = heard(number(&to.name)?);
        ensure!(signs == 0 || !postmaster.is_alive(), "the watchdog heard {signs} signs of life without a renewal");
        team.other_leader(&to.name, FAILOVER).await
    }
    .await;
    agent.signal(rustix::process::Signal::CONT)?;
    outcome?;
    play.end(row, Promise::QUORUM).await
}
