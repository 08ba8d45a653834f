//! The longest time that one client waited from one acknowledgement to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock;
use super::history::Attempt;

/// A time without acknowledged writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How long.
    pub length: Duration,
    /// When it began: the acknowledgement before.
    pub begin: Duration,
    /// Who wrote before.
    pub before: String,
    /// Who wrote after; none if nothing was written any more.
    pub after: Option<String>,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let after = self.after.as_deref().unwrap_or("nobody");
        let begin = clock::time_of_day(self.begin);
        write!(f, "{:.3} s from {begin}, {} then {after}", self.length.as_secs_f64(), self.before)
    }
}

/// The longest gap of any client of the Service; the time from a client's last acknowledgement to `ended` counts as well.
pub fn longest(attempts: &[Attempt], ended: Duration) -> Option<Gap> {
    gaps(attempts, Some(ended)).into_iter().max_by_key(|gap| gap.length)
}

/// The longest gap that ended after `since`.
pub fn longest_since(attempts: &[Attempt], since: Duration) -> Option<Gap> {
    let gaps = gaps(attempts, None).into_iter();
    gaps.filter(|gap| gap.begin + gap.length > since).max_by_key(|gap| gap.length)
}

fn gaps(attempts: &[Attempt], ended: Option<Duration>) -> Vec<Gap> {
    let mut clients: BTreeMap<u32, Vec<&Attempt>> = BTreeMap::new();
    for one in attempts.iter().filter(|one| one.through_service() && one.acknowledged().is_some()) {
        clients.entry(one.client).or_default().push(one);
    }
    let of_client = |mut acks: Vec<&Attempt>| {
        acks.sort_by_key(|one| one.done);
        let gap = |before: &Attempt, end: Duration, after: Option<&Attempt>| Gap {
            length: end.saturating_sub(before.done),
            begin: before.done,
            before: before.server.to_string(),
            after: after.map(|one| one.server.to_string()),
        };
        let last = acks.last().zip(ended).map(|(last, ended)| gap(last, ended, None));
        acks.windows(2).map(|two| gap(two[0], two[1].done, Some(two[1]))).chain(last).collect::<Vec<_>>()
    };
    clients.into_values().flat_map(of_client).collect()
}
