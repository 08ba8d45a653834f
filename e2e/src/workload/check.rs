//! The checker: what the clients were told against what is there. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::gap::{Gap, longest};
use super::history::{Attempt, Outcome};
use super::overlap::{Overlap, overlaps};

/// How often each row, by client and number, is in the table.
pub type Rows = BTreeMap<(u32, u64), u64>;

/// How many cases of a kind are told.
const TOLD: usize = 5;

/// What a durability promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// No acknowledged write is lost.
    pub keeps: bool,
    /// For how long, in running time, a thawed primary may have writes acknowledged beside the new one.
    pub overlap: Duration,
}

impl Promise {
    /// A standby has what is acknowledged, so a thawed primary cannot acknowledge anything.
    pub const QUORUM: Self = Self { keeps: true, overlap: Duration::ZERO };
    /// A failover may lose what no standby had received, and a thawed primary runs until its fence has closed: K.
    pub const ASYNC: Self = Self { keeps: false, overlap: Duration::from_millis(900) };
}

/// What came of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// How many writes ended without a certain answer.
    pub unknown: usize,
    /// How many of those are there.
    pub unknown_present: usize,
    /// Writes of unknown outcome that were sent to a server after another had its first write acknowledged: a thawed
    /// primary may execute them, and must not acknowledge them.
    pub behind_the_back: usize,
    /// Acknowledged and not there.
    pub lost: Vec<Attempt>,
    /// There more than once.
    pub doubled: Vec<(u32, u64)>,
    /// There although nobody wrote them or the server said that it did nothing.
    pub uncalled: Vec<(u32, u64)>,
    /// Two primaries at one time.
    pub overlaps: Vec<Overlap>,
    /// The longest time without writes.
    pub gap: Option<Gap>,
}

/// Judges the `attempts` by the `rows` that are there now; the workload ended at `ended`.
pub fn check(attempts: &[Attempt], rows: &Rows, ended: Duration) -> Verdict {
    let mut verdict = Verdict { overlaps: overlaps(attempts), gap: longest(attempts, ended), ..Verdict::default() };
    let mut expected = BTreeMap::new();
    for one in attempts {
        let present = rows.contains_key(&(one.client, one.seq));
        expected.insert((one.client, one.seq), !matches!(one.outcome, Outcome::Refused(_)));
        match &one.outcome {
            Outcome::Acknowledged { .. } => {
                verdict.acknowledged += 1;
                if !present {
                    verdict.lost.push(one.clone());
                }
            }
            Outcome::Unknown(_) => {
                verdict.unknown += 1;
                verdict.unknown_present += usize::from(present);
            }
            Outcome::Refused(_) => {}
        }
    }
    verdict.behind_the_back = behind_the_back(attempts);
    verdict.doubled = rows.iter().filter(|(_, count)| **count > 1).map(|(row, _)| *row).collect();
    verdict.uncalled = rows.keys().filter(|row| !expected.get(row).copied().unwrap_or_default()).copied().collect();
    verdict
}

/// Writes to a server that had had acknowledgements, sent after another one had its first on a later timeline.
fn behind_the_back(attempts: &[Attempt]) -> usize {
    let mut last_timeline = BTreeMap::new();
    let mut first_done: BTreeMap<u32, Duration> = BTreeMap::new();
    for one in attempts {
        if let Some(timeline) = one.acknowledged() {
            let last = last_timeline.entry(&one.server).or_insert(timeline);
            *last = timeline.max(*last);
            let first = first_done.entry(timeline).or_insert(one.done);
            *first = one.done.min(*first);
        }
    }
    let is_behind = |one: &&Attempt| {
        let later = last_timeline.get(&one.server).and_then(|timeline| first_done.range(timeline + 1..).next());
        matches!(one.outcome, Outcome::Unknown(_)) && later.is_some_and(|(_, first)| one.sent > *first)
    };
    attempts.iter().filter(is_behind).count()
}

impl Verdict {
    /// What breaks the promise.
    pub fn failures(&self, promise: Promise) -> Vec<String> {
        let mut failures = Vec::new();
        if promise.keeps && !self.lost.is_empty() {
            let cases: Vec<String> = self.lost.iter().take(TOLD).map(ToString::to_string).collect();
            failures.push(format!("{} acknowledged writes lost: {}", self.lost.len(), cases.join("; ")));
        }
        for (what, rows) in
            [("rows are there more than once", &self.doubled), ("rows are there uncalled", &self.uncalled)]
        {
            if !rows.is_empty() {
                let cases: Vec<String> =
                    rows.iter().take(TOLD).map(|(client, seq)| format!("client {client} row {seq}")).collect();
                failures.push(format!("{} {what}: {}", rows.len(), cases.join("; ")));
            }
        }
        let forbidden = self.overlaps.iter().filter(|one| one.length > promise.overlap);
        failures.extend(forbidden.map(|one| format!("two primaries at one time: {one}")));
        if self.acknowledged == 0 {
            failures.push("no write was acknowledged".to_owned());
        }
        failures
    }

    /// The length of the longest gap.
    pub fn gap_length(&self) -> Duration {
        self.gap.as_ref().map_or(Duration::ZERO, |gap| gap.length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::history::Server;
    use super::*;

    const NONE: Promise = Promise::QUORUM;

    fn ms(ms: u64) -> Duration {
        Duration::from_secs(100) + Duration::from_millis(ms)
    }

    fn server(name: &str) -> Arc<Server> {
        Arc::new(Server { address: name.to_owned(), started: "1".to_owned() })
    }

    /// A write of 3 ms.
    fn ack(client: u32, seq: u64, sent: u64, name: &str, timeline: u32) -> Attempt {
        Attempt {
            client,
            seq,
            sent: ms(sent),
            done: ms(sent + 3),
            server: server(name),
            outcome: Outcome::Acknowledged { timeline },
        }
    }

    fn unknown(client: u32, seq: u64, sent: u64, name: &str) -> Attempt {
        Attempt { outcome: Outcome::Unknown("no answer".into()), ..ack(client, seq, sent, name, 1) }
    }

    fn rows(attempts: &[Attempt]) -> Rows {
        attempts.iter().map(|one| ((one.client, one.seq), 1)).collect()
    }

    /// A failover from a to b after 500 ms without writes.
    fn failover() -> Vec<Attempt> {
        let before = (0..10).map(|n| ack(1, n, n * 10, "a", 1));
        let after = (10..20).map(|n| ack(1, n, 500 + n * 10, "b", 2));
        before.chain(after).collect()
    }

    #[test]
    fn a_clean_failover_passes_and_its_gap_is_measured() {
        let attempts = failover();
        let verdict = check(&attempts, &rows(&attempts), ms(700));
        assert_eq!(verdict.failures(NONE), Vec::<String>::new());
        assert_eq!((verdict.acknowledged, verdict.unknown), (20, 0));
        let gap = verdict.gap.unwrap();
        assert_eq!((gap.length, gap.begin), (Duration::from_millis(510), ms(93)));
        assert_eq!((gap.before.as_str(), gap.after.as_deref()), ("a", Some("b")));
    }

    #[test]
    fn a_lost_row_fails_and_is_named() {
        let attempts = failover();
        let mut there = rows(&attempts);
        there.remove(&(1, 9));
        let failures = check(&attempts, &there, ms(700)).failures(NONE);
        assert_eq!(failures.len(), 1);
        assert!(failures[0].starts_with("1 acknowledged writes lost: client 1 row 9, sent to a at"), "{failures:?}");
        assert_eq!(check(&attempts, &there, ms(700)).failures(Promise::ASYNC), Vec::<String>::new());
    }

    #[test]
    fn a_row_may_neither_be_doubled_nor_uncalled() {
        let mut attempts = failover();
        attempts[3].outcome = Outcome::Refused("read-only".into());
        let mut there = rows(&attempts);
        there.insert((1, 4), 2);
        there.insert((7, 7), 1);
        let verdict = check(&attempts, &there, ms(700));
        assert_eq!(verdict.doubled, [(1, 4)]);
        assert_eq!(verdict.uncalled, [(1, 3), (7, 7)]);
        assert_eq!(verdict.failures(NONE).len(), 2);
    }

    #[test]
    fn an_unknown_row_may_be_there_or_not() {
        let mut attempts = failover();
        attempts.push(unknown(1, 20, 710, "b"));
        attempts.push(unknown(1, 21, 720, "b"));
        let mut there = rows(&attempts);
        there.remove(&(1, 20));
        let verdict = check(&attempts, &there, ms(730));
        assert_eq!(verdict.failures(NONE), Vec::<String>::new());
        assert_eq!((verdict.unknown, verdict.unknown_present, verdict.behind_the_back), (2, 1, 0));
    }

    #[test]
    fn two_primaries_at_one_time_fail_also_when_nothing_is_lost() {
        let mut attempts = failover();
        attempts.push(ack(1000, 0, 640, "a", 1));
        let verdict = check(&attempts, &rows(&attempts), ms(700));
        let overlap = &verdict.overlaps[0];
        // b's first acknowledgement was at 603.
        assert_eq!((overlap.length, overlap.begin, overlap.writes), (Duration::from_millis(37), ms(603), 1));
        assert!(verdict.failures(NONE)[0].contains("two primaries at one time: a (timeline 1)"));
        // In async mode a thawed primary may run for a stated time.
        assert_eq!(verdict.failures(Promise::ASYNC), Vec::<String>::new());
        let shorter = Promise { overlap: Duration::from_millis(36), ..Promise::ASYNC };
        assert_eq!(verdict.failures(shorter).len(), 1);
    }

    #[test]
    fn a_write_in_flight_while_the_other_begins_is_no_overlap() {
        let mut attempts = failover();
        attempts.push(Attempt { done: ms(690), ..ack(1000, 0, 602, "a", 1) });
        assert_eq!(check(&attempts, &rows(&attempts), ms(700)).overlaps, []);
    }

    #[test]
    fn a_former_primary_that_leads_again_is_no_overlap() {
        let mut attempts = failover();
        attempts.extend((20..30).map(|n| ack(1, n, 1000 + n * 10, "a", 3)));
        let verdict = check(&attempts, &rows(&attempts), ms(1400));
        assert_eq!(verdict.failures(NONE), Vec::<String>::new());
    }

    #[test]
    fn two_primaries_on_one_timeline_are_seen() {
        let attempts: Vec<Attempt> = (0..20)
            .map(|n| ack(u32::try_from(n % 2).unwrap(), n, n * 10, if n % 2 == 0 { "a" } else { "b" }, 2))
            .collect();
        assert_eq!(check(&attempts, &rows(&attempts), ms(220)).overlaps.len(), 1);
    }

    #[test]
    fn what_a_thawed_primary_executes_without_an_answer_is_counted() {
        let mut attempts = failover();
        attempts.push(unknown(1000, 0, 650, "a"));
        attempts.push(unknown(1000, 1, 80, "a"));
        let verdict = check(&attempts, &rows(&failover()), ms(700));
        assert_eq!(verdict.failures(NONE), Vec::<String>::new());
        assert_eq!(verdict.behind_the_back, 1);
    }

    #[test]
    fn a_service_that_stays_dead_is_a_gap_to_the_end() {
        let attempts = failover();
        let gap = check(&attempts, &rows(&attempts), ms(10_693)).gap.unwrap();
        assert_eq!((gap.length, gap.after), (Duration::from_secs(10), None));
    }

    #[test]
    fn each_client_counts_and_direct_ones_do_not() {
        let mut attempts = failover();
        attempts.extend((0..5).map(|n| ack(2, n, n * 10, "a", 1))); // its connection hung
        attempts.extend((0..60).map(|n| ack(1000, n, n * 10, "a", 1)));
        let gap = check(&attempts, &rows(&attempts), ms(700)).gap.unwrap();
        assert_eq!(gap.length, Duration::from_millis(700 - 43));
        let gap = check(&attempts[..20], &rows(&attempts), ms(700)).gap.unwrap();
        assert_eq!(gap.length, Duration::from_millis(510));
    }

    #[test]
    fn silence_is_no_success() {
        assert_eq!(check(&[], &Rows::new(), ms(0)).failures(NONE), ["no write was acknowledged"]);
    }
}
