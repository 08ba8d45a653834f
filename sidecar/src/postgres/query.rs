//! The server's state in one SELECT, over a connection that is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_ha::event::{Pending, QueryError, ServerStatus, StandbyStatus};
use matriarch_ha::history::{Line, parse_file};
use matriarch_ha::slots::{SlotKind, SlotStatus};
use matriarch_ha::types::{Lsn, Timeline, Wall};
use serde::Deserialize;
use tokio_postgres::{Client, Row, Statement};

use super::local::{self, Error};
use super::{Postgres, units};
use crate::config::Config;

/// `pg_is_in_recovery` is read once (a subquery with a volatile function is not flattened), so that a promotion in between
/// gives the picture of a standby, never a mixture; for the same reason nothing here fails on a server that has just been promoted,
/// as `pg_is_wal_replay_paused` would. Works on PostgreSQL 13 to 18.
///
/// A standby whose upstream is gone is on the timeline of the WAL it received last: the control file learns of a switch
/// only at the next restart point, minutes later, and until then this member would seem to be behind all others. The
/// name of the segment at its position says it.
const STATUS: &str = "
SELECT r.recovering,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       CASE WHEN r.recovering
            THEN coalesce((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver),
                          (SELECT greatest(c.timeline_id, y.min_recovery_end_timeline, w.timeline)
                             FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() y,
                                  (SELECT max(('x' || left(f.name, 8))::bit(32)::int) AS timeline
                                     FROM (SELECT greatest(pg_catalog.pg_last_wal_receive_lsn() - '0/0',
                                                           pg_catalog.pg_last_wal_replay_lsn() - '0/0', 1)::bigint - 1 AS at,
                                                  pg_catalog.pg_size_bytes(current_setting('wal_segment_size')) AS size) l,
                                          pg_catalog.pg_ls_waldir() f
                                    WHERE f.name ~ '^[0-9A-F]{24}$'
                                      AND right(f.name, 16) = upper(lpad(to_hex(l.at >> 32), 8, '0') ||
                                                                    lpad(to_hex((l.at & 4294967295) / l.size), 8, '0'))) w))
            ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int
       END,
       CASE WHEN r.recovering THEN 0 ELSE (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint END,
       CASE WHEN r.recovering THEN coalesce(pg_catalog.pg_last_wal_receive_lsn() - '0/0', 0)::bigint ELSE 0 END,
       CASE WHEN r.recovering THEN coalesce(pg_catalog.pg_last_wal_replay_lsn() - '0/0', 0)::bigint ELSE 0 END,
       r.recovering AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'),
       (SELECT sender_host FROM pg_catalog.pg_stat_wal_receiver),
       pg_catalog.to_char(pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00:00',
       current_setting('server_version_num')::int,
       current_setting('synchronous_standby_names'),
       current_setting('primary_conninfo') <> '',
       (SELECT coalesce(json_agg(json_build_object('member', application_name, 'state', state,
                                                   'sync_state', sync_state,
                                                   'priority', sync_priority, 'user', usename, 'address', host(client_addr),
                                                   'flush', coalesce(flush_lsn - '0/0', 0)::bigint)), '[]')::text
          FROM pg_catalog.pg_stat_replication),
       (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'plugin', plugin, 'database', database, 'active', active,
                                                   'lsn', coalesce(coalesce(confirmed_flush_lsn, restart_lsn) - '0/0', 0)::bigint,
                                                   'failover', coalesce((to_jsonb(s) ->> 'failover')::boolean, false))
                                 ORDER BY slot_name), '[]')::text
          FROM pg_catalog.pg_replication_slots s WHERE NOT temporary),
       (SELECT coalesce(json_agg(json_build_object(
                   'name', s.name, 'old', current_setting(s.name), 'unit', s.unit, 'boot', s.boot_val,
                   'new', (SELECT f.setting FROM pg_catalog.pg_file_settings f
                            WHERE lower(f.name) = lower(s.name) ORDER BY f.seqno DESC LIMIT 1))), '[]')::text
          FROM pg_catalog.pg_settings s WHERE s.pending_restart AND s.name NOT LIKE 'recovery_target%'),
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                WHERE backend_type = 'startup' AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')),
       r.recovering AND current_setting('restore_command') <> '',
       coalesce((SELECT latest_end_lsn - '0/0' FROM pg_catalog.pg_stat_wal_receiver), 0)::bigint,
       (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint,
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryPause'),
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                WHERE backend_type = 'checkpointer' AND (wait_event_type = 'Activity' OR wait_event = 'CheckpointWriteDelay')),
       ARRAY[current_setting('listen_addresses'), current_setting('port'), current_setting('config_file')]
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering) r";

/// A connection that is kept for questions, and opened again after any error.
#[derive(Default)]
pub struct Kept {
    held: Mutex<Option<Arc<Held>>>,
}

/// The kept connection, shared.
pub struct KeptClient(Arc<Held>);

impl std::ops::Deref for KeptClient {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.0.client
    }
}

struct Held {
    client: Client,
    status: Statement,
}

impl Kept {
    /// The server's state, within `limit`.
    pub(super) async fn status(
        &self,
        postgres: &Postgres,
        limit: Duration,
    ) -> Result<(ServerStatus, Listens), QueryError> {
        let answer = tokio::time::timeout(limit, async {
            let held = self.held(postgres).await?;
            let row = held.client.query_one(&held.status, &[]).await?;
            read(&row)
        })
        .await;
        let result = match answer {
            Ok(Ok(status)) => return Ok(status),
            Ok(Err(Error::Starting(_))) => Err(QueryError::Starting),
            Ok(Err(error)) => Err(QueryError::Failed(error.to_string())),
            Err(_) => Err(QueryError::Failed(format!("no answer within {} ms", limit.as_millis()))),
        };
        self.close();
        result
    }

    /// The kept connection, opened if there is none: no password has to be checked when every millisecond counts.
    pub(super) async fn client(&self, postgres: &Postgres) -> Result<KeptClient, Error> {
        self.held(postgres).await.map(KeptClient)
    }

    /// Forgets the connection: the server has ended, or is about to.
    pub fn close(&self) {
        self.slot().take();
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn held(&self, postgres: &Postgres) -> Result<Arc<Held>, Error> {
        let kept = self.slot().clone().filter(|held| !held.client.is_closed());
        if let Some(held) = kept {
            return Ok(held);
        }
        let client = postgres.login(&postgres.config().postgres.database, local::SHORT).await?;
        let status = client.prepare(STATUS).await?;
        let held = Arc::new(Held { client, status });
        *self.slot() = Some(held.clone());
        Ok(held)
    }
}

impl Kept {
    /// The history file of a timeline, its last line with the file's time.
    pub(super) async fn history(&self, postgres: &Postgres, timeline: Timeline) -> Result<Vec<Line>, Error> {
        let path = format!("pg_wal/{:08X}.history", timeline.0);
        let client = self.client(postgres).await?;
        let row = client
            .query_one(
                "SELECT pg_catalog.pg_read_file($1),
                        (extract(epoch FROM (pg_catalog.pg_stat_file($1)).modification) * 1000000)::bigint",
                &[&path],
            )
            .await?;
        let at = Wall(row.try_get(1)?);
        Ok(parse_file(row.try_get(0)?, Some(at.to_string())))
    }
}

#[derive(Deserialize)]
struct Standby {
    member: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    flush: u64,
    priority: Option<i32>,
    user: Option<String>,
    address: Option<String>,
}

/// Where the server listens, which was told to its postmaster at its start.
#[derive(Debug, Default)]
pub struct Listens(Vec<String>);

impl Listens {
    /// What of it is otherwise from the next start on.
    pub fn pending(&self, config: &Config) -> Vec<(String, Pending)> {
        let wanted = [config.postgres.listen_addresses.clone(), config.postgres.port.to_string()];
        let all = ["listen_addresses", "port"].into_iter().zip(self.0.iter().zip(wanted));
        all.filter(|(_, (old, new))| *old != new)
            .map(|(name, (old, new))| (name.to_owned(), Pending { old_value: old.clone(), new_value: new }))
            .collect()
    }

    /// The configuration that it was started with.
    pub fn config_file(&self) -> Option<&str> {
        self.0.get(2).map(String::as_str)
    }
}

/// A parameter that waits for a restart.
#[derive(Deserialize)]
struct Waiting {
    name: String,
    old: String,
    unit: Option<String>,
    boot: Option<String>,
    new: Option<String>,
}

impl Waiting {
    /// In Patroni's words: values with the largest unit that fits. What is in no file goes back to its default.
    fn pending(self) -> (String, Pending) {
        let new = self.new.or(self.boot).unwrap_or_default();
        let new_value = self.unit.as_deref().and_then(|unit| units::shown(&new, unit)).unwrap_or(new);
        (self.name, Pending { old_value: self.old, new_value })
    }
}

#[derive(Deserialize)]
struct Slot {
    name: String,
    plugin: Option<String>,
    database: Option<String>,
    active: bool,
    lsn: u64,
    failover: bool,
}

impl From<Slot> for SlotStatus {
    fn from(slot: Slot) -> Self {
        let kind = match (slot.database, slot.plugin) {
            (Some(database), Some(plugin)) => SlotKind::Logical { database, plugin },
            _ => SlotKind::Physical,
        };
        Self { name: slot.name, kind, active: slot.active, lsn: Lsn(slot.lsn), failover: slot.failover }
    }
}

fn read(row: &Row) -> Result<(ServerStatus, Listens), Error> {
    let lsn = |column: usize| -> Result<Lsn, Error> {
        Ok(Lsn(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default()))
    };
    let number =
        |column: usize| -> Result<u32, Error> { Ok(u32::try_from(row.try_get::<_, i32>(column)?).unwrap_or_default()) };
    let standbys: Vec<Standby> = serde_json::from_str(row.try_get(12)?)
        .map_err(|error| Error::Failed(format!("pg_stat_replication cannot be read: {error}")))?;
    let slots: Vec<Slot> = serde_json::from_str(row.try_get(13)?)
        .map_err(|error| Error::Failed(format!("pg_replication_slots cannot be read: {error}")))?;
    let waiting: Vec<Waiting> = serde_json::from_str(row.try_get(14)?)
        .map_err(|error| Error::Failed(format!("pg_settings cannot be read: {error}")))?;
    let listens: Vec<String> = row.try_get(22)?;
    let status = ServerStatus {
        in_recovery: row.try_get(0)?,
        system_id: row.try_get(1)?,
        timeline: Timeline(number(2)?),
        flush: lsn(3)?,
        received: lsn(4)?,
        replayed: lsn(5)?,
        streaming: row.try_get(6)?,
        upstream: row.try_get(7)?,
        started: row.try_get(8)?,
        version: number(9)?,
        sync_names: row.try_get(10)?,
        has_conninfo: row.try_get(11)?,
        standbys: standbys
            .into_iter()
            .map(|standby| StandbyStatus {
                member: standby.member.unwrap_or_default(),
                state: standby.state.unwrap_or_default(),
                sync_state: standby.sync_state.unwrap_or_default(),
                flush: Lsn(standby.flush),
                sync_priority: standby.priority.unwrap_or_default(),
                user: standby.user.unwrap_or_default(),
                address: standby.address,
            })
            .collect(),
        slots: slots.into_iter().map(SlotStatus::from).collect(),
        pending_restart: waiting.into_iter().map(Waiting::pending).collect(),
        checkpoint_timeline: Timeline(number(15)?),
        replay_waits: row.try_get(16)?,
        from_archive: row.try_get(17)?,
        upstream_end: lsn(18)?,
        replayed_at: row.try_get::<_, Option<i64>>(19)?.map(Wall),
        replay_paused: row.try_get(20)?,
        checkpointer_waits: row.try_get(21)?,
    };
    Ok((status, Listens(listens)))
}
