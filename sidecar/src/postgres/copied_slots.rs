//! Logical slots that were copied to a standby: may they be used after a promotion?
//!
//! Logical decoding reads old rows of the catalogs. The leader keeps them for its own slot, and for a copy only from the moment on in
//! which `hot_standby_feedback` has told it of the copy, which our physical slot there shows (`catalog_xmin`). Did the leader's own slot
//! move on before that, what the copy needs may have been vacuumed away: before PostgreSQL 16 nothing notices, and the copy would
//! decode rubbish. So a copy is proven or dropped (and copied again later); `<pgdata>.copied-slots` names those that are not proven, and
//! a promotion drops them first.

use std::time::Duration;

use matriarch_ha::effect::{ServerConfig, Upstream};
use matriarch_ha::member::slot_name;
use matriarch_supervisor::protocol::FileOp;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{Error, Postgres, conf, local, tool};
use crate::config::User;

/// Drops one that nobody uses.
pub(super) const DROP: &str =
    "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
                     WHERE slot_name = $1::text::name AND NOT active";
/// The first feedback goes out when the stream begins.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

impl Postgres {
    /// From before the copies are written until they are proven.
    pub(super) async fn mark_copied<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
        let text = names.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        if text.is_empty() {
            self.supervisor.file(FileOp::Remove { path: self.place.copied_slots() }).await?;
        } else {
            self.supervisor.write(self.place.copied_slots(), text, 0o600).await?;
        }
        Ok(())
    }

    /// Drops the copies that nobody has proven.
    pub(super) async fn drop_unproven(&self, client: &Client) -> Result<(), Error> {
        let Some(names) = self.supervisor.read(self.place.copied_slots()).await? else { return Ok(()) };
        for name in names.lines() {
            if client.execute(DROP, &[&name]).await? > 0 {
                tracing::warn!(
                    "the logical slot {name} is dropped: it was copied, and whether the leader kept what it needs is not known. Its \
                     consumer has to begin anew"
                );
            }
        }
        self.mark_copied(&[]).await
    }

    /// Waits until the leader keeps what the copies need; those of which that cannot be said are dropped.
    pub(super) async fn prove_copies(&self, from: &Upstream, config: &ServerConfig) -> Result<(), Error> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.unproven(from, config).await {
                Ok(Some(unproven)) => {
                    self.mark_copied(&unproven).await?;
                    break;
                }
                Ok(None) if Instant::now() < end => sleep(LOOK).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("asking {} for its slots: {error}", from.member);
                    break;
                }
            }
        }
        let client = self.login(&self.config().postgres.database, local::SHORT).await?;
        self.drop_unproven(&client).await
    }

    /// Those that the leader's own slot may have left behind before it knew of ours; none: it does not know of ours yet.
    async fn unproven(&self, from: &Upstream, config: &ServerConfig) -> Result<Option<Vec<String>>, Error> {
        let Some(marked) = self.supervisor.read(self.place.copied_slots()).await? else { return Ok(Some(Vec::new())) };
        let marked: Vec<String> = marked.lines().map(ToOwned::to_owned).collect();
        // What the leader has for us, or for the member through which we stream.
        let physical = match &config.upstream {
            Some(upstream) if upstream.member == from.member => upstream.slot.clone(),
            Some(upstream) => upstream.slot.as_ref().map(|_| slot_name(&upstream.member)),
            None => None,
        };
        let Some(physical) = physical else { return Ok(Some(marked)) };
        let client = self.login(&self.config().postgres.database, local::SHORT).await?;
        let ours = client
            .query(
                "SELECT slot_name::text, catalog_xmin::text FROM pg_catalog.pg_replication_slots
                  WHERE slot_name = ANY($1::text[]::name[]) AND catalog_xmin IS NOT NULL",
                &[&marked],
            )
            .await?;
        let ours: Vec<(String, String)> = ours
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, tokio_postgres::Error>>()?;
        if ours.is_empty() {
            return Ok(Some(marked));
        }
        let values =
            ours.iter().map(|(name, xmin)| format!("('{name}', '{xmin}'::xid)")).collect::<Vec<_>>().join(", ");
        // age(): the older, the larger.
        let kept = format!(
            "SELECT count(*) FROM pg_catalog.pg_replication_slots p, (VALUES {values}) ours(name, xmin)
              WHERE p.slot_name = '{physical}' AND age(p.catalog_xmin) >= age(ours.xmin)"
        );
        if self.ask(from, &kept).await?.trim() != ours.len().to_string() {
            return Ok(None);
        }
        // And only then: has its own slot kept it until now?
        let proven = format!(
            "SELECT l.slot_name FROM pg_catalog.pg_replication_slots l JOIN (VALUES {values}) ours(name, xmin)
                 ON l.slot_name = ours.name WHERE age(l.catalog_xmin) >= age(ours.xmin)"
        );
        let proven = self.ask(from, &proven).await?;
        Ok(Some(marked.into_iter().filter(|name| !proven.lines().any(|line| line == name)).collect()))
    }

    /// What the leader answers, as `psql -At` writes it. With the rights of `pg_rewind`'s role.
    pub(super) async fn ask(&self, from: &Upstream, sql: &str) -> Result<String, Error> {
        let user = self.config().credentials(User::Rewind)?.username;
        let database = self.config().postgres.database.clone();
        let more = [("user", user.as_str()), ("dbname", database.as_str()), ("application_name", "matriarch")];
        let source = conf::conninfo(&self.place, from, &more);
        let arguments = ["-X", "-At", "-q", "-w", "-d", &source, "-c", sql].map(ToOwned::to_owned).to_vec();
        let finished = self.supervisor.run(tool("psql", arguments)).await?;
        if !finished.success() {
            return Err(Error::Program(finished.reason()));
        }
        Ok(finished.output.stdout)
    }
}
