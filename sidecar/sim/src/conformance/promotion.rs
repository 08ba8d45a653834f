//! Promotions, and the timelines that they make.

use super::Order::{Checkpoint, Follow, Kill, Promote, PromoteTo, StartPrimary, StartStandby, StopFast, StopImmediate};
use super::Rewound::Yes;
use super::Role::{Primary, Standby};
use super::Server::{A, B, C};
use super::Step::{ControlTimeline, Do, Is, Rewinds, Streams, Timeline};
use super::{Script, commit, has, lacks, script};

pub(super) fn scripts() -> Vec<Script> {
    vec![
        script(
            "a promoted standby takes writes on the next timeline",
            &[B],
            vec![
                commit(A, "x"),
                has(B, "x"),
                Do(Kill(A)),
                Do(Promote(B)),
                Is(B, Primary),
                Timeline(B, 2),
                commit(B, "y"),
                has(B, "x"),
                has(B, "y"),
                Do(Checkpoint(B)),
                ControlTimeline(B, 2),
            ],
        ),
        script("a primary is promoted already", &[B], vec![Do(Promote(A)), Timeline(A, 1), Is(A, Primary)]),
        script(
            "a standby without an upstream is promoted",
            &[B],
            vec![Do(StopFast(B)), Do(StartStandby(B, None)), Do(Promote(B)), Is(B, Primary), Timeline(B, 2)],
        ),
        script(
            "a former primary that was shut down starts as a standby and is promoted",
            &[],
            vec![
                commit(A, "x"),
                Do(StopFast(A)),
                Do(StartStandby(A, None)),
                Is(A, Standby),
                Timeline(A, 1),
                Do(Promote(A)),
                Timeline(A, 2),
                has(A, "x"),
            ],
        ),
        script(
            "a promotion leaves out the timelines that others may have made",
            &[B],
            vec![
                Do(StopFast(A)),
                Do(PromoteTo(B, 4)),
                Timeline(B, 4),
                commit(B, "x"),
                Do(StartStandby(A, Some(B))),
                Streams(A, true),
                Timeline(A, 4),
                has(A, "x"),
            ],
        ),
        script(
            "two promotions of the same timeline make the same number",
            &[B, C],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(Promote(C)),
                Timeline(B, 2),
                Timeline(C, 2),
                commit(B, "x"),
                commit(C, "y"),
                lacks(C, "x"),
                lacks(B, "y"),
            ],
        ),
        script(
            "with a reserved timeline they are told apart, and the loser is rewound",
            &[B, C],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "x"),
                Do(PromoteTo(C, 3)),
                commit(C, "y"),
                Timeline(B, 2),
                Timeline(C, 3),
                Do(Checkpoint(C)),
                Do(StopImmediate(B)),
                Rewinds(B, C, Yes),
                Do(StartStandby(B, Some(C))),
                Streams(B, true),
                Timeline(B, 3),
                has(B, "y"),
                lacks(B, "x"),
            ],
        ),
        script(
            "a standby that has heard of a timeline is promoted beyond it",
            &[B, C],
            vec![
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(Follow(C, B)),
                Streams(C, true),
                Timeline(C, 2),
                Do(Kill(B)),
                Do(Promote(C)),
                Timeline(C, 3),
                commit(C, "x"),
                has(C, "x"),
            ],
        ),
        script(
            "there and back again",
            &[B],
            vec![
                commit(A, "x"),
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "y"),
                Do(StartStandby(A, Some(B))),
                Streams(A, true),
                has(A, "y"),
                Do(StopFast(B)),
                Do(Promote(A)),
                Timeline(A, 3),
                commit(A, "z"),
                Do(StartStandby(B, Some(A))),
                Streams(B, true),
                has(B, "z"),
                Timeline(B, 3),
            ],
        ),
        script(
            "what a lost primary had alone is gone with the promotion, and stays with it",
            &[B],
            vec![
                Do(StopFast(B)),
                commit(A, "x"),
                Do(Kill(A)),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                lacks(B, "x"),
                Do(StartPrimary(A)),
                Timeline(A, 1),
                has(A, "x"),
            ],
        ),
    ]
}
