//! A running workload: clients of the Service, and clients of each pod beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
const PATIENCE: Duration = Duration::from_mins(1);

/// A running workload; dropping it ends it.
#[derive(Debug)]
pub struct Workload {
    run: String,
    database: Database,
    netns: Option<String>,
    history: History,
    stop: Arc<AtomicBool>,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    zones: BTreeMap<Option<String>, Zone>,
    pods: BTreeSet<String>,
    writers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Makes the table and starts clients of the Service at `database`, as seen from the network namespace `netns`. `run`
    /// marks the rows; the attempts are written to `file` as well.
    pub async fn start(database: Database, netns: Option<&str>, run: &str, file: &Path) -> Result<Self> {
        let zone = Zone::enter(netns)?;
        let there = database.clone();
        zone.run(async move { there.prepare(PATIENCE).await }).await??;
        let workload = Self {
            run: run.to_owned(),
            database,
            netns: netns.map(str::to_owned),
            history: History::new(file)?,
            stop: Arc::default(),
            clients: Mutex::default(),
        };
        let mut clients = workload.clients();
        for client in 1..=CLIENTS {
            clients.writers.push(zone.spawn(workload.writer(client, &workload.database).write()));
        }
        clients.zones.insert(workload.netns.clone(), zone);
        drop(clients);
        Ok(workload)
    }

    /// Writes to the pod of this address as well, from now on, whenever it lets us; from a network namespace that reaches
    /// it. An address that is known already is fine.
    pub fn watch_pod(&self, netns: Option<&str>, address: &str) -> Result<()> {
        let mut clients = self.clients();
        if clients.pods.contains(address) || self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let key = netns.map(str::to_owned);
        if !clients.zones.contains_key(&key) {
            clients.zones.insert(key.clone(), Zone::enter(netns)?);
        }
        clients.pods.insert(address.to_owned());
        let client = FIRST_DIRECT + u32::try_from(clients.pods.len())?;
        let probe = self.writer(client, &self.database.at(address)).probe();
        let task = clients.zones.get(&key).map(|zone| zone.spawn(probe));
        clients.writers.extend(task);
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

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub async fn finish(&self) -> Result<Verdict> {
        let ended = clock::now();
        self.stop.store(true, Ordering::Relaxed);
        let writers = std::mem::take(&mut self.clients().writers);
        for writer in writers {
            writer.await?;
        }
        let rows = self.rows(&self.run).await?;
        Ok(check(&self.history.attempts(), &rows, ended))
    }

    /// Tries a statement once, from where the clients are, on another server than theirs if `database` says so.
    pub async fn ask(&self, database: &Database, sql: &str) -> Result<Vec<Vec<String>>> {
        let (database, sql) = (database.clone(), sql.to_owned());
        let zone = Zone::enter(self.netns.as_deref())?;
        zone.run(async move { database.query(&sql, Duration::ZERO).await }).await?
    }

    /// The rows of a run.
    pub async fn rows(&self, run: &str) -> Result<super::Rows> {
        let (database, run) = (self.database.clone(), run.to_owned());
        let zone = Zone::enter(self.netns.as_deref())?;
        zone.run(async move { database.rows(&run, PATIENCE).await }).await?
    }
}
