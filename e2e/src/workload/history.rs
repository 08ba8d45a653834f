//! What the clients tried and what came of it: kept in memory for the checker, and in a file of JSON lines for people.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::clock;

/// Clients with a number from here on connect to one pod and not to the Service.
pub const FIRST_DIRECT: u32 = 1000;

/// A run of one PostgreSQL: an address alone may be given to another pod later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// Its own address, as PostgreSQL says it.
    pub address: String,
    /// When its postmaster started, in PostgreSQL's words.
    pub started: String,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)
    }
}

/// What became of an attempt to write a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server said that the row is committed.
    Acknowledged {
        /// The server's timeline as it wrote.
        timeline: u32,
    },
    /// No answer, or one that leaves open whether the row is committed.
    Unknown(String),
    /// The server said that nothing was done.
    Refused(String),
}

/// One attempt to write one row. A row's number is used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Who wrote.
    pub client: u32,
    /// The row's number.
    pub seq: u64,
    /// When the statement was sent, on the boot-time clock.
    pub sent: Duration,
    /// When the outcome was known.
    pub done: Duration,
    /// To whom it was sent.
    pub server: Arc<Server>,
    /// What came of it.
    pub outcome: Outcome,
}

impl Attempt {
    /// The timeline of an acknowledged write.
    pub fn acknowledged(&self) -> Option<u32> {
        match self.outcome {
            Outcome::Acknowledged { timeline } => Some(timeline),
            _ => None,
        }
    }

    /// Whether a client of the Service wrote it.
    pub fn through_service(&self) -> bool {
        self.client < FIRST_DIRECT
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outcome = match &self.outcome {
            Outcome::Acknowledged { timeline } => format!("acknowledged on timeline {timeline}"),
            Outcome::Unknown(why) => format!("unknown: {why}"),
            Outcome::Refused(why) => format!("refused: {why}"),
        };
        let Self { client, seq, server, sent, done, .. } = self;
        let (sent, done) = (clock::time_of_day(*sent), clock::time_of_day(*done));
        write!(f, "client {client} row {seq}, sent to {server} at {sent}, {outcome} at {done}")
    }
}

/// All attempts so far; clones share them.
#[derive(Debug, Clone)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    attempts: Vec<Attempt>,
    file: File,
}

impl History {
    /// An empty one, which writes each attempt to `file` as well.
    pub fn new(file: &Path) -> Result<Self> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::create(file).with_context(|| file.display().to_string())?;
        Ok(Self(Arc::new(Mutex::new(Inner { attempts: Vec::new(), file }))))
    }

    /// Adds one.
    pub fn add(&self, attempt: Attempt) {
        let (outcome, timeline, why) = match &attempt.outcome {
            Outcome::Acknowledged { timeline } => ("acknowledged", Some(timeline), None),
            Outcome::Unknown(why) => ("unknown", None, Some(why)),
            Outcome::Refused(why) => ("refused", None, Some(why)),
        };
        let line = json!({
            "client": attempt.client, "seq": attempt.seq,
            "sent_us": micros(attempt.sent), "done_us": micros(attempt.done),
            "server": attempt.server.address, "started": attempt.server.started,
            "outcome": outcome, "timeline": timeline, "why": why,
        });
        let mut inner = self.lock();
        // For people only: a full disk must not end the test.
        let _ = writeln!(inner.file, "{line}");
        inner.attempts.push(attempt);
    }

    /// All attempts.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().attempts.clone()
    }

    /// The first acknowledged write that suits.
    pub fn first(&self, suits: impl Fn(&Attempt) -> bool) -> Option<Attempt> {
        self.lock().attempts.iter().find(|one| one.acknowledged().is_some() && suits(one)).cloned()
    }

    /// The last acknowledged write that suits.
    pub fn last(&self, suits: impl Fn(&Attempt) -> bool) -> Option<Attempt> {
        self.lock().attempts.iter().rev().find(|one| one.acknowledged().is_some() && suits(one)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(moment: Duration) -> u64 {
    u64::try_from(moment.as_micros()).unwrap_or(u64::MAX)
}
