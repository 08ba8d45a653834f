//! Who reaches whom.

use super::World;
use crate::draw::For;

/// Counted, as faults overlap.
#[derive(Debug, Default)]
pub(crate) struct Network {
    api: Vec<u32>,
    /// From, to.
    links: Vec<Vec<u32>>,
}

impl Network {
    pub(crate) fn add(&mut self) {
        self.api.push(0);
        for row in &mut self.links {
            row.push(0);
        }
        self.links.push(vec![0; self.api.len()]);
    }

    pub(crate) fn api(&self, node: usize) -> bool {
        self.api[node] == 0
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        self.links[from][to] == 0
    }

    pub(crate) fn cut_api(&mut self, node: usize, cut: bool) {
        count(&mut self.api[node], cut);
    }

    pub(crate) fn cut_link(&mut self, from: usize, to: usize, cut: bool) {
        count(&mut self.links[from][to], cut);
    }

    pub(crate) fn heal(&mut self) {
        self.api.fill(0);
        for row in &mut self.links {
            row.fill(0);
        }
    }
}

pub(crate) fn count(counter: &mut u32, up: bool) {
    *counter = if up { *counter + 1 } else { counter.saturating_sub(1) };
}

impl World {
    /// Both directions.
    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        self.net.reaches(a, b) && self.net.reaches(b, a)
    }

    /// Now and then something takes much longer than usual.
    pub(crate) fn delay(&mut self, what: For, entity: usize, mean: u64) -> u64 {
        let usual = mean / 4 + self.draws.exponential(what, entity, mean);
        if self.draws.chance(what, entity, 3) { usual * 30 } else { usual }
    }
}
