//! Crashes and stops of one server and of those that follow it.

use super::Order::{
    Checkpoint, Copy, CutCopy, Follow, Initdb, Kill, Promote, StartPrimary, StartStandby, StopFast, StopImmediate,
};
use super::Role::{Down, Primary, Standby};
use super::Server::{A, B};
use super::Step::{BeyondCheckpoint, ControlTimeline, Do, Is, Refused, Startable, Streams, Timeline};
use super::{Script, commit, has, lacks, script};

pub(super) fn scripts() -> Vec<Script> {
    let mut all = crashes();
    all.extend(stops());
    all.extend(copies());
    all
}

fn crashes() -> Vec<Script> {
    vec![
        script(
            "a crashed primary goes on with the same timeline and all that was committed",
            &[],
            vec![
                commit(A, "x"),
                Do(Kill(A)),
                Is(A, Down),
                Do(StartPrimary(A)),
                Is(A, Primary),
                Timeline(A, 1),
                has(A, "x"),
            ],
        ),
        script(
            "an immediate stop is a crash",
            &[],
            vec![
                commit(A, "x"),
                Do(StopImmediate(A)),
                Do(StartPrimary(A)),
                Timeline(A, 1),
                has(A, "x"),
                ControlTimeline(A, 1),
            ],
        ),
        script(
            "a crashed standby starts where it was",
            &[B],
            vec![
                commit(A, "x"),
                has(B, "x"),
                Do(Kill(B)),
                Do(StartStandby(B, None)),
                Is(B, Standby),
                has(B, "x"),
                Streams(B, false),
            ],
        ),
        script(
            "the control file of a promoted server tells the old timeline until a checkpoint",
            &[B],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "x"),
                Do(Kill(B)),
                Is(B, Down),
                Do(StartPrimary(B)),
                Timeline(B, 2),
                has(B, "x"),
                ControlTimeline(B, 2),
            ],
        ),
        script(
            "a crash before the first checkpoint of a new timeline ends on it",
            &[B],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(StopImmediate(B)),
                Do(StartPrimary(B)),
                Timeline(B, 2),
                Do(StopFast(B)),
                ControlTimeline(B, 2),
            ],
        ),
        script(
            "a former primary that crashed starts as a standby on its own timeline with all that it had",
            &[],
            vec![commit(A, "x"), Do(Kill(A)), Do(StartStandby(A, None)), Is(A, Standby), Timeline(A, 1), has(A, "x")],
        ),
        script(
            "a promoted server that crashed before its first checkpoint starts as a standby on its new timeline",
            &[B],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "x"),
                Do(Kill(B)),
                Do(StartStandby(B, None)),
                Is(B, Standby),
                Timeline(B, 2),
                has(B, "x"),
            ],
        ),
    ]
}

fn stops() -> Vec<Script> {
    vec![
        script(
            "the clean shutdown of a primary reaches its streaming standby",
            &[B],
            vec![commit(A, "x"), Do(StopFast(A)), Do(StopFast(B)), BeyondCheckpoint(B, A)],
        ),
        script(
            "a stopped primary comes back as one",
            &[B],
            vec![
                Do(StopFast(A)),
                Streams(B, false),
                Do(StartPrimary(A)),
                Timeline(A, 1),
                commit(A, "x"),
                Streams(B, true),
                has(B, "x"),
            ],
        ),
        script(
            "a stopped primary comes back as a standby of its successor",
            &[B],
            vec![
                commit(A, "x"),
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "y"),
                Do(StartStandby(A, Some(B))),
                Streams(A, true),
                Timeline(A, 2),
                has(A, "x"),
                has(A, "y"),
            ],
        ),
        script(
            "the directory of a standby is not started as a primary",
            &[B],
            vec![Do(StopFast(B)), Refused(StartPrimary(B)), Do(StartStandby(B, Some(A))), Streams(B, true)],
        ),
        script(
            "a stopped server stops again",
            &[],
            vec![Do(StopFast(A)), Do(StopFast(A)), Do(StopImmediate(A)), Is(A, Down), ControlTimeline(A, 1)],
        ),
        script(
            "a server that is down takes no orders",
            &[],
            vec![Do(StopFast(A)), Refused(Checkpoint(A)), Refused(Promote(A)), Refused(Follow(A, B))],
        ),
        script(
            "a server that runs is not started again",
            &[B],
            vec![Refused(StartPrimary(A)), Refused(StartStandby(B, Some(A))), Is(A, Primary), Is(B, Standby)],
        ),
        script(
            "where there is nothing, nothing starts",
            &[],
            vec![Refused(StartPrimary(B)), Refused(StartStandby(B, Some(A))), Startable(B, false)],
        ),
    ]
}

fn copies() -> Vec<Script> {
    vec![
        script(
            "a copy has what was committed before it, and gets what comes after",
            &[],
            vec![
                commit(A, "x"),
                Do(Copy(B, A)),
                commit(A, "y"),
                Refused(StartPrimary(B)),
                Do(StartStandby(B, Some(A))),
                has(B, "x"),
                has(B, "y"),
                Timeline(B, 1),
            ],
        ),
        script(
            "a copy is consistent without its source",
            &[],
            vec![
                commit(A, "x"),
                Do(Copy(B, A)),
                commit(A, "y"),
                Do(StopFast(A)),
                Do(StartStandby(B, None)),
                Is(B, Standby),
                has(B, "x"),
                lacks(B, "y"),
            ],
        ),
        script(
            "an interrupted copy leaves nothing that could be started",
            &[],
            vec![
                Do(CutCopy(B, A)),
                Startable(B, false),
                Refused(StartPrimary(B)),
                Refused(StartStandby(B, Some(A))),
                Do(Copy(B, A)),
                Startable(B, true),
            ],
        ),
        script(
            "what does not run cannot be copied",
            &[],
            vec![Do(StopFast(A)), Refused(Copy(B, A)), Startable(B, false)],
        ),
        script(
            "a copy of a promoted server is on its timeline",
            &[B],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(Checkpoint(B)),
                commit(B, "x"),
                Do(Copy(A, B)),
                ControlTimeline(A, 2),
                Do(StartStandby(A, Some(B))),
                Streams(A, true),
                Timeline(A, 2),
                has(A, "x"),
            ],
        ),
        script(
            "a new cluster is on timeline 1",
            &[],
            vec![Do(StopFast(A)), ControlTimeline(A, 1), Refused(Initdb(A)), Do(StartPrimary(A)), Timeline(A, 1)],
        ),
    ]
}
