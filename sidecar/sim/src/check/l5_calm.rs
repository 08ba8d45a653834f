//! L5: a cluster that is whole again comes to rest: its leader stays, and nobody is copied again and again.

use crate::world::World;

/// A rewind that ends with a copy, and a copy whose source was restarted.
const WIPES: u32 = 3;

impl World {
    /// These members are one whole now; so many promotions there had been when they got their leader.
    pub(crate) fn check_calm(&mut self, members: &[usize], promotions: u64) {
        let changes = self.stats.failovers.saturating_sub(promotions);
        // An order of before may be due later.
        if changes > 1 && !self.check.failover_by_hand {
            self.check.fail(self.now, "L5", format!("{changes} changes of the leader though nothing failed any more"));
        }
        let often = members.iter().map(|m| &self.nodes[self.current[*m]]).find(|n| n.wipes > WIPES);
        if let Some(n) = often {
            let what = format!("{} was rewound or copied {} times though nothing failed any more", n.name, n.wipes);
            self.check.fail(self.now, "L5", what);
        }
    }
}
