//! One client: connects, writes a row each few milliseconds, and writes down what it was told.
//!
//! Each write is one autocommit statement in the simple protocol. There is no statement timeout on the server: it would
//! end the wait for synchronous standbys *with* an acknowledgement. A client that waits too long closes its connection
//! and counts the row as unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::clock;
use super::database::{Database, query};
use super::history::{Attempt, History, Outcome, Server};

/// Between two writes.
const PACE: Duration = Duration::from_millis(10);
/// Before another attempt to connect.
const RETRY: Duration = Duration::from_millis(8);
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a client of one pod looks whether it is a primary now, and how often it writes when it is.
const LOOK: Duration = Duration::from_millis(20);

/// Which server answers.
const WHO: &str = "host(inet_server_addr()), pg_postmaster_start_time()";

/// A client and where it writes.
#[derive(Debug, Clone)]
pub struct Writer {
    /// Its number.
    pub client: u32,
    /// Marks the rows of one workload.
    pub run: String,
    /// To whom it writes.
    pub database: Database,
    /// Where it writes down what happened.
    pub history: History,
    /// Set when it shall end: between two statements, so that each has its outcome written down.
    pub stop: Arc<AtomicBool>,
}

impl Writer {
    /// Writes through the Service.
    pub async fn write(self) {
        let mut seq = 0;
        while self.goes_on() {
            if let Ok((client, server)) = self.connect().await {
                while self.goes_on() && self.insert(&client, &server, &mut seq).await {
                    sleep(PACE).await;
                }
            }
            sleep(RETRY).await;
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Writes to one pod whenever that is a primary, whatever the Service says. Asks a standby only whether it still is one,
    /// so that its log does not fill with errors.
    pub async fn probe(self) {
        let mut seq = 0;
        while self.goes_on() {
            if let Ok((client, server)) = self.connect().await {
                let mut standby = is_standby(&client).await;
                while self.goes_on() && standby == Some(true) {
                    sleep(LOOK).await;
                    standby = is_standby(&client).await;
                }
                while standby == Some(false) && self.goes_on() && self.insert(&client, &server, &mut seq).await {
                    sleep(LOOK).await;
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn connect(&self) -> Result<(Client, Arc<Server>)> {
        let client = self.database.connect().await?;
        let rows = timeout(ANSWER, query(&client, &format!("SELECT {WHO}"))).await.context("no answer in time")??;
        let Some(server) = rows.first().and_then(|row| who(row)) else { bail!("no row") };
        Ok((client, Arc::new(server)))
    }

    /// Writes one row; false when the connection is of no use any more.
    async fn insert(&self, client: &Client, server: &Arc<Server>, seq: &mut u64) -> bool {
        let number = *seq;
        *seq += 1;
        let sql = format!(
            "INSERT INTO workload (run, client, seq) VALUES ('{}', {}, {number}) \
             RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), {WHO}",
            self.run, self.client
        );
        let sent = clock::now();
        let answer = timeout(ANSWER, query(client, &sql)).await;
        let done = clock::now();
        // A pooler may lead each statement of a connection to another server.
        let answered = answer.as_ref().ok().and_then(|rows| who(rows.as_ref().ok()?.first()?.get(1..)?));
        let server = answered.filter(|one| *one != **server).map_or_else(|| server.clone(), Arc::new);
        let outcome = match answer {
            Ok(Ok(rows)) => match rows.first().and_then(|row| u32::from_str_radix(row.first()?, 16).ok()) {
                Some(timeline) => Outcome::Acknowledged { timeline },
                None => Outcome::Unknown(format!("not understood: {rows:?}")),
            },
            Ok(Err(error)) => failure(&error),
            Err(_) => Outcome::Unknown(format!("no answer in {} s", ANSWER.as_secs())),
        };
        let goes_on = matches!(outcome, Outcome::Acknowledged { .. });
        let client = self.client;
        self.history.add(Attempt { client, seq: number, sent, done, server, outcome });
        goes_on
    }
}

/// The server as it calls itself.
fn who(columns: &[String]) -> Option<Server> {
    let [address, started] = columns else { return None };
    Some(Server { address: address.clone(), started: started.clone() })
}

/// None when there is no answer.
async fn is_standby(client: &Client) -> Option<bool> {
    let rows = timeout(ANSWER, query(client, "SELECT pg_is_in_recovery()")).await.ok()?.ok()?;
    Some(rows.first()?.first()? == "t")
}

/// Only of a few errors it is certain that nothing was done.
fn failure(error: &anyhow::Error) -> Outcome {
    let answer = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::as_db_error);
    let certain = answer.is_some_and(|one| {
        [&SqlState::READ_ONLY_SQL_TRANSACTION, &SqlState::UNDEFINED_TABLE, &SqlState::INSUFFICIENT_PRIVILEGE]
            .contains(&one.code())
    });
    let text = answer.map_or_else(|| error.to_string(), |one| format!("{} {}", one.code().code(), one.message()));
    if certain { Outcome::Refused(text) } else { Outcome::Unknown(text) }
}
