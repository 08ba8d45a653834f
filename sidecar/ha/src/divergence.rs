//! Has a data directory left the history of its leader? Decided from facts, by PostgreSQL's own rule: a timeline is an ancestor
//! of another up to the point where the other left it, and no further.

use crate::types::{Lsn, Timeline};

/// Where a stopped data directory ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Its timeline.
    pub timeline: Timeline,
    /// A standby: the end of what it has replayed. A former primary: the start of its last checkpoint record.
    pub lsn: Lsn,
    /// A former primary that was shut down cleanly: the end of that record, where it is known.
    pub end: Option<Lsn>,
    /// It was a standby.
    pub standby: bool,
    /// The history file of its timeline, where it has one (timeline 1 has none).
    pub history: Option<String>,
}

/// What came of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Divergence {
    /// Everything here is in the leader's history: it can follow.
    None,
    /// Something here is not, and why: pg_rewind or a new copy is needed.
    Diverged(String),
    /// The facts do not tell; pg_rewind finds out.
    Unknown(String),
}

/// A history file: each line `parent timeline`, `switchpoint`, reason.
pub fn parents(history: &str) -> Vec<(Timeline, Lsn)> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        Some((Timeline(fields.next()?.parse().ok()?), fields.next()?.parse().ok()?))
    };
    history.lines().map(str::trim).filter(|text| !text.starts_with('#')).filter_map(line).collect()
}

/// Compares with a leader on `leader`, whose history file is `history` (none: timeline 1).
pub fn compare(local: &Local, leader: Timeline, history: Option<&str>) -> Divergence {
    use Divergence::{Diverged, None, Unknown};
    let theirs = history.map(parents).unwrap_or_default();
    let ours = local.history.as_deref().map(parents);
    // Two members may have made a timeline of the same number, each its own.
    if let Some(ours) = &ours {
        for (timeline, left) in ours {
            match theirs.iter().find(|(other, _)| other == timeline) {
                Some((_, there)) if there != left => {
                    return Diverged(format!(
                        "timeline {timeline} was left at {left} here, and at {there} by the leader"
                    ));
                }
                _ => {}
            }
        }
        let known = |t: &Timeline| theirs.iter().any(|(other, _)| other == t);
        if let Some((stranger, _)) = ours.iter().find(|(t, _)| !known(t)) {
            return Diverged(format!("timeline {stranger}, an ancestor of ours, is none of the leader's"));
        }
    }
    if local.timeline > leader {
        return Diverged(format!("we are on timeline {}, the leader on {leader}", local.timeline));
    }
    if local.timeline == leader {
        // Whoever leads after a primary has left that one's timeline: another primary on it made one of the same number.
        return if local.standby {
            None
        } else {
            Diverged(format!("we were the primary of timeline {leader}, and another has made one of that number"))
        };
    }
    let Some((_, switch)) = theirs.iter().find(|(timeline, _)| *timeline == local.timeline) else {
        return Diverged(format!(
            "timeline {} is not in the history of the leader's timeline {leader}",
            local.timeline
        ));
    };
    let past =
        |at: Lsn| Diverged(format!("the leader left timeline {} at {switch}, we went on to {at}", local.timeline));
    match (local.standby, local.end) {
        (true, _) if local.lsn > *switch => past(local.lsn),
        (true, _) => None,
        (false, _) if local.lsn >= *switch => past(local.lsn),
        (false, Some(end)) if end == *switch => None,
        (false, Some(end)) if end > *switch => past(end),
        // A log that ends before the switch lacks records that the leader has of our own timeline, which nobody but us wrote.
        (false, Some(end)) => Unknown(format!("our log ends at {end}, before the leader left it at {switch}")),
        (false, Option::None) => Unknown("where our log ends is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";

    fn local(timeline: u32, lsn: u64, standby: bool) -> Local {
        let history = match timeline {
            1 => None,
            2 => Some("1\t0/3000000\tx\n".to_owned()),
            _ => Some(THREE.to_owned()),
        };
        Local { timeline: Timeline(timeline), lsn: Lsn(lsn), end: None, standby, history }
    }

    fn diverged(local: &Local) -> bool {
        matches!(compare(local, Timeline(3), Some(THREE)), Divergence::Diverged(_))
    }

    #[test]
    fn a_standby_may_follow_up_to_the_switch() {
        for (timeline, lsn, gone) in [
            (1, 0x300_0000, false),
            (1, 0x300_0001, true),
            (2, 0x500_0000, false),
            (2, 0x500_0001, true),
            (3, 0x900_0000, false),
        ] {
            assert_eq!(diverged(&local(timeline, lsn, true)), gone, "{timeline} {lsn:x}");
        }
        assert!(diverged(&local(4, 0x100, true)), "a later timeline than the leader's");
    }

    #[test]
    fn a_former_primary_may_follow_when_its_shutdown_is_where_the_leader_began() {
        let ends = |start: u64, end: Option<u64>| {
            let local = Local { end: end.map(Lsn), ..local(2, start, false) };
            compare(&local, Timeline(3), Some(THREE))
        };
        assert_eq!(ends(0x4FF_FF88, Some(0x500_0000)), Divergence::None);
        assert!(matches!(ends(0x4FF_FF88, Some(0x500_0070)), Divergence::Diverged(_)));
        assert!(matches!(ends(0x500_0000, Some(0x500_0070)), Divergence::Diverged(_)));
        assert!(matches!(ends(0x4FF_FF88, None), Divergence::Unknown(_)));
        assert!(matches!(ends(0x400_0000, Some(0x400_0070)), Divergence::Unknown(_)));
    }

    #[test]
    fn two_timelines_of_the_same_number_are_told_apart() {
        let mut other = local(3, 0x600_0000, true);
        assert_eq!(compare(&other, Timeline(3), Some(THREE)), Divergence::None);
        other.history = Some("1\t0/3000000\tx\n2\t0/4000000\tx\n".to_owned());
        assert!(diverged(&other));
        assert!(diverged(&local(3, 0x600_0000, false)), "two primaries of one number");
        // 2 was left by 4 here and never existed there.
        let stranger = Local { history: Some("2\t0/4000000\tx\n".to_owned()), ..local(3, 0x600_0000, false) };
        assert!(matches!(compare(&stranger, Timeline(3), Some("1\t0/3000000\tx\n")), Divergence::Diverged(_)));
    }

    #[test]
    fn the_first_timeline_has_no_history() {
        assert_eq!(compare(&local(1, 0x900, true), Timeline(1), None), Divergence::None);
        assert!(matches!(compare(&local(1, 0x900, true), Timeline(2), Some("")), Divergence::Diverged(_)));
    }

    #[test]
    fn history_files_have_comments_and_empty_lines() {
        assert_eq!(parents("# x\n\n1\t0/1A\tbefore 2000-01-01\n"), [(Timeline(1), Lsn(0x1A))]);
    }
}
