//! Synchronous commit: when the acknowledgement leaves, and what is there without one.

use super::Answer::{Acknowledged, Broken, Waits};
use super::Order::{Kill, Promote, StartPrimary, StartStandby, StopFast};
use super::Server::{A, B, C};
use super::Step::{Do, Streams};
use super::{Script, answered, begin, commit, has, lacks, names, script};

pub(super) fn scripts() -> Vec<Script> {
    vec![
        script(
            "a streaming standby lets a commit through",
            &[B],
            vec![names(A, "ANY 1 (\"b\")"), commit(A, "x"), has(B, "x")],
        ),
        script(
            "a commit waits for a standby that is gone, until that one is back",
            &[B],
            vec![
                names(A, "ANY 1 (\"b\")"),
                Do(StopFast(B)),
                begin(A, "x"),
                answered("x", Waits),
                lacks(A, "x"),
                Do(StartStandby(B, Some(A))),
                answered("x", Acknowledged),
                has(B, "x"),
                has(A, "x"),
            ],
        ),
        script(
            "a commit that waits is released when the names are cleared",
            &[B],
            vec![
                names(A, "ANY 1 (\"b\")"),
                Do(StopFast(B)),
                begin(A, "x"),
                answered("x", Waits),
                names(A, ""),
                answered("x", Acknowledged),
                has(A, "x"),
            ],
        ),
        script(
            "a commit that waits is released when another standby will do",
            &[B, C],
            vec![
                names(A, "ANY 1 (\"b\")"),
                Do(StopFast(B)),
                begin(A, "x"),
                answered("x", Waits),
                names(A, "ANY 1 (\"b\",\"c\")"),
                answered("x", Acknowledged),
                has(C, "x"),
            ],
        ),
        script(
            "nobody of the name is there",
            &[B],
            vec![names(A, "ANY 1 (\"c\")"), begin(A, "x"), answered("x", Waits), has(B, "x")],
        ),
        script(
            "one of two is enough for ANY 1, but not for ANY 2",
            &[B, C],
            vec![
                Do(StopFast(C)),
                names(A, "ANY 1 (\"b\",\"c\")"),
                commit(A, "x"),
                names(A, "ANY 2 (\"b\",\"c\")"),
                begin(A, "y"),
                answered("y", Waits),
                Do(StartStandby(C, Some(A))),
                answered("y", Acknowledged),
                has(C, "y"),
            ],
        ),
        script(
            "a kill breaks a commit that waits; after the restart it is there",
            &[B],
            vec![
                names(A, "ANY 1 (\"b\")"),
                Do(StopFast(B)),
                begin(A, "x"),
                answered("x", Waits),
                Do(Kill(A)),
                answered("x", Broken),
                Do(StartPrimary(A)),
                has(A, "x"),
            ],
        ),
        script(
            "a fast stop breaks a commit that waits; its successor has it not",
            &[B],
            vec![
                names(A, "ANY 1 (\"b\")"),
                Do(StopFast(B)),
                begin(A, "x"),
                answered("x", Waits),
                Do(StopFast(A)),
                answered("x", Broken),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                lacks(B, "x"),
            ],
        ),
        script(
            "names that are in force at the start hold back the first commit",
            &[B],
            vec![
                Do(StopFast(B)),
                names(A, "ANY 1 (\"b\")"),
                begin(A, "x"),
                answered("x", Waits),
                begin(A, "y"),
                answered("y", Waits),
                names(A, ""),
                answered("x", Acknowledged),
                answered("y", Acknowledged),
            ],
        ),
        script(
            "an acknowledged commit is there after a failover to the standby that was needed",
            &[B, C],
            vec![
                Do(StopFast(C)),
                names(A, "ANY 1 (\"b\")"),
                commit(A, "x"),
                Do(Kill(A)),
                Do(Promote(B)),
                has(B, "x"),
                Streams(B, false),
            ],
        ),
    ]
}
