//! The facts of [`matriarch_ha::divergence`]: where our directory ends, and what the leader says of its timelines.

use std::time::Duration;

use matriarch_ha::divergence::{Divergence, Local, compare};
use matriarch_ha::effect::Upstream;
use matriarch_ha::event::ControlData;
use matriarch_ha::types::{Lsn, Timeline};

use super::super::remote::Remote;
use super::super::{Error, Postgres, controldata, tool};

/// A running server has so long to say where it is.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// The name of a timeline's history file.
fn history_file(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

impl Postgres {
    /// Compares the stopped directory with the leader; none: the image has no psql to ask it.
    pub(super) async fn compared(&self, leader: &Upstream) -> Result<Option<Divergence>, Error> {
        let Some((remote, history)) = self.history_of(leader).await? else { return Ok(None) };
        let local = self.local().await?;
        Ok(Some(compare(&local, remote.timeline, history.as_deref())))
    }

    /// Who it is, and the history of its timeline; none: the image has no psql.
    async fn history_of(&self, leader: &Upstream) -> Result<Option<(Remote, Option<String>)>, Error> {
        let Some(remote) = self.identify(leader).await? else { return Ok(None) };
        let Timeline(number @ 2..) = remote.timeline else { return Ok(Some((remote, None))) };
        let said = self.walsender(leader, &[&format!("TIMELINE_HISTORY {number}")]).await?;
        Ok(said.map(|said| (remote, Some(file_of(&said).to_owned()))))
    }

    /// Compares the log of a running standby with the history of the server that it follows; fails for good where they have parted.
    pub(super) async fn parted(&self, from: &Upstream) -> Result<(), Error> {
        self.write_passfile().await?;
        let Some((remote, history)) = self.history_of(from).await? else { return Ok(()) };
        let status = self.query(QUERY_TIMEOUT).await.map_err(|error| Error::State(format!("{error:?}")))?;
        if status.system_id != remote.system_id {
            let (theirs, ours) = (remote.system_id, status.system_id);
            return Err(Error::State(format!("{} belongs to another cluster ({theirs}, ours is {ours})", from.host)));
        }
        // Without a WAL receiver a session tells the timeline of the last restartpoint only; pg_control may know of a later one.
        let mut local = self.local().await?;
        if status.timeline >= local.timeline {
            (local.timeline, local.history) = (status.timeline, self.own_history(status.timeline).await?);
            local.lsn = local.lsn.max(status.received).max(status.replayed);
        }
        match compare(&Local { standby: true, end: None, ..local }, remote.timeline, history.as_deref()) {
            Divergence::Diverged(why) => Err(Error::Hopeless(why)),
            Divergence::None | Divergence::Unknown(_) => Ok(()),
        }
    }

    /// The history file of a timeline that we are on.
    async fn own_history(&self, timeline: Timeline) -> Result<Option<String>, Error> {
        Ok(match timeline {
            Timeline(0 | 1) => None,
            other => self.supervisor.read(self.place.data_dir.join("pg_wal").join(history_file(other))).await?,
        })
    }

    /// Where our directory ends.
    async fn local(&self) -> Result<Local, Error> {
        let output = self.controldata(&self.place.data_dir).await?;
        if !output.success() {
            return Err(Error::Program(output.reason()));
        }
        let unreadable = |error: controldata::Error| Error::State(error.to_string());
        let data = controldata::parse(&output.output.stdout, &output.output.stderr, false).map_err(unreadable)?;
        let recovered = controldata::recovered_to(&output.output.stdout);
        let standby = data.state.contains("in recovery") || data.state.contains("in archive recovery");
        let (timeline, lsn) = match recovered.filter(|_| standby) {
            // A restartpoint may lie behind what was replayed since, also on a former timeline.
            Some((timeline, lsn)) if lsn >= data.checkpoint => (timeline, lsn),
            _ => (data.timeline, data.checkpoint),
        };
        let end = if standby { None } else { self.end_of_log(&data).await? };
        let history = self.own_history(timeline).await?;
        Ok(Local { timeline, lsn, end, standby, history })
    }

    /// Where the last record of a cleanly stopped primary, its shutdown checkpoint, ends: `pg_waldump` says it of the record after
    /// it, which is none.
    async fn end_of_log(&self, data: &ControlData) -> Result<Option<Lsn>, Error> {
        if data.state != "shut down" {
            return Ok(None);
        }
        let wal = self.place.data_dir.join("pg_wal").to_string_lossy().into_owned();
        let arguments = ["-t", &data.timeline.to_string(), "-p", &wal, "-s", &data.checkpoint.to_string(), "-n", "2"]
            .map(str::to_owned);
        // Not every image has it; what it says is of use only to save a pg_rewind.
        let Ok(finished) = self.supervisor.run(tool("pg_waldump", arguments.to_vec())).await else { return Ok(None) };
        Ok(end_of_shutdown(&finished.output.stdout, &finished.output.stderr))
    }
}

/// One record, a shutdown checkpoint, and then the place where there is no other: `… at 0/3000028: invalid record length at
/// 0/30000A0: wanted 24, got 0`.
fn end_of_shutdown(stdout: &str, stderr: &str) -> Option<Lsn> {
    let mut records = stdout.lines().filter(|line| line.starts_with("rmgr:"));
    if !records.next()?.contains("CHECKPOINT_SHUTDOWN") || records.next().is_some() {
        return None;
    }
    let (_, rest) = stderr.split_once("invalid record length at ")?;
    rest.split(':').next()?.trim().parse().ok()
}

/// The answer of TIMELINE_HISTORY: a file's name, and its content.
fn file_of(said: &str) -> &str {
    said.split_once('|').map_or(said, |(_, content)| content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_shutdown_checkpoint_is_found() {
        let record = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000028, prev 0/02FFFFE0, desc: CHECKPOINT_SHUTDOWN redo 0/3000028\n";
        let error = "pg_waldump: error: error in WAL record at 0/3000028: invalid record length at 0/30000A0: wanted 24, got 0\n";
        assert_eq!(end_of_shutdown(record, error), Some(Lsn(0x300_00A0)));
        assert_eq!(end_of_shutdown(record, ""), None);
        assert_eq!(end_of_shutdown(&record.repeat(2), error), None);
        assert_eq!(end_of_shutdown(&record.replace("CHECKPOINT_SHUTDOWN", "RUNNING_XACTS"), error), None);
    }

    #[test]
    fn a_history_is_taken_from_its_answer() {
        assert_eq!(
            file_of("00000002.history|1\t0/3000000\tno recovery target specified\n"),
            "1\t0/3000000\tno recovery target specified\n"
        );
        assert_eq!(history_file(Timeline(0x1B)), "0000001B.history");
    }
}
