//! Replication slots: made, moved and dropped one by one, so that one that cannot be keeps no other from it; and copied from the
//! leader, where PostgreSQL cannot make them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use matriarch_ha::effect::{ServerConfig, Upstream};
use matriarch_ha::slots::{SlotKind, SlotPlan};
use matriarch_supervisor::protocol::{FileOp, StopMode};
use tokio_postgres::Client;

use super::copied_slots::DROP;
use super::{Error, Postgres, local};

/// A standby that is restarted for its slots becomes an immediate stop after this.
const STOP_TIMEOUT_MS: u64 = 60_000;

impl Postgres {
    /// All that can be done of it; the first failure is told.
    pub(super) async fn slots(&self, plan: &SlotPlan) -> Result<(), Error> {
        let mut connections = Connections { postgres: self, open: BTreeMap::new() };
        // Copies of an agent that ended before it had proven them.
        self.drop_unproven(connections.of("postgres").await?).await?;
        let mut first = Ok(());
        let mut keep = |done: Result<(), Error>| {
            if let Err(error) = done {
                tracing::warn!("replication slots: {error}");
                if first.is_ok() {
                    first = Err(error);
                }
            }
        };
        for name in &plan.drop {
            keep(connections.execute("postgres", DROP, &[name]).await);
        }
        for (name, kind) in &plan.create {
            keep(match kind {
                SlotKind::Physical => {
                    let sql = "SELECT pg_catalog.pg_create_physical_replication_slot(w, true) FROM (SELECT $1::text::name AS w) n
                                WHERE w NOT IN (SELECT slot_name FROM pg_catalog.pg_replication_slots)";
                    connections.execute("postgres", sql, &[name]).await
                }
                SlotKind::Logical { database, plugin } => {
                    let sql = "SELECT pg_catalog.pg_create_logical_replication_slot(w, $2::text::name)
                                 FROM (SELECT $1::text::name AS w) n
                                WHERE w NOT IN (SELECT slot_name FROM pg_catalog.pg_replication_slots)";
                    connections.execute(database, sql, &[name, plugin]).await
                }
            });
        }
        for (name, kind, to) in &plan.advance {
            let database = match kind {
                SlotKind::Physical => "postgres",
                SlotKind::Logical { database, .. } => database.as_str(),
            };
            let sql = "SELECT pg_catalog.pg_replication_slot_advance(slot_name, $2::text::pg_lsn)
                         FROM pg_catalog.pg_replication_slots
                        WHERE slot_name = $1::text::name AND NOT active
                          AND coalesce(confirmed_flush_lsn, restart_lsn) < $2::text::pg_lsn";
            let moved = connections.execute(database, sql, &[name, &to.to_string()]).await;
            if moved.as_ref().is_err_and(|error| error.to_string().contains("has already been removed")) {
                // A copy that needs WAL which never was here: without it the leader's state is copied anew.
                tracing::warn!("the slot {name} needs WAL that is not here: it is dropped, and copied again later");
                keep(connections.execute("postgres", DROP, &[name]).await);
            }
            keep(moved);
        }
        first
    }

    /// What is lost if everything dies after a step: nothing but the time that the standby is down, and the copies. Nothing is stopped
    /// before all is known, and a slot that is here already is left.
    pub(super) async fn copy_slots(
        &self,
        from: &Upstream,
        slots: &[String],
        config: &ServerConfig,
    ) -> Result<(), Error> {
        let states = self.slot_states(from, slots).await?;
        if states.is_empty() {
            return Ok(());
        }
        self.supervisor.stop(StopMode::Fast, STOP_TIMEOUT_MS).await?;
        self.forget_connection();
        let place = |name: &String| self.place.data_dir.join("pg_replslot").join(name);
        let mut missing = BTreeMap::new();
        for (name, hex) in states {
            if self.supervisor.list(place(&name)).await?.is_none() {
                missing.insert(name, hex);
            }
        }
        self.mark_copied(missing.keys()).await?;
        for (name, hex) in missing {
            let path = place(&name).join("state");
            self.supervisor.file(FileOp::WriteHex { path, hex, mode: 0o600 }).await?;
        }
        self.start_standby(config).await?;
        self.prove_copies(from, config).await
    }

    /// The state of slots as the leader has it on disk, by name, in hexadecimal digits; of those only for which our pg_wal has all that
    /// they may still decode.
    async fn slot_states(&self, from: &Upstream, slots: &[String]) -> Result<BTreeMap<String, String>, Error> {
        // Names of slots are lower case letters, digits and underscores.
        let names = slots.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT slot_name, pg_catalog.pg_walfile_name(restart_lsn), encode(pg_catalog.pg_read_binary_file('pg_replslot/' || slot_name || '/state'), 'hex')
               FROM pg_catalog.pg_replication_slots WHERE slot_name IN ({names}) AND restart_lsn IS NOT NULL"
        );
        let answer = self.ask(from, &sql).await?;
        let ours = self.supervisor.list(self.place.data_dir.join("pg_wal")).await?.unwrap_or_default();
        let mut states = BTreeMap::new();
        for line in answer.lines() {
            let mut fields = line.split('|');
            let (Some(name), Some(segment), Some(hex)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            // Of whatever timeline.
            if segment.get(8..).is_some_and(|number| ours.iter().any(|file| file.get(8..) == Some(number))) {
                states.insert(name.to_owned(), hex.to_owned());
            } else {
                tracing::info!("the slot {name} is not copied yet: it may decode {segment}, which is not here");
            }
        }
        Ok(states)
    }
}

/// One connection a database.
struct Connections<'a> {
    postgres: &'a Postgres,
    open: BTreeMap<String, Client>,
}

impl Connections<'_> {
    async fn of(&mut self, database: &str) -> Result<&Client, Error> {
        match self.open.entry(database.to_owned()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(none) => Ok(none.insert(self.postgres.login(database, local::SHORT).await?)),
        }
    }

    async fn execute(&mut self, database: &str, sql: &str, values: &[&String]) -> Result<(), Error> {
        let client = self.of(database).await?;
        let values: Vec<_> = values.iter().map(|value| *value as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
        client.execute(sql, &values).await?;
        Ok(())
    }
}
