//! The output of `pg_controldata` (with `LC_ALL=C`). Pure.

use std::collections::BTreeMap;

use matriarch_ha::event::ControlData;
use matriarch_ha::types::{Lsn, Timeline};

/// What of the output cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A line is missing.
    #[error("pg_controldata does not tell {0:?}")]
    Missing(&'static str),
    /// A value is not as it has to be.
    #[error("pg_controldata tells {name:?} as {value:?}, which cannot be read")]
    Malformed {
        /// Of which line.
        name: &'static str,
        /// What is there.
        value: String,
    },
    /// The control file is damaged.
    #[error("the checksum of pg_control is wrong: the file is damaged")]
    Damaged,
}

/// All lines, by what stands before the colon.
fn lines(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim())).collect()
}

/// What it warns of before results that are worth nothing, and yet ends well: on its output, since version 18 (in lower case) among
/// its errors.
const WARNING: &str = "alculated CRC checksum does not match";

/// The parts that the core decides by.
pub fn parse(output: &str, errors: &str, standby_signal: bool) -> Result<ControlData, Error> {
    if output.contains(WARNING) || errors.contains(WARNING) {
        return Err(Error::Damaged);
    }
    let lines = lines(output);
    let find = |name: &'static str| lines.get(name).copied().ok_or(Error::Missing(name));
    let malformed = |name: &'static str, value: &str| Error::Malformed { name, value: value.to_owned() };
    let lsn = |name: &'static str| {
        let value = find(name)?;
        value.parse().map_err(|_| malformed(name, value))
    };
    let timeline = find("Latest checkpoint's TimeLineID")?;
    Ok(ControlData {
        system_id: find("Database system identifier")?.to_owned(),
        state: find("Database cluster state")?.to_owned(),
        timeline: Timeline(timeline.parse().map_err(|_| malformed("Latest checkpoint's TimeLineID", timeline))?),
        checkpoint: lsn("Latest checkpoint location")?,
        min_recovery: lsn("Minimum recovery ending location")?,
        standby_signal,
    })
}

/// Where a recovery has to have come to, and its timeline: what a standby has replayed and written.
pub fn recovered_to(output: &str) -> Option<(Timeline, Lsn)> {
    let lines = lines(output);
    let lsn = lines.get("Minimum recovery ending location")?.parse().ok()?;
    let timeline = lines.get("Min recovery ending loc's timeline")?.parse().ok()?;
    (timeline != 0).then_some((Timeline(timeline), lsn))
}

/// Whether `pg_rewind` can work on it.
pub fn rewindable(output: &str) -> bool {
    let lines = lines(output);
    lines.get("wal_log_hints setting") == Some(&"on")
        || lines.get("Data page checksum version").is_some_and(|version| *version != "0")
}

/// The numbers of the settings that a standby must not go below, by their names there.
pub fn settings(output: &str) -> BTreeMap<String, u64> {
    lines(output)
        .into_iter()
        .filter(|(name, _)| name.ends_with(" setting"))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7439129873659136912
Database cluster state:               in production
pg_control last modified:             Mon 04 Nov 2024 10:00:00 AM UTC
Latest checkpoint location:           0/15A3C70
Latest checkpoint's REDO location:    0/15A3C38
Latest checkpoint's REDO WAL file:    000000010000000000000001
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
wal_level setting:                    replica
max_connections setting:              100
max_worker_processes setting:         8
max_locks_per_xact setting:           64
Data page checksum version:           1
";

    #[test]
    fn a_primary_is_read() {
        let data = parse(PRIMARY, "", false).unwrap();
        assert_eq!(data.system_id, "7439129873659136912");
        assert_eq!(data.state, "in production");
        assert_eq!((data.timeline, data.checkpoint, data.min_recovery), (Timeline(1), Lsn(0x15A_3C70), Lsn(0)));
        assert_eq!(settings(PRIMARY)["max_connections setting"], 100);
        assert!(!settings(PRIMARY).contains_key("wal_level setting"));
        assert_eq!(recovered_to(PRIMARY), None);
        let standby =
            PRIMARY.replace("location:     0/0", "location:     0/30").replace("timeline:   0", "timeline:   2");
        assert_eq!(recovered_to(&standby), Some((Timeline(2), Lsn(0x30))));
        assert!(rewindable(PRIMARY));
        assert!(!rewindable(&PRIMARY.replace("version:           1", "version:           0")));
    }

    #[test]
    fn what_is_missing_or_damaged_is_said() {
        assert_eq!(parse("nothing", "", false), Err(Error::Missing("Latest checkpoint's TimeLineID")));
        let odd = PRIMARY.replace("0/15A3C70", "here");
        assert!(matches!(parse(&odd, "", false), Err(Error::Malformed { name: "Latest checkpoint location", .. })));
        let damaged = format!("WARNING: Calculated CRC checksum does not match value stored in file.\n{PRIMARY}");
        assert_eq!(parse(&damaged, "", false), Err(Error::Damaged));
        let of_18 = "pg_controldata: warning: calculated CRC checksum does not match value stored in control file\npg_controldata: detail: …";
        assert_eq!(parse(PRIMARY, of_18, false), Err(Error::Damaged));
    }
}
