//! Where the clients connect, and the few statements beside their writes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::check::Rows;

/// For connection and login together. More than a busy server needs, less than a person notices.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
/// For one statement that is not a client's write.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The table, of the application's user.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS workload \
     (run text NOT NULL, client int NOT NULL, seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())";

/// How to log in.
#[derive(Debug, Clone)]
pub struct Database {
    /// An IP address.
    pub address: String,
    /// Usually 5432; another one where a balancer or a pooler listens.
    pub port: u16,
    /// The servers' own, whatever is in front of them.
    pub server_port: u16,
    /// The application's user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The application's database.
    pub dbname: String,
}

impl Database {
    /// The same login at a server's own address and port.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), port: self.server_port, ..self.clone() }
    }

    /// A connection, within [`CONNECT_TIMEOUT`] or not at all. It closes when the client is dropped.
    pub async fn connect(&self) -> Result<Client> {
        let mut config = Config::new();
        config.host(&self.address).port(self.port).user(&self.user).password(&self.password).dbname(&self.dbname);
        config.application_name("workload");
        let (client, connection) =
            tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls)).await.context("no connection in time")??;
        tokio::spawn(connection); // an error there is an error of the next statement
        Ok(client)
    }

    /// Runs `sql` and returns its rows. Only for statements that may run twice: it is tried until `deadline`.
    pub async fn query(&self, sql: &str, deadline: Duration) -> Result<Vec<Vec<String>>> {
        let begin = Instant::now();
        loop {
            let tried = async {
                let client = self.connect().await?;
                tokio::time::timeout(QUERY_TIMEOUT, query(&client, sql)).await.context("no answer in time")?
            };
            match tried.await {
                Ok(rows) => return Ok(rows),
                Err(error) if begin.elapsed() > deadline => {
                    let seconds = begin.elapsed().as_secs_f32();
                    return Err(error.context(format!("tried {sql:?} at {} for {seconds:.1} s", self.address)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Makes the clients' table where it is missing.
    pub async fn prepare(&self, deadline: Duration) -> Result<()> {
        self.query(TABLE, deadline).await.map(drop)
    }

    /// The rows of a run that are there. A standby would not do: it may be behind.
    pub async fn rows(&self, run: &str, deadline: Duration) -> Result<Rows> {
        let sql = format!(
            "SELECT client, seq, count(*), pg_is_in_recovery() FROM workload WHERE run = '{run}' GROUP BY 1, 2"
        );
        let mut rows = Rows::new();
        for row in self.query(&sql, deadline).await? {
            let [client, seq, count, standby] = row.as_slice() else { bail!("four columns expected: {row:?}") };
            if standby == "t" {
                bail!("the Service led to a standby");
            }
            rows.insert((client.parse()?, seq.parse()?), count.parse()?);
        }
        Ok(rows)
    }
}

/// All rows of a statement, as text.
pub async fn query(client: &Client, sql: &str) -> Result<Vec<Vec<String>>> {
    let messages = client.simple_query(sql).await?;
    let text = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(text(row)),
            _ => None,
        })
        .collect())
}
