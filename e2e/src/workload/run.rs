//! A running workload: clients of the Service, and clients of each pod beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::task::JoinHandle;

use super::check::{Verdict, check};
use super::clock;
use super::database::Database;
use super::history::{Attempt, FIRST_DIRECT, History};
use super::writer::Writer;
use super::zone::Zone;

/// Clients of the Service.
const CLIENTS: u32 = 2;
/// How long the first connection and the reading at the end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running workload; dropping it ends it.
#[derive(Debug)]
pub struct Workload {
    run: String,
    database: Database,
    netns: Option<String>,
    zones: BTreeMap<Option<String>, Zone>,
    pods: BTreeSet<String>,
    history: History,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Makes the table and starts clients of the Service at `database`, as seen from the network namespace `netns`. `run`
    /// marks the rows; the attempts are written to `file` as well.
    pub async fn start(database: Database, netns: Option<&str>, run: &str, file: &Path) -> Result<Self> {
        let zone = Zone::enter(netns)?;
        let there = database.clone();
        zone.run(async move { there.prepare(PATIENCE).await }).await??;
        let mut workload = Self {
            run: run.to_owned(),
            database,
            netns: netns.map(str::to_owned),
            zones: BTreeMap::from([(netns.map(str::to_owned), zone)]),
            pods: BTreeSet::new(),
            history: History::new(file)?,
            stop: Arc::default(),
            writers: Vec::new(),
        };
        for client in 1..=CLIENTS {
            let writer = workload.writer(client, &workload.database);
            workload.spawn(&workload.netns.clone(), writer.write());
        }
        Ok(workload)
    }

    /// Writes to the pod of this address as well, from now on, whenever it lets us; from a network namespace that reaches
    /// it. An address that is known already is fine.
    pub fn watch_pod(&mut self, netns: Option<&str>, address: &str) -> Result<()> {
        if self.pods.insert(address.to_owned()) {
            let key = netns.map(str::to_owned);
            if !self.zones.contains_key(&key) {
                self.zones.insert(key.clone(), Zone::enter(netns)?);
            }
            let client = FIRST_DIRECT + u32::try_from(self.pods.len())?;
            let writer = self.writer(client, &self.database.at(address));
            self.spawn(&key, writer.probe());
        }
        Ok(())
    }

    fn writer(&self, client: u32, database: &Database) -> Writer {
        Writer {
            client,
            run: self.run.clone(),
            database: database.clone(),
            history: self.history.clone(),
            stop: self.stop.clone(),
        }
    }

    fn spawn(&mut self, netns: &Option<String>, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(zone) = self.zones.get(netns) {
            self.writers.push(zone.spawn(future));
        }
    }

    /// What happened so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Waits for an acknowledged write that suits; the first such since the beginning of the workload is fine.
    pub async fn acknowledged(
        &self,
        what: &str,
        deadline: Duration,
        suits: impl Fn(&Attempt) -> bool,
    ) -> Result<Attempt> {
        let begin = Instant::now();
        loop {
            if let Some(found) = self.history.first(&suits) {
                return Ok(found);
            }
            if begin.elapsed() > deadline {
                let last = self.history.attempts().last().map_or_else(|| "none".to_owned(), ToString::to_string);
                bail!("no {what} within {} s; the last attempt: {last}", deadline.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the Service takes writes that are sent from now on.
    pub async fn writable(&self, deadline: Duration) -> Result<Attempt> {
        let now = clock::now();
        self.acknowledged("write through the Service", deadline, |one| one.through_service() && one.sent > now).await
    }

    /// Ends the clients, and judges what they were told by what is in the table.
    pub async fn finish(mut self) -> Result<Verdict> {
        let ended = clock::now();
        self.stop.store(true, Ordering::Relaxed);
        for writer in std::mem::take(&mut self.writers) {
            writer.await?;
        }
        let rows = self.rows(&self.run).await?;
        Ok(check(&self.history.attempts(), &rows, ended))
    }

    /// The rows of a run.
    pub async fn rows(&self, run: &str) -> Result<super::Rows> {
        let (database, run) = (self.database.clone(), run.to_owned());
        let zone = Zone::enter(self.netns.as_deref())?;
        zone.run(async move { database.rows(&run, PATIENCE).await }).await?
    }
}
