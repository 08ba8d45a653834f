//! A folder of its own for the WAL, to which `pg_wal` of PGDATA is a link (`matriarch.wal_dir`).
//!
//! Who removes PGDATA empties it afterwards, never before: so there is no moment in which a data directory is there whose WAL is not.
//! What is in it without a PGDATA is of no use to anybody.

use std::path::PathBuf;

use matriarch_ha::event::DataDir;
use matriarch_supervisor::protocol::FileOp;

use super::super::{Error, Postgres};

impl Postgres {
    /// The argument of `initdb` and `pg_basebackup`, which want it empty. Only ever called when PGDATA is gone, or holds nothing.
    ///
    /// Died after it was emptied: PGDATA counts as empty, as before, and it is emptied again.
    pub(super) async fn fresh_wal_dir(&self) -> Result<Option<String>, Error> {
        let Some(wal_dir) = self.place.wal_dir.clone() else { return Ok(None) };
        if let DataDir::Present(_) = self.look().await? {
            return Err(Error::State(format!("{} belongs to a data directory that is there", wal_dir.display())));
        }
        self.supervisor.file(FileOp::RemoveTree { path: wal_dir.clone() }).await?;
        Ok(Some(format!("--waldir={}", wal_dir.display())))
    }

    /// What a failed bootstrap has left of it goes with the rest.
    pub(super) async fn move_wal_aside(&self) -> Result<(), Error> {
        let Some(wal_dir) = self.place.wal_dir.clone() else { return Ok(()) };
        let mut failed = wal_dir.clone().into_os_string();
        failed.push(".failed");
        let failed = PathBuf::from(failed);
        if self.supervisor.list(wal_dir.clone()).await?.is_some() {
            self.supervisor.file(FileOp::RemoveTree { path: failed.clone() }).await?;
            self.supervisor.file(FileOp::Rename { from: wal_dir, to: failed }).await?;
        }
        Ok(())
    }

    /// Why the WAL of a data directory is not there: its volume was lost. None: it is, or it was never apart.
    pub(in super::super) async fn lost_wal(&self) -> Result<Option<String>, Error> {
        let Some(wal_dir) = &self.place.wal_dir else { return Ok(None) };
        let pg_wal = self.place.data_dir.join("pg_wal");
        let gone = match self.supervisor.list(pg_wal).await {
            Ok(names) => names.is_none(),
            // A link that leads nowhere.
            Err(crate::supervisor::CallError::Refused { .. }) => self.supervisor.list(wal_dir.clone()).await?.is_none(),
            Err(error) => return Err(error.into()),
        };
        Ok(gone.then(|| format!("its WAL in {} is gone", wal_dir.display())))
    }
}
