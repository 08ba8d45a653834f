//! The long tasks. Each can be cancelled between any two steps by dropping its future, and begun again from its start.

mod archive;
mod bootstrap;
mod clone;
mod clone_from;
mod compare;
mod custom;
mod rewind;
mod run;
mod wal_dir;

use std::time::Duration;

use matriarch_ha::effect::Task;
use matriarch_ha::event::TaskError;
use tokio::time::timeout;

use super::{Error, Postgres};

/// A program that was told to end is given so long before the cancelled task is reported.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Postgres {
    /// Does it, or ends soon after `cancelled` has resolved, when no program of it runs any more.
    pub async fn task(&self, task: Task, cancelled: impl Future<Output = ()>) -> Result<(), TaskError> {
        tokio::select! {
            result = self.perform(task) => return result.map_err(TaskError::from),
            () = cancelled => {}
        }
        // Dropping the future has told the supervisor to kill what it ran.
        if timeout(KILL_TIMEOUT, self.supervisor.runs_ended()).await.is_err() {
            tracing::warn!("a program goes on although it was told to end");
        }
        self.files.forget();
        Err(TaskError::Cancelled)
    }

    async fn perform(&self, task: Task) -> Result<(), Error> {
        match task {
            Task::Initdb => self.bootstrap().await,
            Task::PostBootstrap => self.post_bootstrap().await,
            Task::MoveAside => self.move_aside().await,
            Task::BaseBackup { from, leader } => self.base_backup(&from, &leader).await,
            Task::Restore => self.restore().await,
            Task::CopySlots { from, slots, config } => self.copy_slots(&from, &slots, &config).await,
            Task::Compare { from } => self.parted(&from).await,
            Task::Rewind { from, pg_rewind } => self.rewind(&from, pg_rewind).await,
            Task::StartPrimary { config } => self.start_primary(&config).await,
            Task::StartStandby { config } => self.start_standby(&config).await,
            Task::Promote { from, to } => self.promote(from, to).await,
            Task::Stop { immediate, checkpoint, timeout_ms } => self.stop(immediate, checkpoint, timeout_ms).await,
        }
    }

    /// Fails where the directory is what an unfinished `pg_rewind` left.
    async fn not_half_rewound(&self) -> Result<(), Error> {
        match self.supervisor.read(self.place.rewinding()).await? {
            None => Ok(()),
            Some(from) => Err(Error::State(format!(
                "a pg_rewind from {} did not end well: the data directory must be cloned anew",
                from.trim()
            ))),
        }
    }
}
