//! `pg_rewind`: a former primary becomes a copy of the new one's past.

use std::time::Duration;

use matriarch_ha::divergence::Divergence;
use matriarch_ha::effect::{ServerConfig, Upstream};
use matriarch_ha::event::{ControlData, DataDir};
use matriarch_supervisor::protocol::{Answer, FileOp, Refusal, Request, StopMode};
use tokio::time::{Instant, sleep};

use super::super::{Error, Postgres, conf, controldata, tool};
use crate::config::User;
use crate::supervisor::CallError;

/// From here on `pg_rewind` changes the target (its text since PostgreSQL 9.5).
const CHANGES: &str = "rewinding from last common checkpoint";
/// There is nothing to do (its text since PostgreSQL 9.5).
const NOTHING: &str = "no rewind required";
/// Why, where the numbers are the same.
const SAME_TIMELINE: &str = "source and target cluster are on the same timeline";
/// How long a standby that crashed may take to stop after it was started for a clean end.
const SETTLE_TIMEOUT_MS: u64 = 60_000;

/// The leader checkpoints right after its promotion; more than this and it does not.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(200);
/// Whether the source's last checkpoint is on its timeline.
const IN_CONTROL: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' \
     WHEN timeline_id = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int THEN 'yes' \
     ELSE 'no' END FROM pg_control_checkpoint()";

impl Postgres {
    /// Where the directory is in the leader's history nothing is rewound: it only becomes a standby's.
    ///
    /// What is lost if everything dies after a step:
    /// 1. The directory is brought to a clean end (crash recovery): nothing.
    /// 2. `<pgdata>.rewinding` is written: from here on the directory counts as broken, as a half rewound one is. If `pg_rewind`
    ///    fails before it has changed anything, the mark is taken away again.
    /// 3. `pg_rewind` has ended well, standby.signal is written: nothing but the time of another clone, while the mark is there.
    /// 4. The mark is removed: nothing.
    pub(super) async fn rewind(&self, from: &Upstream, pg_rewind: bool) -> Result<(), Error> {
        if let Answer::Status(status) = self.supervisor.call(Request::Status).await?
            && status.postmaster.is_some()
        {
            return Err(Error::State("PostgreSQL runs: it must be stopped before pg_rewind".to_owned()));
        }
        self.not_half_rewound().await?;
        self.write_passfile().await?;
        let found = self.look().await?;
        let DataDir::Present(data) = found else {
            return Err(Error::State(format!("there is no data directory to rewind: {found:?}")));
        };
        self.clean_end(&data).await?;
        self.another_copy(from).await?;
        let divergence = self.compared(from).await?;
        tracing::info!("compared with {}: {divergence:?}", from.member);
        match &divergence {
            Some(Divergence::None) => {
                return Ok(self.supervisor.write(self.place.standby_signal(), String::new(), 0o600).await?);
            }
            Some(Divergence::Diverged(why) | Divergence::Unknown(why)) => self.can_rewind(pg_rewind, why).await?,
            None => self.can_rewind(pg_rewind, "its history cannot be asked for").await?,
        }
        self.archive_ready().await?;

        let rewind = self.config().credentials(User::Rewind)?;
        self.timeline_is_in_control(from, &rewind.username).await?;
        let database = self.config().postgres.database.clone();
        let more =
            [("user", rewind.username.as_str()), ("dbname", database.as_str()), ("application_name", "pg_rewind")];
        let source = conf::conninfo(&self.place, from, &more);
        let mut arguments =
            vec![format!("--target-pgdata={}", self.place.data_dir.display()), format!("--source-server={source}")];
        if self.settings().recovery.get("restore_command").is_some_and(|command| !command.is_empty()) {
            self.write_recovery().await?;
            // Segments that are gone from pg_wal come from the archive.
            arguments.push("--restore-target-wal".to_owned());
        }
        if let Some(argument) = self.tell_config().await? {
            arguments.push(argument);
        }
        self.supervisor.write(self.place.rewinding(), format!("{}\n", from.member), 0o600).await?;
        self.files.forget();
        let finished = self.supervisor.run(tool("pg_rewind", arguments)).await?;
        if !finished.success() {
            let said = |text: &str| text.contains(CHANGES);
            // Ended by a signal (cancelled, out of memory) tells nothing: the mark stays.
            if finished.code.is_some() && !said(&finished.output.stderr) && !said(&finished.output.stdout) {
                self.supervisor.file(FileOp::Remove { path: self.place.rewinding() }).await?;
            }
            return Err(Error::Program(finished.reason()));
        }
        // It compares numbers of timelines only. A former primary that crashed before the first checkpoint of its timeline knows
        // that one only since pg_rewind recovered it: until then nothing told that the leader has made another of the number.
        let said = |words: &str| [&finished.output.stderr, &finished.output.stdout].iter().any(|t| t.contains(words));
        match divergence {
            Some(Divergence::Diverged(why)) if said(NOTHING) => Err(why),
            Some(Divergence::Unknown(why)) if said(SAME_TIMELINE) => Err(why),
            _ => Ok(()),
        }
        // The mark stays: what is here must not follow.
        .map_err(|why| Error::Hopeless(format!("{why}; pg_rewind does not see it")))?;
        self.supervisor.write(self.place.standby_signal(), String::new(), 0o600).await?;
        self.supervisor.file(FileOp::Remove { path: self.place.rewinding() }).await?;
        Ok(())
    }

    /// `pg_rewind` starts a server for crash recovery and for restore_command: it must find the configuration, also where that is not in
    /// the data directory. Before PostgreSQL 15 nothing can be told to it but by a file.
    async fn tell_config(&self) -> Result<Option<String>, Error> {
        if !self.place.elsewhere() {
            return Ok(None);
        }
        let conf = self.place.conf();
        if self.supervisor.major_version().is_some_and(|major| major >= 15) {
            return Ok(Some(format!("--config-file={}", conf.display())));
        }
        let text = format!("include_if_exists {}\n", conf::guc_quote(&conf.to_string_lossy()));
        self.supervisor.write(self.place.data_dir.join("postgresql.conf"), text, 0o600).await?;
        Ok(None)
    }

    /// Whether `pg_rewind` may be used, and can.
    async fn can_rewind(&self, pg_rewind: bool, why: &str) -> Result<(), Error> {
        if !pg_rewind {
            return Err(Error::Hopeless(format!("{why}; postgresql.use_pg_rewind is off")));
        }
        let control = self.controldata(&self.place.data_dir).await?;
        if control.success() && !controldata::rewindable(&control.output.stdout) {
            return Err(Error::Hopeless(format!("{why}; pg_rewind needs data checksums or wal_log_hints = on")));
        }
        Ok(())
    }

    /// Waits until the source's control file tells its timeline, which it does after the first checkpoint that follows a promotion.
    /// Before, `pg_rewind` would take a diverged directory for one of the same timeline, and change nothing.
    pub(super) async fn timeline_is_in_control(&self, from: &Upstream, user: &str) -> Result<(), Error> {
        let database = self.config().postgres.database.clone();
        let more = [("user", user), ("dbname", database.as_str()), ("application_name", "pg_rewind")];
        let source = conf::conninfo(&self.place, from, &more);
        let arguments = ["-X", "-At", "-q", "-w", "-d", &source, "-c", IN_CONTROL].map(ToOwned::to_owned);
        let end = Instant::now() + CHECKPOINT_TIMEOUT;
        loop {
            let finished = match self.supervisor.run(tool("psql", arguments.to_vec())).await {
                Err(CallError::Refused { kind: Refusal::NotFound, .. }) => {
                    tracing::warn!("the image has no psql: whether {} has checkpointed cannot be asked", from.member);
                    return Ok(());
                }
                other => other?,
            };
            if !finished.success() {
                return Err(Error::Program(finished.reason()));
            }
            match finished.output.stdout.trim() {
                "yes" => return Ok(()),
                "standby" => return Err(Error::State(format!("{} is no primary", from.member))),
                _ if Instant::now() >= end => {
                    return Err(Error::State(format!(
                        "{} has not checkpointed since its promotion: pg_rewind would not see its timeline",
                        from.member
                    )));
                }
                _ => sleep(CHECKPOINT_LOOK).await,
            }
        }
    }

    /// `pg_rewind` needs a directory that was shut down cleanly. For a crashed primary it runs single-user recovery itself, which
    /// standby.signal would forbid. A crashed *standby* must not be recovered so: its end-of-recovery checkpoint would lie on the
    /// leader's own timeline, where `pg_rewind` would not see it. It is started as a standby without an upstream, and stopped.
    async fn clean_end(&self, data: &ControlData) -> Result<(), Error> {
        match data.state.as_str() {
            "shut down" | "shut down in recovery" => Ok(()),
            "in archive recovery" => {
                self.start_standby(&ServerConfig::default()).await?;
                self.supervisor.stop(StopMode::Fast, SETTLE_TIMEOUT_MS).await?;
                Ok(())
            }
            _ => {
                if data.standby_signal {
                    self.supervisor.file(FileOp::Remove { path: self.place.standby_signal() }).await?;
                }
                Ok(())
            }
        }
    }
}
