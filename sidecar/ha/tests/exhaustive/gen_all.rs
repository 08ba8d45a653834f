//! All choices, one run after the other: code that draws from a [`Gen`] is run until every combination of draws was seen.

/// Draws in the order of an odometer; how many choices there are is learned while running.
#[derive(Debug, Default)]
pub struct Gen {
    /// What each draw of this run gives, and the largest that it may give.
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Gen {
    /// The number of a choice, below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "a choice among nothing");
        if self.at == self.path.len() {
            self.path.push((0, n - 1));
        }
        self.at += 1;
        let (value, max) = self.path[self.at - 1];
        assert_eq!(max, n - 1, "the same draws must lead to the same choices");
        value
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// On to the next combination; false after the last one.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((value, max)) = self.path.pop() {
            if value < max {
                self.path.push((value + 1, max));
                return true;
            }
        }
        false
    }

    /// Runs `body` once for each combination of its draws; how many there were.
    pub fn all(mut body: impl FnMut(&mut Self)) -> usize {
        let (mut this, mut runs) = (Self::default(), 0);
        loop {
            body(&mut this);
            runs += 1;
            if !this.next() {
                return runs;
            }
        }
    }
}

#[test]
fn every_combination_is_drawn_once() {
    let mut seen = Vec::new();
    let runs = Gen::all(|g| {
        let first = g.below(3);
        let second = if first == 1 { *g.pick(&['x', 'y']) } else { '-' };
        seen.push((first, second, g.flag()));
    });
    assert_eq!(runs, 8);
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), 8);
}
