//! S6: WAL is only ever appended to the log that it belongs to.

use crate::model::wal::Pos;
use crate::world::World;

impl World {
    /// A directory that was half rewound is never started: no log belongs to it.
    pub(crate) fn check_start(&mut self, node: usize) {
        if !self.nodes[node].disk.intact() {
            let what = format!("{} starts a data directory that is not whole", self.nodes[node].name);
            self.check.fail(self.now, "S6", what);
        }
    }

    /// `node`, whose log ends at `at`, takes WAL up to `source` from `up`.
    pub(crate) fn check_stream(&mut self, node: usize, up: usize, source: Pos, at: Pos) {
        let whole = Pos { lsn: u64::MAX, ..source };
        let belongs = self.wal.contains(whole, at);
        if !belongs {
            let what = format!(
                "{} streams timeline {} from {} on a log that went another way (timeline {}, {})",
                self.nodes[node].name,
                self.wal.timeline(source.branch),
                self.nodes[up].name,
                self.wal.timeline(at.branch),
                at.lsn
            );
            self.check.fail(self.now, "S6", what);
        }
    }
}
