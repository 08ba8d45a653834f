//! The conformance scripts of the simulator's model, on real PostgreSQL: a model is worth what it has in common with this.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
#[path = "../common/mod.rs"]
mod common;
mod expect;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Member, Tools, server};
use expect::equal;
use futures::StreamExt;
use matriarch_ha::effect::{Change, ServerConfig, Task};
use matriarch_ha::event::Event;
use matriarch_ha::types::Timeline;
use matriarch_sim::conformance::{Answer, Order, Script, Server, slot_plan, subjects};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What is expected comes true within this.
const SOON: Duration = Duration::from_secs(40);
/// What must not happen would within this: PostgreSQL tries to connect again after 5 s at the latest, and mostly at once.
const SETTLED: Duration = Duration::from_millis(1_500);

/// The first data directory that initdb made: the others are copies of it, as initdb takes most of a script's time.
#[derive(Default)]
struct First(Mutex<Option<PathBuf>>);

impl Drop for First {
    fn drop(&mut self) {
        if let Some(folder) = self.0.get_mut() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Scripts that run at the same time: most of their time they wait.
const AT_ONCE: usize = 4;

struct Bench<'a> {
    first: &'a First,
    members: BTreeMap<Server, Member>,
    /// What each runs with.
    configs: BTreeMap<Server, ServerConfig>,
    fresh: bool,
    clients: BTreeMap<String, JoinHandle<bool>>,
    answers: BTreeMap<String, Answer>,
}

impl<'a> Bench<'a> {
    async fn play(tools: &Tools, first: &'a First, script: &Script) -> Result<(), String> {
        let mut bench = Self {
            first,
            members: BTreeMap::new(),
            configs: BTreeMap::new(),
            fresh: false,
            clients: BTreeMap::new(),
            answers: BTreeMap::new(),
        };
        let text = format!("{:?}", script.steps);
        for server in [Server::A, Server::B, Server::C] {
            if text.contains(&format!("({server:?}")) || text.contains(&format!(" {server:?}")) {
                let mut member = Member::new(tools, server.name()).await;
                member.permit_ms(600_000);
                bench.members.insert(server, member);
            }
        }
        for (index, step) in script.steps.iter().enumerate() {
            if let Err(why) = bench.step(step).await {
                for member in bench.members.values() {
                    eprintln!("---- log of {}\n{}", member.name, member.log());
                }
                return Err(format!("step {index}, {step:?}: {why}"));
            }
        }
        Ok(())
    }

    fn config(&self, on: Server, of: Option<Server>) -> ServerConfig {
        let mut config = self.configs.get(&on).cloned().unwrap_or_else(|| {
            // Many walsenders wait for a standby that comes back; none has to be found out by a timeout.
            server(&[("wal_receiver_timeout", "5s"), ("wal_retrieve_retry_interval", "500ms")])
        });
        config.upstream = of.map(|of| self.members[&of].upstream(None));
        config
    }

    async fn task(&self, on: Server, task: Task) -> Result<(), String> {
        self.members[&on].task(task).await.map_err(|error| format!("{error:?}"))
    }

    async fn change(&self, on: Server, change: Change) -> Result<(), String> {
        self.members[&on].postgres.change(change).await
    }

    async fn configure(&mut self, on: Server, config: ServerConfig) -> Result<(), String> {
        self.configs.insert(on, config.clone());
        self.change(on, Change::Configure(config)).await
    }

    async fn start(&mut self, on: Server, config: ServerConfig, primary: bool) -> Result<(), String> {
        let task = if primary {
            Task::StartPrimary { config: config.clone() }
        } else {
            Task::StartStandby { config: config.clone() }
        };
        self.task(on, task).await?;
        self.configs.insert(on, config);
        if primary && std::mem::take(&mut self.fresh) {
            self.task(on, Task::PostBootstrap).await?;
        }
        Ok(())
    }

    async fn order(&mut self, order: &Order) -> Result<(), String> {
        match order {
            Order::Initdb(on) => {
                self.initdb(*on).await?;
                self.fresh = true;
                Ok(())
            }
            Order::StartPrimary(on) => self.start(*on, self.config(*on, None), true).await,
            Order::StartStandby(on, of) => self.start(*on, self.config(*on, *of), false).await,
            Order::Promote(on) => self.promote(*on, 0).await,
            Order::PromoteTo(on, to) => self.promote(*on, *to).await,
            Order::StopFast(on) => self.stop(*on, false).await,
            Order::StopImmediate(on) => self.stop(*on, true).await,
            Order::Kill(on) => self.kill(*on).await,
            Order::Checkpoint(on) => self.change(*on, Change::Checkpoint).await,
            Order::Commit(on, name) => {
                self.begin(*on, name).await;
                self.answered(name, Answer::Acknowledged).await
            }
            Order::Begin(on, name) => {
                self.begin(*on, name).await;
                Ok(())
            }
            Order::SyncNames(on, names) => {
                let mut config = self.configs[on].clone();
                config.sync_names.clone_from(names);
                self.configure(*on, config).await
            }
            Order::Copy(on, from) => self.task(*on, self.members[from].copy(None)).await,
            Order::CutCopy(on, from) => self.cut_copy(*on, *from).await,
            Order::Rewind(on, from) => {
                self.task(*on, Task::Rewind { from: self.members[from].upstream(None), pg_rewind: true }).await
            }
            Order::Follow(on, of) => {
                let config = self.config(*on, Some(*of));
                self.configure(*on, config).await
            }
            Order::Slots(on, create, drop) => self.change(*on, Change::Slots(slot_plan(create, drop))).await,
        }
    }

    async fn initdb(&self, on: Server) -> Result<(), String> {
        let data = self.members[&on].dir.join("volume/pgdata");
        let mut first = self.first.0.lock().await;
        match &*first {
            Some(first) if !data.exists() => {
                let copied = Command::new("cp").arg("-a").args([first, &data]).status().unwrap();
                assert!(copied.success());
            }
            Some(_) => return self.task(on, Task::Initdb).await,
            None => {
                self.task(on, Task::Initdb).await?;
                let kept = std::env::temp_dir().join(format!("matriarch-conformance-{}", std::process::id()));
                let copied = Command::new("cp").arg("-a").args([&data, &kept]).status().unwrap();
                assert!(copied.success());
                *first = Some(kept);
            }
        }
        Ok(())
    }

    async fn promote(&self, on: Server, to: u32) -> Result<(), String> {
        let from = self.status(on).await.map_or(Timeline(0), |status| status.timeline);
        self.task(on, Task::Promote { from, to: Timeline(to.max(from.0)) }).await
    }

    async fn stop(&self, on: Server, immediate: bool) -> Result<(), String> {
        self.task(on, Task::Stop { immediate, checkpoint: false, timeout_ms: 20_000 }).await
    }

    async fn kill(&mut self, on: Server) -> Result<(), String> {
        let member = self.members.get_mut(&on).unwrap();
        let data = std::fs::read_to_string(member.dir.join("volume/pgdata/postmaster.pid")).unwrap();
        let pid: i32 = data.lines().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        while member.events.try_recv().is_ok() {}
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        member.event("exit", |event| matches!(event, Event::Exited { .. }).then_some(())).await;
        member.postgres.forget_connection();
        Ok(())
    }

    async fn cut_copy(&self, on: Server, from: Server) -> Result<(), String> {
        let source = &self.members[&from];
        source.sql("CREATE TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 200000)").await;
        let cut = sleep(Duration::from_millis(150));
        match self.members[&on].postgres.task(source.copy(None), cut).await {
            Err(_) => Ok(()),
            Ok(()) => Err("not cut".to_owned()),
        }
    }

    /// A client of its own, which commits a table of this name.
    async fn begin(&mut self, on: Server, name: &str) {
        let client = matriarch_sidecar::postgres::local::connect(&self.members[&on].config, "postgres", "").await;
        let sql = format!("CREATE TABLE of_{name} ()");
        let commit = async move {
            match client {
                Ok(client) => client.simple_query(&sql).await.inspect_err(|e| eprintln!("{sql}: {e:?}")).is_ok(),
                Err(error) => panic!("{error}"),
            }
        };
        self.clients.insert(name.to_owned(), tokio::spawn(commit));
    }

    async fn answer(&mut self, name: &str) -> Answer {
        if let Some(client) = self.clients.get_mut(name)
            && client.is_finished()
        {
            let answer = if client.await.unwrap() { Answer::Acknowledged } else { Answer::Broken };
            self.clients.remove(name);
            self.answers.insert(name.to_owned(), answer);
        }
        self.answers.get(name).copied().unwrap_or(Answer::Waits)
    }

    async fn answered(&mut self, name: &str, wanted: Answer) -> Result<(), String> {
        if wanted == Answer::Waits {
            sleep(SETTLED).await;
        }
        let end = Instant::now() + SOON;
        loop {
            let is = self.answer(name).await;
            if is != Answer::Waits || wanted == Answer::Waits || Instant::now() > end {
                return equal(is, wanted);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// `MATRIARCH_SCRIPT` is a part of the name of those that are wanted.
#[tokio::test(flavor = "current_thread")]
async fn conformance_scripts_hold() {
    let Some(tools) = Tools::find() else { return };
    let only = std::env::var("MATRIARCH_SCRIPT").unwrap_or_default();
    let first = First::default();
    let scripts: Vec<(&str, Script)> = subjects()
        .into_iter()
        .flat_map(|(subject, scripts)| scripts.into_iter().map(move |script| (subject, script)))
        .filter(|(_, script)| script.name.contains(&only))
        .collect();
    let plays = scripts.iter().map(async |(subject, script)| {
        let start = Instant::now();
        let result = Bench::play(&tools, &first, script).await;
        eprintln!("==== {} ms: {subject}: {}: {result:?}", start.elapsed().as_millis(), script.name);
        result.err().map(|why| format!("{subject}: {}: {why}", script.name))
    });
    let wrong: Vec<String> =
        futures::stream::iter(plays).buffer_unordered(AT_ONCE).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "PostgreSQL does not do as the model:\n{}", wrong.join("\n"));
}
