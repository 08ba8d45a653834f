//! A data directory: what survives a crash of the processes, and what a crash of the node takes.

use matriarch_ha::slots::SlotStatus;

use super::wal::{BranchId, Pos, Wal};

/// Whether the directory can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// No directory, or an unfinished copy beside it.
    Empty,
    /// Complete.
    Intact,
    /// Half rewound: never to be started.
    Broken,
}

/// pg_control's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    InProduction,
    ShutDown,
    ShutDownInRecovery,
    InArchiveRecovery,
}

impl State {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::InProduction => "in production",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::InArchiveRecovery => "in archive recovery",
        }
    }
}

/// The size of a checkpoint record, for positions that lie before or after it.
pub(crate) const RECORD: u64 = 120;

/// A volume with PGDATA.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) health: Health,
    /// End of the log as written: what survives the processes.
    pub(crate) written: Pos,
    /// As flushed, on the same branch: what survives the node.
    pub(crate) flushed: u64,
    /// As replayed, on a standby.
    pub(crate) replayed: u64,
    /// Of pg_control.
    pub(crate) state: State,
    /// Timeline of the last checkpoint.
    pub(crate) control_timeline: u32,
    /// Where it begins.
    pub(crate) checkpoint: u64,
    /// Before here a standby is not consistent.
    pub(crate) consistent: u64,
    pub(crate) standby_signal: bool,
    /// The highest timeline number whose history this directory has.
    pub(crate) known_timeline: u32,
    /// Replication slots.
    pub(crate) slots: Vec<SlotStatus>,
}

impl Disk {
    pub(crate) fn empty() -> Self {
        Self {
            health: Health::Empty,
            written: Pos::default(),
            flushed: 0,
            replayed: 0,
            state: State::ShutDown,
            control_timeline: 0,
            checkpoint: 0,
            consistent: 0,
            standby_signal: false,
            known_timeline: 0,
            slots: Vec::new(),
        }
    }

    /// After initdb.
    pub(crate) fn fresh(branch: BranchId) -> Self {
        Self {
            health: Health::Intact,
            written: Pos { branch, lsn: 0x0100_0000 },
            flushed: 0x0100_0000,
            replayed: 0x0100_0000,
            state: State::ShutDown,
            control_timeline: 1,
            checkpoint: 0x0100_0000 - RECORD,
            consistent: 0,
            standby_signal: false,
            known_timeline: 1,
            slots: Vec::new(),
        }
    }

    pub(crate) fn intact(&self) -> bool {
        self.health == Health::Intact
    }

    /// A copy made by pg_basebackup: the log up to now is in it.
    pub(crate) fn copy_of(source: &Self, wal: &Wal) -> Self {
        let timeline = wal.timeline(source.written.branch);
        Self {
            health: Health::Intact,
            written: Pos { branch: source.written.branch, lsn: source.flushed },
            flushed: source.flushed,
            replayed: source.flushed,
            state: State::InArchiveRecovery,
            control_timeline: source.control_timeline,
            checkpoint: source.checkpoint,
            consistent: source.flushed,
            standby_signal: true,
            known_timeline: timeline.max(source.known_timeline),
            slots: Vec::new(),
        }
    }

    /// Writes a record of the running primary; its end.
    pub(crate) fn append(&mut self, bytes: u64) -> u64 {
        self.written.lsn += bytes;
        self.written.lsn
    }

    /// A checkpoint whose record is flushed.
    pub(crate) fn write_checkpoint(&mut self, wal: &Wal, state: State) {
        self.checkpoint = self.written.lsn;
        self.append(RECORD);
        self.flushed = self.written.lsn;
        self.replayed = self.written.lsn;
        self.control_timeline = wal.timeline(self.written.branch);
        self.state = state;
    }

    /// What a running standby's restartpoint leaves.
    pub(crate) fn restartpoint(&mut self, wal: &Wal) {
        self.control_timeline = wal.timeline(self.written.branch);
        self.checkpoint = self.replayed.saturating_sub(RECORD);
    }
}
