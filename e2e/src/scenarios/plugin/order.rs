//! Commands that change something.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{STEADY, Stage};

/// For an effect that takes a loop or two.
const SOON: Duration = Duration::from_secs(20);

/// `edit-config` in all its ways.
pub async fn configuration(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let set = |value: &str| format!("edit-config {name} --pg work_mem={value}");
    kubectl.run(&set("5MB")).await?.is(5, &["+    work_mem: 5MB", "--yes"])?;
    kubectl.run(&format!("{} --dry-run", set("5MB"))).await?.is(0, &["+    work_mem: 5MB"])?;
    kubectl.run(&format!("{} --yes", set("6MB"))).await?.is(0, &["configuration changed"])?;
    shows(stage, "work_mem", "6MB").await?;
    kubectl
        .with_input(&format!("edit-config {name} --apply - -y"), "postgresql: {parameters: {work_mem: 7MB}}")
        .await?
        .is(0, &["-    work_mem: 6MB"])?;
    shows(stage, "work_mem", "7MB").await?;
    let edited = kubectl.on_a_terminal(&format!("edit-config {name} --yes"), "sed -i s/7MB/8MB/").await?;
    edited.is(0, &["configuration changed"])?;
    shows(stage, "work_mem", "8MB").await?;
    let now = kubectl.run(&format!("show-config {name}")).await?.is(0, &["work_mem: 8MB"])?.out;
    let replaced = now.replace("work_mem: 8MB", "work_mem: 9MB");
    kubectl
        .with_input(&format!("edit-config {name} --replace - -y"), &replaced)
        .await?
        .is(0, &["+    work_mem: 9MB"])?;
    kubectl.run(&format!("{} --yes", set("null"))).await?.is(0, &["-    work_mem: 9MB"])?;
    shows(stage, "work_mem", "4MB").await?;
    kubectl.run(&format!("edit-config {name} --set ttl=3 --yes")).await?.is(1, &["5 or more"])?;
    kubectl.run(&format!("edit-config {name}")).await?.is(5, &["--set"])?;
    kubectl.run(&format!("edit-config {name} --set ttl=10 --yes")).await?.is(0, &["not changed"]).map(drop)
}

/// Waits until the leader's PostgreSQL has a setting.
async fn shows(stage: &Stage<'_>, setting: &str, value: &str) -> Result<()> {
    let what = format!("{setting} is {value}");
    stage
        .world
        .cluster
        .wait(&what, SOON, async || {
            let is = stage.sql("", &format!("SHOW {setting}")).await?;
            Ok((is != value).then_some(is))
        })
        .await
}

/// `pause`, `resume`, `reload`.
pub async fn maintenance(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    kubectl.run(&format!("pause {name}")).await?.is(5, &["nobody fails over"])?;
    kubectl.run(&format!("pause {name} --wait --yes")).await?.is(0, &["is paused", "every member knows"])?;
    kubectl.run(&format!("pause {name}")).await?.is(0, &["paused already"])?;
    kubectl.run(&format!("status {name}")).await?.is(0, &["PAUSED"])?;
    kubectl.run(&format!("switchover {name} --yes")).await?.is(1, &["give --candidate"])?;
    kubectl.run(&format!("resume {name} --wait")).await?.is(0, &["resumed", "every member knows"])?;
    kubectl.run("resume nowhere").await?.is(3, &[])?;

    kubectl.run(&format!("reload {name}")).await?.is(0, &[&format!("{name}-0: "), &format!("{name}-2: ")])?;
    kubectl.run(&format!("reload {name} {name}-7")).await?.is(3, &["did you mean"]).map(drop)
}

/// `restart`, `flush restart`, `reinit`.
pub async fn members(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let standby = stage.herd.standbys().await?.pop().context("no standby")?.name;
    let leader = stage.herd.lock().await?.leader;
    let started = async || stage.sql(&format!("--member {standby}"), "SELECT pg_postmaster_start_time()").await;
    let before = started().await?;
    kubectl.run(&format!("restart {name} {standby}")).await?.is(5, &["--yes"])?;
    kubectl.run(&format!("restart {name} {standby} --pending --yes")).await?.is(0, &["no member has to be"])?;
    kubectl.run(&format!("restart {name} {standby} --pg-version 9.6 --yes")).await?.is(1, &["conditions"])?;
    ensure!(started().await? == before, "PostgreSQL of {standby} was restarted without need");
    kubectl.run(&format!("restart {name} {standby} --role replica --yes")).await?.is(0, &["restarted successfully"])?;
    ensure!(started().await? != before, "PostgreSQL of {standby} was not restarted");
    stage.herd.steady(STEADY).await?;
    kubectl.run(&format!("restart {name} {leader} --yes")).await?.is(0, &["restarted successfully"])?;
    kubectl.run(&format!("restart {name} {name}-8 --yes")).await?.is(3, &["did you mean"])?;

    kubectl.run(&format!("flush restart {name}")).await?.is(3, &["no restart is scheduled"])?;
    kubectl
        .run(&format!("restart {name} {standby} --at 2099-01-01T00:00:00Z --yes"))
        .await?
        .is(0, &["Restart scheduled"])?;
    stage
        .world
        .cluster
        .wait("the scheduled restart is shown", SOON, async || {
            let said = kubectl.run(&format!("status {name}")).await?.out;
            Ok((!said.contains("will be restarted at 2099")).then_some(said))
        })
        .await?;
    kubectl.run(&format!("flush restart {name} --yes")).await?.is(0, &["scheduled restart deleted"])?;
    kubectl.run(&format!("restart {name} {standby} --cancel")).await?.is(3, &["no restarts are scheduled"])?;

    kubectl.run(&format!("reinit {name} {leader} --yes")).await?.is(1, &["is the leader"])?;
    kubectl.run(&format!("reinit {name} {standby}")).await?.is(5, &["Throw away"])?;
    let marker = format!("{}/marker", matriarch_crds::names::DATA_DIR);
    let has = async || stage.herd.namespace.exec(&standby, "postgres", &["ls", &marker]).await;
    stage.herd.namespace.exec(&standby, "postgres", &["touch", &marker]).await?.success()?;
    kubectl.run(&format!("reinit {name} {standby} --wait --yes --timeout 90")).await?.is(0, &["streaming"])?;
    ensure!(has().await?.code != 0, "the data directory of {standby} is the old one");
    stage.herd.steady(STEADY).await
}

/// `switchover`, `flush switchover`, `failover`.
pub async fn leadership(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    let standbys = stage.herd.standbys().await?;
    let (first, second) = (&standbys[0].name, &standbys[1].name);
    let to = |candidate: &str| format!("switchover {name} --candidate {candidate}");
    kubectl.run(&to(first)).await?.is(5, &["--yes"])?;
    kubectl.run(&format!("{} --yes", to("orders-9"))).await?.is(3, &["candidate orders-9 does not exist"])?;
    kubectl.run(&format!("{} --at 2099-01-01T00:00:00Z --yes", to(first))).await?.is(0, &["scheduled at 2099"])?;
    kubectl.run(&format!("list {name}")).await?.is(0, &["Switchover scheduled at: 2099", first])?;
    kubectl.run(&format!("{} --yes", to(second))).await?.is(1, &["already asked for", "--cancel"])?;
    kubectl.run(&format!("flush switchover {name} --yes")).await?.is(0, &["deleted"])?;
    kubectl.run(&format!("switchover {name} --cancel")).await?.is(3, &["no switchover is scheduled"])?;
    kubectl.run(&format!("{} --yes", to(first))).await?.is(0, &[&format!("switched over to \"{first}\"")])?;
    ensure!(stage.herd.lock().await?.leader == *first, "{first} does not lead");
    stage.herd.steady(STEADY).await?;
    kubectl.run(&format!("failover {name} --candidate {first} --yes")).await?.is(1, &["leader already"])?;
    kubectl.run(&format!("failover {name} --candidate {second}")).await?.is(5, &["--yes"])?;
    kubectl
        .run(&format!("failover {name} --candidate {second} --yes"))
        .await?
        .is(0, &[&format!("failed over to \"{second}\"")])?;
    ensure!(stage.herd.lock().await?.leader == *second, "{second} does not lead");
    stage.herd.steady(STEADY).await?;
    kubectl.run(&format!("history {name}")).await?.is(0, &[first, second, "no recovery target"]).map(drop)
}

impl Stage<'_> {
    /// One value, by psql with these options.
    async fn sql(&self, options: &str, sql: &str) -> Result<String> {
        let said = self.kubectl.run(&format!("psql {} {options} -- -Atc '{sql}'", self.herd.name())).await?;
        Ok(said.is(0, &[])?.out.trim().to_owned())
    }
}
