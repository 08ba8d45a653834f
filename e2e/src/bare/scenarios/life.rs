//! How a member lives: bootstrap, configuration, and an agent that ends, dies, hangs and comes again.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{FAILOVER, Play};
use crate::bare::member::{Member, get};
use crate::bare::stage::Stage;
use crate::bare::team::{Plan, STEADY, Team};
use crate::bare::wait::until;
use crate::scenarios::Row;
use crate::workload::{Promise, clock};

/// A new cluster is what Patroni's tools expect; stopped and started it is itself again.
pub async fn bootstrap(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("bootstrap")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    for member in &team.members {
        let pod = team.pods().get(&member.name).await?;
        let role = pod.metadata.labels.and_then(|labels| labels.get("role").cloned()).unwrap_or_default();
        let expected = if member.name == leader.name { "primary" } else { "replica" };
        ensure!(role == expected, "the pod {} has role {role:?} instead of {expected}", member.name);
        let status = pod.metadata.annotations.and_then(|all| all.get("status").cloned()).context("no status")?;
        let status: Value = serde_json::from_str(&status)?;
        let conn_url = format!("postgres://{}:5432/postgres", member.address);
        ensure!(status["conn_url"] == conn_url.as_str(), "conn_url is {}", status["conn_url"]);
        for (path, code) in [("/primary", 200), ("/replica", 503), ("/health", 200), ("/liveness", 200)] {
            let code = if member.name != leader.name && code == 503 { 200 } else { code };
            let code = if member.name != leader.name && path == "/primary" { 503 } else { code };
            let (answer, _) = get(member.address, path).await?;
            ensure!(answer == code, "GET {path} of {} said {answer} instead of {code}", member.name);
        }
    }
    let id = team.annotation("config", "initialize").await?.unwrap_or_default();
    let own = leader.value("SELECT system_identifier FROM pg_control_system()").await?;
    ensure!(id == own, "initialize is {id}, the server's identifier {own}");
    let checksums = leader.value("SHOW data_checksums").await?;
    ensure!(checksums == "on", "bootstrap.initdb was not used");

    // Nothing was asked of a directory that was still being made.
    for member in &team.members {
        ensure!(!member.logged().contains("pg_controldata: "), "pg_controldata complained at {}", member.name);
    }

    // Root is refused, with advice.
    let mut as_root = team.members[0].command(&stage.kubeconfig())?;
    let output = as_root.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("does not run as root"), "as root it said {said}");

    // All stop as Patroni does, and the same cluster comes back.
    for member in &team.members {
        member.agent()?.signal(Signal::TERM)?;
    }
    for member in &team.members {
        let status = member.ended(Duration::from_secs(20)).await?;
        ensure!(status.success(), "the agent of {} ended with {status}", member.name);
    }
    until("nothing runs any more", Duration::from_secs(5), async || {
        Ok(team.members.iter().try_for_each(Member::nothing_runs).map_err(|error| error.to_string()))
    })
    .await?;
    team.start_all()?;
    team.steady(FAILOVER * 4).await.context("after all were stopped")?;
    play.end(row, Promise::QUORUM).await
}

/// A folder of files and `PATRONI_*` variables make the same configuration as one file.
pub async fn environment(stage: &Stage, row: &mut Row) -> Result<()> {
    let mut team = Team::new(stage, Plan::new("environment")).await?;
    let plan = team.plan.clone();
    for member in &mut team.members {
        let mut file = plan.patroni(member);
        let object = file.as_object_mut().context("no mapping")?;
        let bootstrap = json!({"bootstrap": object.remove("bootstrap"), "name": "overridden", "scope": "overridden"});
        let (name, address) = (member.name.clone(), member.address.to_string());
        for key in ["name", "scope", "kubernetes", "restapi"] {
            object.remove(key);
        }
        object["postgresql"]["authentication"].as_object_mut().context("no mapping")?.remove("superuser");
        std::fs::remove_file(member.config())?;
        std::fs::create_dir(member.config())?;
        std::fs::write(member.config().join("1.yml"), serde_saphyr::to_string(&bootstrap)?)?;
        std::fs::write(member.config().join("2.yaml"), serde_saphyr::to_string(&file)?)?;
        member.set_env(&[
            ("PATRONI_NAME", &name),
            ("PATRONI_SCOPE", &plan.name),
            ("PATRONI_KUBERNETES_NAMESPACE", &plan.name),
            ("PATRONI_KUBERNETES_LABELS", "{application: patroni}"),
            ("PATRONI_KUBERNETES_CONTEXT", crate::bare::control_plane::CONTEXT),
            ("PATRONI_RESTAPI_LISTEN", "0.0.0.0:8008"),
            ("PATRONI_RESTAPI_CONNECT_ADDRESS", &format!("{address}:8008")),
            ("PATRONI_SUPERUSER_USERNAME", "postgres"),
            ("PATRONI_SUPERUSER_PASSWORD", crate::bare::member::PASSWORD),
            ("PATRONI_TAGS_ZONE", "north"),
        ]);
    }
    // The REST API listens everywhere: only one member can, on one machine.
    let first = &team.members[0];
    team.start(first)?;
    team.steady(STEADY).await?;
    let status = first.status().await?;
    ensure!(status["tags"]["zone"] == "north", "the tag of the environment is missing: {}", status["tags"]);
    row.note("one member");
    Ok(())
}

/// SIGTERM to the leader's agent is Patroni's shutdown: `PostgreSQL` stops, the lock is released, another leads at once.
pub async fn agent_terminated(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("agent-terminated")).await?;
    let team = &play.team;
    let old = team.leader().await?;
    let begin = clock::now();
    let status = old.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "it ended with {status}");
    until("nothing of it runs", Duration::from_secs(3), async || {
        Ok(old.nothing_runs().map_err(|error| error.to_string()))
    })
    .await?;
    team.other_leader(&old.name, Duration::from_secs(5)).await?;
    play.workload.writable(Duration::from_secs(5)).await?;
    play.no_gap(begin, Duration::from_secs(3))?;
    team.start(old)?;
    play.end(row, Promise::QUORUM).await
}

/// SIGKILL to an agent: `PostgreSQL` runs on, and the next agent finds it. Nobody notices.
pub async fn agent_killed(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("agent-killed")).await?;
    let team = &play.team;
    let leader = team.leader().await?;
    let begin = clock::now();
    for member in &team.members {
        let (postmaster, supervisor) = (member.postmaster()?, member.supervisor()?);
        member.kill_agent()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(postmaster.is_alive() && supervisor.is_alive(), "PostgreSQL of {} ended with its agent", member.name);
        team.start(member)?;
        team.steady(STEADY).await?;
        ensure!(member.postmaster()? == postmaster, "the new agent of {} started PostgreSQL anew", member.name);
        ensure!(member.supervisor()? == supervisor, "{} has another supervisor", member.name);
    }
    ensure!(team.leader().await?.name == leader.name, "the lock moved");
    play.no_gap(begin, Duration::from_secs(1))?;
    play.end(row, Promise::QUORUM).await
}

/// The leader's agent dies and does not come again: its fence closes before another leads. Later it is a standby.
pub async fn agent_lost(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("agent-lost")).await?;
    let team = &play.team;
    let old = team.leader().await?;
    let postmaster = old.postmaster()?;
    old.kill_agent()?;
    team.other_leader(&old.name, FAILOVER).await?;
    ensure!(!postmaster.is_alive(), "the old primary still runs");
    play.workload.writable(FAILOVER).await?;
    team.start(old)?;
    play.end(row, Promise::QUORUM).await
}

/// The leader's agent hangs: its supervisor fences `PostgreSQL`, and when it goes on it finds itself replaced.
pub async fn agent_stopped(stage: &Stage, row: &mut Row) -> Result<()> {
    let play = Play::begin(stage, Plan::new("agent-stopped").asynchronous()).await?;
    let team = &play.team;
    let old = team.leader().await?;
    let postmaster = old.postmaster()?;
    old.agent()?.signal(Signal::STOP)?;
    let outcome = async {
        let new = team.other_leader(&old.name, FAILOVER).await?;
        if postmaster.is_alive() {
            bail!("{} leads and the postmaster of {} is still there", new.name, old.name);
        }
        play.workload.writable(FAILOVER).await
    }
    .await;
    old.agent()?.signal(Signal::CONT)?;
    outcome?;
    play.end(row, Promise { keeps: false, ..Promise::QUORUM }).await
}
