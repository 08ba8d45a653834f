//! Mistakes made on purpose, one at a time, to see that the simulator's checks notice each. They exist only with the feature
//! `mutants`; without it every question is answered by a constant and the compiler removes it.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// The holder's deadline counts from the moment in which its renewal was confirmed, not from the sending.
    DeadlineFromAnswer,
    /// A renewal extends the deadline when it is sent, whatever comes of it.
    UnknownOutcomeExtends,
    /// The holder's deadline is the end of the ttl itself, without a margin.
    NoMargin,
    /// An observer counts the ttl of its own configuration, not the one that the holder wrote.
    OwnTtl,
    /// A shorter ttl that was sent does not shorten the holder's deadline.
    ShorterTtlUnbound,
    /// A lock object that is missing is a lock that nobody has.
    AbsentIsFree,
    /// Observers compare the wall clock with `renewTime`.
    ExpiryByRenewTime,
    /// A lock with our name is ours, whichever pod wrote it.
    HolderByName,
    /// The fence is set by the role: a promotion does not set the latch.
    NoLatch,
    /// The fence takes a permit with an older sequence number.
    OldSequence,
    /// Neither the rules nor the fence ask for a valid permit before a start as primary or a promotion.
    FenceWithoutPermit,
    /// The lock is taken and renewed without a resource version.
    LockWithoutVersion,
    /// The lock is released without a resource version.
    ReleaseWithoutVersion,
    /// A primary renews the lock, whoever has it.
    RenewOthersLock,
    /// A leader on its way down releases the lock before its shutdown checkpoint.
    ReleaseBeforeStopped,
    /// Whoever is on the timeline of a primary that stopped in order counts as complete.
    CompleteWithoutLog,
    /// The last checkpoint of a primary that crashed counts as the end of its log.
    CrashedIsShutDown,
    /// A vote counts although the voter still streams from the old leader.
    VoteWithoutEndedStream,
    /// A voter says at once that its stream has ended, with the position that it saw last.
    OldPositionVotes,
    /// A member that does not answer counts as a vote.
    SilenceVotes,
    /// One vote less is enough.
    QuorumOffByOne,
    /// Candidates and voters compare positions without timelines.
    TimelineIgnored,
    /// In synchronous mode a member that is not synchronous may lead.
    OutsiderLeads,
    /// The winner of an election does not make the old leader a voter.
    TakeoverWithoutLeader,
    /// The winner is promoted without having claimed `/sync`.
    SyncNotClaimed,
    /// The winner claims `/sync` although it was changed since the race.
    SyncMovedIgnored,
    /// The winner is promoted before `synchronous_standby_names` is in force, and a standby does not keep it ready.
    NamesAfterPromotion,
    /// `synchronous_standby_names` is set before `/sync` allows it.
    NamesBeforeSync,
    /// `/sync` is written before `synchronous_standby_names` allows it.
    SyncBeforeNames,
    /// New voters come without a higher quorum.
    VotersNotRaised,
    /// Standbys vote before they have what was acknowledged without them; catching up counts as streaming.
    VotersBeforeFlush,
    /// The rule of the planner is weaker by one member.
    SafeOffByOne,
    /// The setting that the server told last counts as in force, whatever was changed since.
    StaleSetting,
    /// A write of `/sync` whose outcome is not known counts as failed.
    SyncInDoubtIgnored,
    /// The winner of the lock reserves no timeline of its own.
    TimelineNotReserved,
    /// A standby cluster that is promoted reserves none besides that which its leader took with the lock.
    ClusterTimelineNotReserved,
    /// The leader of a standby cluster is promoted as any other.
    StandbyLeaderPromoted,
    /// A cluster that is to follow another one keeps its primary.
    StandbyKeepsPrimary,
    /// A standby leader whose log has parted from the remote cluster's is left to itself.
    StandbyPartedStays,
    /// A member that refuses or does not answer counts as agreeing in failsafe mode.
    FailsafeMajority,
    /// A failsafe promise is given and not kept.
    PromiseForgotten,
    /// A failsafe promise lasts for a loop only.
    PromiseTooShort,
    /// A failsafe round counts from its last answer, and by the ttl without a margin.
    FailsafeFromAnswer,
    /// A standby that starts streams from the holder of the lock at once, whatever the agent before it has voted.
    UnconfirmedStreams,
    /// A setting counts as in force as soon as a session shows it: walsenders and the checkpointer are not looked at.
    ShownIsLoaded,
    /// `/sync` is not claimed before a promotion where it says the winner's name, or nobody's, already.
    OwnSyncNotClaimed,
    /// An agent that starts anew knows nothing of the deadline that the supervisor has from the one before it.
    PermitNotInherited,
    /// A pod that replaces the leader's asks nobody whether the lock is free.
    ReplacementAsksNobody,
    /// Without votes one that has data and is still starting is not waited for.
    Impatient,
    /// A promise given in failsafe lasts, also when the leader has stopped in order.
    PromiseOutlivesRelease,
    /// A promise given in failsafe ends with the lock, whoever empties it.
    AnyReleaseEndsPromise,
    /// A stopped server is started in pause.
    PausedActs,
    /// Whoever sees a free lock first takes it, whatever the others have.
    NoRace,
    /// A long task begins while another one runs.
    TwoTasks,
    /// Answers to older questions, and to an agent that died, count as those to the present ones.
    StaleAnswers,
    /// The EndpointSlice is written without a resource version.
    BlindSlice,
    /// A former primary's directory is removed before the leader is known to be a primary.
    WipeFirst,
    /// pg_rewind does not wait for the source's first checkpoint after its promotion.
    RewindAtOnce,
    /// A half rewound directory counts as whole and is started.
    HalfRewoundStarts,
    /// A standby is started without `standby.signal`.
    NoStandbySignal,
    /// Glue: the supervisor does not do what its fence says.
    FenceKillsNothing,
    /// Model: a standby's report counts before it has flushed.
    AckBeforeFlush,
    /// Model: a promotion makes no new timeline.
    PromoteKeepsTimeline,
    /// Model: watches lose one event in four.
    WatchDropsEvents,
    /// Model: the API server does not compare resource versions.
    CasIgnored,
    /// Model: clocks drift by a hundred times what is assumed.
    ClocksNotBound,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::DeadlineFromAnswer,
        Self::UnknownOutcomeExtends,
        Self::NoMargin,
        Self::OwnTtl,
        Self::ShorterTtlUnbound,
        Self::AbsentIsFree,
        Self::ExpiryByRenewTime,
        Self::HolderByName,
        Self::NoLatch,
        Self::OldSequence,
        Self::FenceWithoutPermit,
        Self::LockWithoutVersion,
        Self::ReleaseWithoutVersion,
        Self::RenewOthersLock,
        Self::ReleaseBeforeStopped,
        Self::CompleteWithoutLog,
        Self::CrashedIsShutDown,
        Self::VoteWithoutEndedStream,
        Self::OldPositionVotes,
        Self::SilenceVotes,
        Self::QuorumOffByOne,
        Self::TimelineIgnored,
        Self::OutsiderLeads,
        Self::TakeoverWithoutLeader,
        Self::SyncNotClaimed,
        Self::SyncMovedIgnored,
        Self::NamesAfterPromotion,
        Self::NamesBeforeSync,
        Self::SyncBeforeNames,
        Self::VotersNotRaised,
        Self::VotersBeforeFlush,
        Self::SafeOffByOne,
        Self::StaleSetting,
        Self::SyncInDoubtIgnored,
        Self::TimelineNotReserved,
        Self::ClusterTimelineNotReserved,
        Self::StandbyLeaderPromoted,
        Self::StandbyKeepsPrimary,
        Self::StandbyPartedStays,
        Self::FailsafeMajority,
        Self::PromiseForgotten,
        Self::PromiseTooShort,
        Self::FailsafeFromAnswer,
        Self::UnconfirmedStreams,
        Self::ShownIsLoaded,
        Self::OwnSyncNotClaimed,
        Self::PermitNotInherited,
        Self::ReplacementAsksNobody,
        Self::Impatient,
        Self::PromiseOutlivesRelease,
        Self::AnyReleaseEndsPromise,
        Self::PausedActs,
        Self::NoRace,
        Self::TwoTasks,
        Self::StaleAnswers,
        Self::BlindSlice,
        Self::WipeFirst,
        Self::RewindAtOnce,
        Self::HalfRewoundStarts,
        Self::NoStandbySignal,
        Self::FenceKillsNothing,
        Self::AckBeforeFlush,
        Self::PromoteKeepsTimeline,
        Self::WatchDropsEvents,
        Self::CasIgnored,
        Self::ClocksNotBound,
    ];

    /// Its name in files and tables.
    pub fn id(self) -> &'static str {
        self.about().0
    }

    /// What is broken.
    pub fn what(self) -> &'static str {
        self.about().1
    }

    /// The promises that notice it; `S1` is all of its parts.
    pub fn promises(self) -> &'static [&'static str] {
        self.about().2
    }

    fn about(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::DeadlineFromAnswer => (
                "deadline-from-answer",
                "The holder's deadline counts from the moment in which its renewal was confirmed, not from the sending.",
                &["S1", "S7"],
            ),
            Self::UnknownOutcomeExtends => (
                "unknown-outcome-extends",
                "A renewal extends the deadline when it is sent, whatever comes of it.",
                &["S1"],
            ),
            Self::NoMargin => {
                ("no-margin", "The holder's deadline is the end of the ttl itself, without a margin.", &["S1"])
            }
            Self::OwnTtl => (
                "own-ttl",
                "An observer counts the ttl of its own configuration, not the one that the holder wrote.",
                &["S7"],
            ),
            Self::ShorterTtlUnbound => {
                ("shorter-ttl-unbound", "A shorter ttl that was sent does not shorten the holder's deadline.", &["S1"])
            }
            Self::AbsentIsFree => {
                ("absent-is-free", "A lock object that is missing is a lock that nobody has.", &["S7"])
            }
            Self::ExpiryByRenewTime => {
                ("expiry-by-renew-time", "Observers compare the wall clock with `renewTime`.", &["S7"])
            }
            Self::HolderByName => {
                ("holder-by-name", "A lock with our name is ours, whichever pod wrote it.", &["S1", "S7"])
            }
            Self::NoLatch => ("no-latch", "The fence is set by the role: a promotion does not set the latch.", &["S1"]),
            Self::OldSequence => ("old-sequence", "The fence takes a permit with an older sequence number.", &["S1"]),
            Self::FenceWithoutPermit => (
                "fence-without-permit",
                "Neither the rules nor the fence ask for a valid permit before a start as primary or a promotion.",
                &["S1", "S9"],
            ),
            Self::LockWithoutVersion => {
                ("lock-without-version", "The lock is taken and renewed without a resource version.", &["S7"])
            }
            Self::ReleaseWithoutVersion => {
                ("release-without-version", "The lock is released without a resource version.", &["S7"])
            }
            Self::RenewOthersLock => ("renew-others-lock", "A primary renews the lock, whoever has it.", &["S7"]),
            Self::ReleaseBeforeStopped => (
                "release-before-stopped",
                "A leader on its way down releases the lock before its shutdown checkpoint.",
                &["S7"],
            ),
            Self::CompleteWithoutLog => (
                "complete-without-log",
                "Whoever is on the timeline of a primary that stopped in order counts as complete.",
                &["S2"],
            ),
            Self::CrashedIsShutDown => (
                "crashed-is-shut-down",
                "The last checkpoint of a primary that crashed counts as the end of its log.",
                &["S2"],
            ),
            Self::VoteWithoutEndedStream => (
                "vote-without-ended-stream",
                "A vote counts although the voter still streams from the old leader.",
                &["S1", "S2"],
            ),
            Self::OldPositionVotes => (
                "old-position-votes",
                "A voter says at once that its stream has ended, with the position that it saw last.",
                &["S2"],
            ),
            Self::SilenceVotes => ("silence-votes", "A member that does not answer counts as a vote.", &["S2"]),
            Self::QuorumOffByOne => ("quorum-off-by-one", "One vote less is enough.", &["S2"]),
            Self::TimelineIgnored => {
                ("timeline-ignored", "Candidates and voters compare positions without timelines.", &["S2", "S9"])
            }
            Self::OutsiderLeads => {
                ("outsider-leads", "In synchronous mode a member that is not synchronous may lead.", &["S2"])
            }
            Self::TakeoverWithoutLeader => (
                "takeover-without-leader",
                "The winner of an election does not make the old leader a voter.",
                &["S2", "S3"],
            ),
            Self::SyncNotClaimed => {
                ("sync-not-claimed", "The winner is promoted without having claimed `/sync`.", &["S2", "S3"])
            }
            Self::SyncMovedIgnored => (
                "sync-moved-ignored",
                "The winner claims `/sync` although it was changed since the race.",
                &["S2", "S3"],
            ),
            Self::NamesAfterPromotion => (
                "names-after-promotion",
                "The winner is promoted before `synchronous_standby_names` is in force, and a standby does not keep it ready.",
                &["S2", "S3"],
            ),
            Self::NamesBeforeSync => {
                ("names-before-sync", "`synchronous_standby_names` is set before `/sync` allows it.", &["S3"])
            }
            Self::SyncBeforeNames => {
                ("sync-before-names", "`/sync` is written before `synchronous_standby_names` allows it.", &["S3"])
            }
            Self::VotersNotRaised => ("voters-not-raised", "New voters come without a higher quorum.", &["S3"]),
            Self::VotersBeforeFlush => (
                "voters-before-flush",
                "Standbys vote before they have what was acknowledged without them; catching up counts as streaming.",
                &["S2"],
            ),
            Self::SafeOffByOne => ("safe-off-by-one", "The rule of the planner is weaker by one member.", &["S3"]),
            Self::StaleSetting => (
                "stale-setting",
                "The setting that the server told last counts as in force, whatever was changed since.",
                &["S3"],
            ),
            Self::SyncInDoubtIgnored => {
                ("sync-in-doubt-ignored", "A write of `/sync` whose outcome is not known counts as failed.", &["S3"])
            }
            Self::TimelineNotReserved => {
                ("timeline-not-reserved", "The winner of the lock reserves no timeline of its own.", &["S6", "S9"])
            }
            Self::ClusterTimelineNotReserved => (
                "cluster-timeline-not-reserved",
                "A standby cluster that is promoted reserves no timeline besides that which its leader took with the lock.",
                &["S6", "S9"],
            ),
            Self::StandbyLeaderPromoted => {
                ("standby-leader-promoted", "The leader of a standby cluster is promoted as any other.", &["S12"])
            }
            Self::StandbyKeepsPrimary => {
                ("standby-keeps-primary", "A cluster that is to follow another one keeps its primary.", &["S12"])
            }
            Self::StandbyPartedStays => (
                "standby-parted-stays",
                "A standby leader whose log has parted from the remote cluster's is left to itself.",
                &["L2"],
            ),
            Self::FailsafeMajority => (
                "failsafe-majority",
                "A member that refuses or does not answer counts as agreeing in failsafe mode.",
                &["S1"],
            ),
            Self::PromiseForgotten => ("promise-forgotten", "A failsafe promise is given and not kept.", &["S1"]),
            Self::PromiseTooShort => ("promise-too-short", "A failsafe promise lasts for a loop only.", &["S1"]),
            Self::FailsafeFromAnswer => (
                "failsafe-from-answer",
                "A failsafe round counts from its last answer, and by the ttl without a margin.",
                &["S1"],
            ),
            Self::UnconfirmedStreams => (
                "unconfirmed-streams",
                "A standby that starts streams from the holder of the lock at once, whatever the agent before it has voted.",
                &["S2"],
            ),
            Self::ShownIsLoaded => (
                "shown-is-loaded",
                "A setting counts as in force as soon as a session shows it: walsenders and the checkpointer are not looked at.",
                &["S2", "S3"],
            ),
            Self::OwnSyncNotClaimed => (
                "own-sync-not-claimed",
                "`/sync` is not claimed before a promotion where it says the winner's name, or nobody's, already.",
                &["S2", "S3"],
            ),
            Self::PermitNotInherited => (
                "permit-not-inherited",
                "An agent that starts anew knows nothing of the deadline that the supervisor has from the one before it.",
                &["S1"],
            ),
            Self::ReplacementAsksNobody => (
                "replacement-asks-nobody",
                "A pod that replaces the leader's asks nobody whether the lock is free.",
                &["S1"],
            ),
            Self::Impatient => {
                ("impatient", "Without votes one that has data and is still starting is not waited for.", &["S2"])
            }
            Self::PromiseOutlivesRelease => (
                "promise-outlives-release",
                "A promise given in failsafe lasts, also when the leader has stopped in order.",
                &["L1", "L5", "L6"],
            ),
            Self::AnyReleaseEndsPromise => (
                "any-release-ends-promise",
                "A promise given in failsafe ends with the lock, whoever empties it.",
                &["S1"],
            ),
            Self::PausedActs => ("paused-acts", "A stopped server is started in pause.", &["S5"]),
            Self::NoRace => {
                ("no-race", "Whoever sees a free lock first takes it, whatever the others have.", &["S1", "S2", "S9"])
            }
            Self::TwoTasks => ("two-tasks", "A long task begins while another one runs.", &["S10"]),
            Self::StaleAnswers => (
                "stale-answers",
                "Answers to older questions, and to an agent that died, count as those to the present ones.",
                &["S10"],
            ),
            Self::BlindSlice => ("blind-slice", "The EndpointSlice is written without a resource version.", &["S8"]),
            Self::WipeFirst => (
                "wipe-first",
                "A former primary's directory is removed before the leader is known to be a primary.",
                &["S4"],
            ),
            Self::RewindAtOnce => (
                "rewind-at-once",
                "pg_rewind does not wait for the source's first checkpoint after its promotion.",
                &["S6"],
            ),
            Self::HalfRewoundStarts => {
                ("half-rewound-starts", "A half rewound directory counts as whole and is started.", &["S6"])
            }
            Self::NoStandbySignal => ("no-standby-signal", "A standby is started without `standby.signal`.", &["S1"]),
            Self::FenceKillsNothing => {
                ("fence-kills-nothing", "Glue: the supervisor does not do what its fence says.", &["S1"])
            }
            Self::AckBeforeFlush => {
                ("ack-before-flush", "Model: a standby's report counts before it has flushed.", &["S2"])
            }
            Self::PromoteKeepsTimeline => {
                ("promote-keeps-timeline", "Model: a promotion makes no new timeline.", &["S2", "S6"])
            }
            Self::WatchDropsEvents => {
                ("watch-drops-events", "Model: watches lose one event in four.", &["L1", "L2", "L3"])
            }
            Self::CasIgnored => ("cas-ignored", "Model: the API server does not compare resource versions.", &["S7"]),
            Self::ClocksNotBound => {
                ("clocks-not-bound", "Model: clocks drift by a hundred times what is assumed.", &["S1", "S7"])
            }
        }
    }
}

#[cfg(feature = "mutants")]
mod active {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
        static HITS: Cell<u64> = const { Cell::new(0) };
    }

    /// Is this mistake to be made now?
    pub fn on(mutant: Mutant) -> bool {
        let on = ACTIVE.get() == Some(mutant);
        if on {
            HITS.set(HITS.get() + 1);
        }
        on
    }

    /// Does something with this mistake, on this thread; and how often its place was come by.
    pub fn with<T>(mutant: Option<Mutant>, work: impl FnOnce() -> T) -> (T, u64) {
        ACTIVE.set(mutant);
        HITS.set(0);
        let result = work();
        ACTIVE.set(None);
        (result, HITS.get())
    }
}

#[cfg(feature = "mutants")]
pub use active::{on, with};

/// By the clock of whoever looks.
pub(crate) fn expired(record: &crate::store::record::LockRecord, now: crate::types::Wall) -> bool {
    let renewed = record.renew_time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_microsecond);
    let ttl = record.ttl_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MAX);
    record.leader.is_some() && now.ms_since(crate::types::Wall(renewed)) > ttl
}

/// No mistake is ever made.
#[cfg(not(feature = "mutants"))]
pub const fn on(_: Mutant) -> bool {
    false
}
