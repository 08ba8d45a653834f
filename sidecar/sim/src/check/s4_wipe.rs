//! S4: at the moment in which a data directory is destroyed, another complete one has every acknowledged commit that it has.

use crate::model::wal::Pos;
use crate::world::World;

impl World {
    pub(crate) fn check_wipe(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        if !disk.intact() {
            return;
        }
        let ours = disk.written;
        let missing_here = self.missing(true, ours);
        let all: Vec<Pos> =
            self.missing(true, Pos::default()).into_iter().filter(|commit| !missing_here.contains(commit)).collect();
        if !self.elsewhere(node, &all) {
            let what =
                format!("{} destroys the only copy of {} acknowledged branch(es)", self.nodes[node].name, all.len());
            self.check.fail(self.now, "S4", what);
        }
    }
}
