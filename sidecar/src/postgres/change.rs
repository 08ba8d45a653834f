//! Short changes of a running server.

use std::time::Duration;

use matriarch_ha::effect::{Change, ServerConfig};
use matriarch_ha::event::DataDir;
use matriarch_supervisor::protocol::Request;
use tokio::time::{Instant, sleep};

use super::{Error, Postgres, conf, local};
use crate::config::User;

/// A reload is in force within milliseconds; a server that has not taken it after this has refused it.
const IN_FORCE: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Writes a few bytes of WAL that every standby confirms at once, and waits for none of them.
const NUDGE: &str = "BEGIN; SET LOCAL synchronous_commit = local;
SELECT pg_catalog.pg_logical_emit_message(true, 'matriarch', ''); COMMIT";

impl Postgres {
    /// Does it.
    pub async fn change(&self, change: Change) -> Result<(), String> {
        let done = match change {
            Change::Configure(config) => self.configure(&config).await,
            Change::Slots(plan) => self.slots(&plan).await,
            Change::Checkpoint => self.checkpoint().await,
        };
        done.map_err(|error| error.to_string())
    }

    /// Writes and reloads if anything differs; done when a session sees it, and PostgreSQL's other processes got their signal
    /// before.
    async fn configure(&self, config: &ServerConfig) -> Result<(), Error> {
        let client = match self.kept.client(self).await {
            Ok(client) => client,
            Err(error @ local::Error::Starting(_)) => return self.redirect(config, error).await,
            Err(error) => return Err(error.into()),
        };
        let standby: bool = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get(0)?;
        let written = self.write_files(config, standby).await?;
        if written {
            self.supervisor.done(Request::Reload).await?;
        }
        let replication = self.config().credentials(User::Replication)?;
        let conninfo =
            config.upstream.as_ref().map(|upstream| conf::primary_conninfo(&self.place, upstream, &replication));
        let slot = config.upstream.as_ref().and_then(|upstream| upstream.slot.clone());
        let wanted = [config.sync_names.clone(), conninfo.unwrap_or_default(), slot.unwrap_or_default()];
        let show = client
            .prepare(
                "SELECT ARRAY[current_setting('synchronous_standby_names'), current_setting('primary_conninfo'),
                              current_setting('primary_slot_name')]",
            )
            .await?;
        let end = Instant::now() + IN_FORCE;
        let mut reloaded = Instant::now();
        loop {
            let seen: Vec<String> = client.query_one(&show, &[]).await?.try_get(0)?;
            if seen == wanted {
                // A walsender (of every version up to 18) lets commits go that wait only when its standby answers next. One
                // that is new in the setting has answered all there is, and would be silent for wal_receiver_status_interval.
                if written && !standby && !config.sync_names.is_empty() {
                    client.batch_execute(NUDGE).await?;
                }
                return Ok(());
            }
            if Instant::now() >= end {
                // Something else is in force: look at the files at the next change.
                self.files.forget();
                let names = ["synchronous_standby_names", "primary_conninfo", "primary_slot_name"];
                let odd: Vec<String> = names
                    .iter()
                    .zip(seen.iter().zip(&wanted))
                    .filter(|(_, (seen, wanted))| seen != wanted)
                    .map(|(name, (seen, wanted))| format!("{name} is {seen:?} instead of {wanted:?}"))
                    .collect();
                return Err(Error::State(format!(
                    "PostgreSQL did not take its new configuration within {} s: {}; its log says why",
                    IN_FORCE.as_secs(),
                    odd.join(", ")
                )));
            }
            if reloaded.elapsed() >= Duration::from_secs(1) {
                // The files are right, but a reload was missed (an agent that died in between).
                self.supervisor.done(Request::Reload).await?;
                reloaded = Instant::now();
            }
            sleep(LOOK).await;
        }
    }

    /// A standby that is not consistent yet lets nobody in, and may need the WAL of the very upstream that it is told of here: the
    /// files are written, and whether the reload was taken is not looked at.
    async fn redirect(&self, config: &ServerConfig, starting: local::Error) -> Result<(), Error> {
        match self.look().await? {
            DataDir::Present(data) if data.standby_signal => {}
            _ => return Err(starting.into()),
        }
        if self.write_files(config, true).await? {
            self.supervisor.done(Request::Reload).await?;
        }
        Ok(())
    }

    pub(super) async fn checkpoint(&self) -> Result<(), Error> {
        let client = self.login(&self.config().postgres.database, local::LONG).await?;
        client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }
}
