//! Who can follow whom.

use super::Order::{
    Checkpoint, Copy, Follow, Kill, Promote, Slots, StartPrimary, StartStandby, StopFast, StopImmediate,
};
use super::Rewound::{NotRequired, Refused as No, Yes};
use super::Role::{Primary, Standby};
use super::Server::{A, B, C};
use super::Step::{Do, HasSlots, Is, Rewinds, Streams, Timeline};
use super::{Script, commit, has, lacks, script};

pub(super) fn scripts() -> Vec<Script> {
    let mut all = following();
    all.extend(rewinds());
    all
}

fn following() -> Vec<Script> {
    vec![
        script(
            "a standby goes on with its primary after a crash of either",
            &[B],
            vec![
                Do(Kill(A)),
                Streams(B, false),
                Do(StartPrimary(A)),
                commit(A, "x"),
                has(B, "x"),
                Do(Kill(B)),
                commit(A, "y"),
                Do(StartStandby(B, Some(A))),
                has(B, "y"),
                Streams(B, true),
            ],
        ),
        script(
            "a standby that is not ahead follows its sister through her promotion",
            &[B, C],
            vec![
                commit(A, "x"),
                has(C, "x"),
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(Follow(C, B)),
                Streams(C, true),
                Timeline(C, 2),
                commit(B, "y"),
                has(C, "y"),
            ],
        ),
        script(
            "a standby that was stopped during the promotion follows as well",
            &[B, C],
            vec![
                Do(StopFast(C)),
                commit(A, "x"),
                has(B, "x"),
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "y"),
                Do(StartStandby(C, Some(B))),
                Streams(C, true),
                Timeline(C, 2),
                has(C, "x"),
                has(C, "y"),
            ],
        ),
        script(
            "a standby that is ahead of the fork does not follow",
            &[B, C],
            vec![
                Do(StopFast(B)),
                commit(A, "x"),
                has(C, "x"),
                Do(StopImmediate(A)),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                commit(B, "y"),
                Do(Follow(C, B)),
                Streams(C, false),
                lacks(C, "y"),
                has(C, "x"),
                Timeline(C, 1),
            ],
        ),
        script(
            "a former primary that went on alone does not follow",
            &[B],
            vec![
                Do(StopFast(B)),
                commit(A, "x"),
                Do(StopFast(A)),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                commit(B, "y"),
                Do(StartStandby(A, Some(B))),
                Streams(A, false),
                lacks(A, "y"),
            ],
        ),
        script(
            "a standby on a newer timeline does not follow an older one",
            &[B, C],
            vec![
                Do(Follow(C, B)),
                Streams(C, true),
                Do(Promote(B)),
                Timeline(C, 2),
                Do(Follow(C, A)),
                commit(A, "x"),
                Streams(C, false),
                lacks(C, "x"),
            ],
        ),
        script(
            "a cascading standby goes through the promotion of its upstream",
            &[B, C],
            vec![
                Do(Follow(C, B)),
                Streams(C, true),
                commit(A, "x"),
                has(C, "x"),
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "y"),
                Timeline(C, 2),
                Streams(C, true),
                has(C, "y"),
            ],
        ),
        script(
            "a cascading standby that lost everybody keeps its timeline",
            &[B, C],
            vec![
                Do(Follow(C, B)),
                Streams(C, true),
                Do(StopFast(A)),
                Do(Promote(B)),
                commit(B, "x"),
                has(C, "x"),
                Timeline(C, 2),
                Do(StopFast(B)),
                Streams(C, false),
                Timeline(C, 2),
                Is(C, Standby),
            ],
        ),
        script(
            "slots are what was wanted, and go with neither copy nor stop",
            &[],
            vec![
                Do(Slots(A, vec!["b".into(), "c".into()], vec![])),
                Do(Slots(A, vec![], vec!["c".into()])),
                HasSlots(A, vec!["b".into()]),
                Do(Copy(B, A)),
                Do(StartStandby(B, Some(A))),
                HasSlots(B, vec![]),
                Do(StopFast(A)),
                Do(StartPrimary(A)),
                HasSlots(A, vec!["b".into()]),
                Is(A, Primary),
            ],
        ),
    ]
}

fn rewinds() -> Vec<Script> {
    let diverged = |stop: super::Order| {
        vec![
            Do(StopFast(B)),
            commit(A, "x"),
            Do(stop),
            Do(StartStandby(B, None)),
            Do(Promote(B)),
            Do(Checkpoint(B)),
            commit(B, "y"),
            Rewinds(A, B, Yes),
            Do(StartStandby(A, Some(B))),
            Streams(A, true),
            Timeline(A, 2),
            has(A, "y"),
            lacks(A, "x"),
        ]
    };
    vec![
        script("a former primary that went on alone is rewound", &[B], diverged(StopFast(A))),
        script("one that crashed is as well", &[B], diverged(Kill(A))),
        script(
            "a former primary whose shutdown reached its successor is not rewound",
            &[B],
            vec![
                commit(A, "x"),
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(Checkpoint(B)),
                Rewinds(A, B, NotRequired),
                Do(StartStandby(A, Some(B))),
                Streams(A, true),
                has(A, "x"),
                Timeline(A, 2),
            ],
        ),
        script(
            "a standby that is ahead of the fork is rewound",
            &[B, C],
            vec![
                Do(StopFast(B)),
                commit(A, "x"),
                has(C, "x"),
                Do(StopImmediate(A)),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                Do(Checkpoint(B)),
                commit(B, "y"),
                Do(StopFast(C)),
                Rewinds(C, B, Yes),
                Do(StartStandby(C, Some(B))),
                Streams(C, true),
                has(C, "y"),
                lacks(C, "x"),
            ],
        ),
        script(
            "a standby that is not ahead is not rewound",
            &[B, C],
            vec![
                Do(StopFast(C)),
                Do(StopFast(A)),
                Do(Promote(B)),
                Do(Checkpoint(B)),
                Rewinds(C, B, NotRequired),
                Do(StartStandby(C, Some(B))),
                Streams(C, true),
                Timeline(C, 2),
            ],
        ),
        script(
            "from a server that is no primary nothing is rewound",
            &[B, C],
            vec![Do(StopFast(B)), commit(A, "x"), has(C, "x"), Do(Kill(A)), Rewinds(A, C, No), Rewinds(A, B, No)],
        ),
        script("a server that runs is not rewound", &[B], vec![Rewinds(B, A, No), Is(B, Standby), Streams(B, true)]),
        script(
            "neither are they when the loser crashed before its first checkpoint",
            &[B],
            vec![
                commit(A, "x"),
                has(B, "x"),
                Do(StopFast(B)),
                Do(Kill(A)),
                Do(StartStandby(A, None)),
                Do(Promote(A)),
                commit(A, "y"),
                Do(Kill(A)),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                commit(B, "z"),
                Do(Checkpoint(B)),
                Rewinds(A, B, No),
            ],
        ),
        script(
            "two servers that made the same timeline number are never mistaken for each other",
            &[B],
            vec![
                commit(A, "x"),
                has(B, "x"),
                Do(StopFast(B)),
                Do(StopFast(A)),
                Do(StartStandby(A, None)),
                Do(Promote(A)),
                commit(A, "y"),
                Do(StartStandby(B, None)),
                Do(Promote(B)),
                commit(B, "z"),
                Do(Checkpoint(B)),
                Timeline(B, 2),
                Timeline(A, 2),
                Do(StopFast(A)),
                Rewinds(A, B, No),
            ],
        ),
    ]
}
