//! S8: clients are never sent back to an earlier holder of the lock by a write of that holder.

use crate::world::World;

/// Who had the lock when, and who wrote the address last.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Holders' pods, the last one last.
    holders: Vec<String>,
    /// Index of the one that the address names.
    written_by: usize,
}

impl Routing {
    pub(crate) fn acquired(&mut self, uid: &str) {
        self.holders.push(uid.to_owned());
    }
}

impl World {
    /// An address was written by this member.
    pub(crate) fn check_route(&mut self, node: usize, uid: &str) {
        let routing = &mut self.check.routing;
        match routing.holders.iter().rposition(|holder| holder == uid) {
            None => {
                let what =
                    format!("{} sends clients to itself without ever having had the lock", self.nodes[node].name);
                self.check.fail(self.now, "S8", what);
            }
            Some(turn) if turn < routing.written_by => {
                let what = format!("{} sends clients back from a later holder", self.nodes[node].name);
                self.check.fail(self.now, "S8", what);
            }
            Some(turn) => routing.written_by = turn,
        }
    }
}
