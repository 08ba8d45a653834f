//! The facts of [`matriarch_ha::divergence`]: where our directory ends, and what the leader says of its timelines.

use matriarch_ha::divergence::{Divergence, Local, compare};
use matriarch_ha::effect::Upstream;
use matriarch_ha::event::ControlData;
use matriarch_ha::types::{Lsn, Timeline};

use super::super::{Error, Postgres, controldata, tool};

/// The name of a timeline's history file.
fn history_file(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

impl Postgres {
    /// Compares the stopped directory with the leader; none: the image has no psql to ask it.
    pub(super) async fn compared(&self, leader: &Upstream) -> Result<Option<Divergence>, Error> {
        let Some(remote) = self.identify(leader).await? else { return Ok(None) };
        let history = match remote.timeline {
            Timeline(0 | 1) => None,
            Timeline(number) => {
                let command = format!("TIMELINE_HISTORY {number}");
                let Some(said) = self.walsender(leader, &[&command]).await? else { return Ok(None) };
                Some(file_of(&said).to_owned())
            }
        };
        let local = self.local().await?;
        Ok(Some(compare(&local, remote.timeline, history.as_deref())))
    }

    /// Where our directory ends.
    async fn local(&self) -> Result<Local, Error> {
        let output = self.controldata(&self.place.data_dir).await?;
        if !output.success() {
            return Err(Error::Program(output.reason()));
        }
        let unreadable = |error: controldata::Error| Error::State(error.to_string());
        let data = controldata::parse(&output.output.stdout, false).map_err(unreadable)?;
        let recovered = controldata::recovered_to(&output.output.stdout);
        let standby = data.state.contains("in recovery") || data.state.contains("in archive recovery");
        let (timeline, lsn) = match recovered.filter(|_| standby) {
            // A restartpoint may lie behind what was replayed since, also on a former timeline.
            Some((timeline, lsn)) if lsn >= data.checkpoint => (timeline, lsn),
            _ => (data.timeline, data.checkpoint),
        };
        let end = if standby { None } else { self.end_of_log(&data).await? };
        let history = match timeline {
            Timeline(0 | 1) => None,
            other => self.supervisor.read(self.place.data_dir.join("pg_wal").join(history_file(other))).await?,
        };
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
