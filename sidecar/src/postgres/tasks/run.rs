//! Starting, promoting and stopping the server.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use matriarch_ha::effect::ServerConfig;
use matriarch_ha::event::{ControlData, DataDir};
use matriarch_ha::types::Timeline;
use matriarch_supervisor::protocol::{Answer, FileOp, Refusal, Request, Start, StartRole, StopMode, UserCommand};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::super::{Error, Postgres, local};
use crate::supervisor::CallError;

/// How long `pre_promote` may take.
const PRE_PROMOTE: Duration = Duration::from_secs(30);
/// How long `before_stop` may take: a stop in order waits for it, an immediate one and the fence do not.
const BEFORE_STOP: Duration = Duration::from_secs(5);
/// Between two tries to connect to a server that starts, or two looks at one that promotes.
const LOOK: Duration = Duration::from_millis(10);
/// Every so many tries the supervisor is asked whether the postmaster still runs.
const ASK_EVERY: u32 = 10;
/// After so many looks (some two seconds) at a server that starts, it takes long, and is looked at less and less often …
const PATIENT_AFTER: u32 = 150;
/// … but at least this often.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Line 1 of postmaster.pid is the pid, line 8 the state, `ready` when it accepts connections (PostgreSQL's miscadmin.h).
fn is_ready(pid_file: &str, pid: u32) -> bool {
    let mut lines = pid_file.lines();
    lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

/// `00000002.history`
fn history_file(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

impl Postgres {
    /// What is lost if everything dies after a step: nothing after any of them, but mind what would start.
    /// 1. Files are written: the directory is still what it was.
    /// 2. standby.signal is removed, last of all: the directory would start as a primary, which the supervisor does only for
    ///    `Start` as primary, and only with a permit.
    /// 3. The postmaster is spawned: the supervisor fences it, and tells the next agent.
    pub(super) async fn start_primary(&self, config: &ServerConfig) -> Result<(), Error> {
        self.not_half_rewound().await?;
        let data = self.present().await?;
        if let Some(mark) = self.bootstrap_marker().await? {
            return self.start_bootstrapped(config, &mark).await;
        }
        if data.state.contains("in recovery") || data.state.contains("in archive recovery") {
            return Err(Error::State(format!(
                "the directory is a standby's ({}): it becomes a primary by a promotion only",
                data.state
            )));
        }
        let label = self.supervisor.read(self.place.data_dir.join("backup_label")).await?;
        if label.is_some() {
            return Err(Error::State("the directory is a copy (backup_label): it must start as a standby".to_owned()));
        }
        let mut config = config.clone();
        config.upstream = None;
        self.files.forget();
        self.write_files(&config, false).await?;
        self.remove_signals().await?;
        self.start(StartRole::Primary, &[]).await
    }

    /// What is lost if everything dies after a step: nothing. standby.signal comes first, so that from the first step on no start
    /// of this directory can be writable.
    pub(in super::super) async fn start_standby(&self, config: &ServerConfig) -> Result<(), Error> {
        self.not_half_rewound().await?;
        let data = self.present().await?;
        if !data.standby_signal {
            self.supervisor.write(self.place.standby_signal(), String::new(), 0o600).await?;
        }
        self.files.forget();
        self.read_floor().await?;
        self.write_files(config, true).await?;
        self.start(StartRole::Standby, &[]).await
    }

    /// Without either, the directory starts as a primary.
    pub(super) async fn remove_signals(&self) -> Result<(), Error> {
        for name in ["recovery.signal", "standby.signal"] {
            self.supervisor.file(FileOp::Remove { path: self.place.data_dir.join(name) }).await?;
        }
        Ok(())
    }

    pub(super) async fn present(&self) -> Result<ControlData, Error> {
        match self.look().await? {
            DataDir::Present(data) => Ok(data),
            other => Err(Error::State(format!("there is no data directory to start: {other:?}"))),
        }
    }

    pub(super) async fn start(&self, role: StartRole, more: &[(String, String)]) -> Result<(), Error> {
        self.forget_connection();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if role == StartRole::Primary {
            self.guard().await?;
        }
        let start = Start {
            role,
            data_dir: self.place.data_dir.clone(),
            args: self.place.arguments(more),
            env: BTreeMap::new(),
        };
        let pid = self.supervisor.start(start).await?;
        self.accepting(Some(pid)).await.map(drop)
    }

    /// Waits until the server lets us in, or has ended. Has no deadline: recovery takes as long as it takes, and the core cancels.
    /// With a pid it is asked only when postmaster.pid says `ready`: each try before that would be a line in its log.
    async fn accepting(&self, pid: Option<u32>) -> Result<Client, Error> {
        let mut pause = LOOK;
        let mut tries = 0_u32;
        loop {
            let ready = match pid {
                Some(pid) => {
                    self.supervisor.read(self.place.pid_file()).await?.is_some_and(|text| is_ready(&text, pid))
                }
                None => true,
            };
            if ready {
                match self.login(&self.config().postgres.database, local::SHORT).await {
                    Ok(client) => return Ok(client),
                    Err(error @ (local::Error::Password(_) | local::Error::Secret(_))) => return Err(error.into()),
                    Err(error) => tracing::debug!("not yet: {error}"),
                }
            }
            tries += 1;
            if tries.is_multiple_of(ASK_EVERY) {
                self.running().await?;
            }
            sleep(pause).await;
            if tries > PATIENT_AFTER {
                pause = (pause * 5 / 4).min(LONGEST_PAUSE);
            }
        }
    }

    /// Fails when no postmaster runs.
    async fn running(&self) -> Result<(), Error> {
        let Answer::Status(status) = self.supervisor.call(Request::Status).await? else { return Ok(()) };
        if status.postmaster.is_some() {
            return Ok(());
        }
        let how = match status.last_exit {
            Some(exit) if exit.fenced => "the fence stopped it".to_owned(),
            Some(exit) => match (exit.code, exit.signal) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "unknown".to_owned(),
            },
            None => "unknown".to_owned(),
        };
        Err(Error::State(format!("PostgreSQL ended ({how}); the log of the container `postgres` says why")))
    }

    /// Asks `pre_promote`, bounded: the lock is renewed meanwhile, but the cluster has no primary.
    async fn may_promote(&self) -> Result<(), Error> {
        let Some(argv) = self.settings().pre_promote.clone() else { return Ok(()) };
        let command = UserCommand { argv, env: BTreeMap::new(), data_dir: None };
        let no = |why: String| Err(Error::Forbidden(format!("postgresql.pre_promote: {why}")));
        match timeout(PRE_PROMOTE, self.supervisor.command(command)).await {
            Ok(Ok(finished)) if finished.success() => Ok(()),
            Ok(Ok(finished)) => no(finished.reason()),
            Ok(Err(CallError::Refused { message, .. })) => no(message),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => no(format!("no end within {} s", PRE_PROMOTE.as_secs())),
        }
    }

    /// Runs `before_stop`, bounded; its result does not count. The fence goes on meanwhile, and closes at its deadline.
    async fn before_stop(&self, timeout_ms: u64) {
        let Some(argv) = self.settings().before_stop.clone() else { return };
        let command = UserCommand { argv, env: BTreeMap::new(), data_dir: None };
        let limit = BEFORE_STOP.min(Duration::from_millis(timeout_ms));
        match timeout(limit, self.supervisor.command(command)).await {
            Ok(Ok(finished)) if finished.success() => {}
            Ok(Ok(finished)) => tracing::warn!("postgresql.before_stop: {}", finished.reason()),
            Ok(Err(error)) => tracing::warn!("postgresql.before_stop: {error}"),
            Err(_) => {
                tracing::warn!("postgresql.before_stop did not end within {} ms: it is ended", limit.as_millis());
            }
        }
    }

    /// Done when the server is out of recovery.
    ///
    /// What is lost if everything dies after a step: nothing. Reserved timelines are files that say nothing untrue: the log of
    /// each ends where it begins.
    pub(super) async fn promote(&self, from: Timeline, to: Timeline) -> Result<(), Error> {
        const RECOVERING: &str = "SELECT pg_catalog.pg_is_in_recovery()";
        let mut client = self.kept.client(self).await?;
        if !client.query_one(RECOVERING, &[]).await?.try_get::<_, bool>(0)? {
            return Ok(());
        }
        self.may_promote().await?;
        self.guard().await?;
        self.drop_unproven(&client).await.unwrap_or_else(|error| tracing::warn!("copied slots: {error}"));
        self.reserve(&client, from, to).await?;
        self.supervisor.done(Request::Promote).await?;
        let mut statement = client.prepare(RECOVERING).await?;
        loop {
            match client.query_one(&statement, &[]).await {
                Ok(row) if !row.try_get::<_, bool>(0)? => return Ok(()),
                Ok(_) => sleep(LOOK).await,
                Err(error) => {
                    tracing::warn!("asking a server that promotes: {error}");
                    sleep(LOOK).await;
                    self.running().await?;
                    self.accepting(None).await?;
                    self.forget_connection();
                    client = self.kept.client(self).await?;
                    statement = client.prepare(RECOVERING).await?;
                }
            }
        }
    }

    /// PostgreSQL promotes to the first timeline after its own that has no history file. Those below `to` may have been made by
    /// another member, which only the lock remembers; a history file for each keeps PostgreSQL off them.
    async fn reserve(&self, client: &Client, from: Timeline, to: Timeline) -> Result<(), Error> {
        if from.0 == 0 || to.0 <= from.0 + 1 {
            return Ok(());
        }
        let replayed: String = client
            .query_one("SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text", &[])
            .await?
            .try_get(0)?;
        let folder = self.place.data_dir.join("pg_wal");
        let own = self.supervisor.read(folder.join(history_file(from))).await?.unwrap_or_default();
        for timeline in (from.0 + 1..to.0).map(Timeline) {
            let path = folder.join(history_file(timeline));
            if self.supervisor.read(path.clone()).await?.is_none() {
                let content = format!("{own}{from}\t{replayed}\treserved by another member\n");
                self.supervisor.write(path, content, 0o600).await?;
            }
        }
        Ok(())
    }

    /// Done when no process is left.
    pub(super) async fn stop(&self, immediate: bool, checkpoint: bool, timeout_ms: u64) -> Result<(), Error> {
        if checkpoint && !immediate {
            match timeout(Duration::from_millis(timeout_ms), self.checkpoint()).await {
                Ok(Ok(())) => {}
                // It only makes the stop shorter.
                Ok(Err(error)) => tracing::warn!("no checkpoint before the stop: {error}"),
                Err(_) => tracing::warn!("the checkpoint before the stop took longer than {timeout_ms} ms"),
            }
        }
        if !immediate {
            self.before_stop(timeout_ms).await;
        }
        let mode = if immediate { StopMode::Immediate } else { StopMode::Fast };
        let stopped = match self.supervisor.stop(mode, timeout_ms).await {
            // None runs: the goal is met.
            Err(CallError::Refused { kind: Refusal::WrongState, .. }) => Ok(()),
            other => other,
        };
        self.forget_connection();
        Ok(stopped?)
    }
}

#[cfg(test)]
mod tests {
    use super::is_ready;

    #[test]
    fn a_pid_file_tells_whose_it_is_and_whether_it_is_ready() {
        let text = "77\n/v/pgdata\n1700000000\n5432\n/var/run/postgresql\n*\n 9 8\nready   \n";
        assert!(is_ready(text, 77));
        assert!(!is_ready(text, 78));
        assert!(!is_ready(&text.replace("ready", "standby"), 77));
        assert!(!is_ready("77\n", 77));
    }
}
