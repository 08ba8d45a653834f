//! Did two primaries accept writes in overlapping times?
//!
//! A period is what one run of one server wrote on one timeline. Each write was accepted at some moment between its
//! sending and its acknowledgement, so two periods can have been one after the other only if the last sending of one is
//! not after the first acknowledgement of the other. Whatever is reported here is certain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::history::{Attempt, Server};

/// Two primaries at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Who wrote first.
    pub old: String,
    /// Who wrote as well.
    pub new: String,
    /// When the later one began.
    pub begin: Duration,
    /// For how long both wrote, at least.
    pub length: Duration,
    /// How many writes of the earlier one were acknowledged after the later one's first.
    pub writes: usize,
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { old, new, begin, length, writes } = self;
        let (begin, length) = (clock::time_of_day(*begin), length.as_secs_f64());
        write!(f, "{old} had {writes} writes acknowledged for {length:.3} s after {new} had begun at {begin}")
    }
}

/// When a write was sent, and when acknowledged.
type Write = (Duration, Duration);

#[derive(Debug)]
struct Period {
    name: String,
    writes: Vec<Write>,
    first_done: Duration,
    last_sent: Duration,
}

/// All pairs of periods that cannot have been one after the other.
pub fn overlaps(attempts: &[Attempt]) -> Vec<Overlap> {
    let mut writes: BTreeMap<(Arc<Server>, u32), Vec<Write>> = BTreeMap::new();
    for one in attempts {
        if let Some(timeline) = one.acknowledged() {
            writes.entry((one.server.clone(), timeline)).or_default().push((one.sent, one.done));
        }
    }
    let mut periods: Vec<Period> = writes
        .into_iter()
        .map(|((server, timeline), writes)| Period {
            name: format!("{server} (timeline {timeline})"),
            first_done: writes.iter().map(|(_, done)| *done).min().unwrap_or_default(),
            last_sent: writes.iter().map(|(sent, _)| *sent).max().unwrap_or_default(),
            writes,
        })
        .collect();
    periods.sort_by_key(|period| period.first_done);
    let mut found = Vec::new();
    for (index, old) in periods.iter().enumerate() {
        for new in &periods[index + 1..] {
            let old_first = old.last_sent.saturating_sub(new.first_done);
            let new_first = new.last_sent.saturating_sub(old.first_done);
            let length = old_first.min(new_first);
            if length > Duration::ZERO {
                found.push(Overlap {
                    old: old.name.clone(),
                    new: new.name.clone(),
                    begin: new.first_done,
                    length,
                    writes: old.writes.iter().filter(|(sent, _)| *sent > new.first_done).count(),
                });
            }
        }
    }
    found
}
