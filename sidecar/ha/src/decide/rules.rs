//! The table of rules: ids that logs, tests, `status` annotations and bug reports cite. `docs/rules.md` is made from it.

use serde::{Deserialize, Serialize};

macro_rules! rules {
    ($($group:literal { $($name:ident $id:literal $why:literal)* })*) => {
        /// Which rule gave a verdict.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Rule { $($(#[doc = $why] $name,)*)* }

        impl Rule {
            /// Every rule, in the order of the table.
            pub const ALL: &'static [Rule] = &[$($(Rule::$name,)*)*];

            /// The id, `group.situation`.
            pub const fn id(self) -> &'static str {
                match self { $($(Rule::$name => concat!($group, ".", $id),)*)* }
            }

            /// When it speaks and what it does.
            pub const fn why(self) -> &'static str {
                match self { $($(Rule::$name => $why,)*)* }
            }
        }
    };
}

rules! {
    "store" {
        StoreUnknown "unknown" "The lock was never read: nothing is started or stopped; a postmaster that runs goes on within its permit."
        StoreAway "away" "The lock looks free, but the watch is broken: what we see may be old, so nobody acquires on it."
    }
    "server" {
        Detached "detached" "No supervisor is connected. That proves nothing about the postmaster: the lock is neither renewed nor released."
        NoPostgres "no-postgres" "The image has no PostgreSQL."
        TaskRunning "task" "One long task runs; renewals go on meanwhile."
        TaskCancel "task-cancel" "A task has lost its reason (the lock went elsewhere, a start hangs, the pod is being stopped) and is cancelled."
        RetryLater "retry-later" "The last task failed; it is tried again after a pause."
        Inspect "inspect" "The data directory is looked at before anything is decided about it."
        Starting "starting" "The postmaster runs, but does not answer yet."
        WrongSystem "wrong-system" "The data directory belongs to another cluster: nothing is started, copied or removed."
    }
    "command" {
        Restart "restart" "A person asked for a restart: PostgreSQL is stopped; what it was, it is started as, the primary under its lock."
        Reinitialize "reinitialize" "A person asked for a new copy: whatever runs is cancelled, PostgreSQL is stopped, and the copy is made as for a damaged directory."
    }
    "terminating" {
        TerminatingStop "stop" "The pod is being stopped: fast shutdown, with a checkpoint first where we lead, so that standbys get everything."
        TerminatingRelease "release" "PostgreSQL is stopped, so the lock is handed over, with the position of the shutdown checkpoint."
        TerminatingWait "wait" "The pod is deleted, and its kubelet has not said so yet, or its word was lost: all is handed over, and nothing is left to do but to wait for it."
        TerminatingFinish "finish" "Nothing is left to do."
    }
    "fenced" {
        FencedHandOver "hand-over" "A person fenced the leader (`matriarch.fenced`): fast stop with a checkpoint first, then the lock is released as for a switchover; also where nobody can take over."
        FencedStop "stop" "A person fenced this member: its PostgreSQL is stopped, also in pause; a primary without the lock at once."
        FencedRelease "release" "PostgreSQL of a fenced leader is stopped: the lock is released, with the position of the shutdown checkpoint."
        Fenced "stopped" "A person fenced this member: PostgreSQL stays stopped, the member takes part in no race, and is started by the ordinary rules when the fence is lifted."
    }
    "leader" {
        LeaderConfirm "confirm" "The lock shows this pod, but no renewal of this agent is confirmed yet."
        LeaderFenced "fenced" "The tenure ran out: a primary is stopped at once (the supervisor's fence does so without us)."
        LeaderStart "start" "The primary is down and the lock is ours: crash recovery in place, without a new timeline."
        LeaderStartStandby "start-standby" "The lock is ours, but the data directory is a standby's: it is started, then promoted."
        LeaderCrashed "crashed" "The primary crashed, primary_start_timeout is 0 and another member can lead: the lock is released at once."
        LeaderReleaseEarly "release-early" "The shutdown checkpoint is written and a standby has it, but something of PostgreSQL (the archiver) still runs: the lock is released already; the permit stays, so the fence ends what is left."
        LeaderGiveUp "give-up" "The primary cannot be started: the lock is released so that another member takes over."
        LeaderStartTimeout "start-timeout" "The primary has not come up within primary_start_timeout: it is stopped and the lock released, so that another member takes over."
        LeaderNoData "no-data" "The data directory is empty or damaged: the lock is released."
        LeaderSync "sync" "Before a promotion, the synchronous state is claimed by CAS: commits must rest on members that the next election asks."
        LeaderSyncMoved "sync-moved" "The synchronous state is not the one on which the lock was won: the lock is released, and the race begins anew."
        LeaderBarred "barred" "pre_promote said no, or the watchdog that is required cannot be armed: the lock is released, and for a ttl others lead."
        LeaderPromote "promote" "The lock is ours and PostgreSQL is a standby: promote."
        LeaderPostBootstrap "post-bootstrap" "A new cluster: roles and database are made, then the system identifier is written."
        LeaderHandOver "hand-over" "A switchover was asked for and the candidate is fit: stop, release, follow."
        LeaderRefuse "refuse-switchover" "A switchover was asked for that cannot be done: the request is cleared, with the reason."
        LeaderPaused "paused" "Automatic failover is off: the lock is renewed, and a primary that cannot renew it goes on."
        LeaderPausedRelease "paused-release" "Paused, and PostgreSQL here is stopped or a standby by a person's hand: the lock is released, as it says nothing true."
        LeaderScheduled "scheduled" "A scheduled switchover is due: from now on it is one that is to be done at once."
        Lead "lead" "The lock is ours and PostgreSQL is the primary: nothing to do."
    }
    "follower" {
        Demote "demote" "PostgreSQL is or may be primary, and somebody else has the lock: immediate stop."
        Adopt "adopt" "PostgreSQL runs as primary, and the lock is in our name and says nothing of a pod: Patroni, which was here before us, had both, and we go on with them."
        FormerSelf "former-self" "An earlier pod of our name has the lock: it may still run somewhere, so its ttl is waited for."
        Copy "copy" "No usable data directory: base backup from the leader, which has said that it is the primary."
        WaitForLeader "wait-for-leader" "The leader has the lock, but has not yet said that it is the primary."
        Unconfirmed "unconfirmed" "The lock was not renewed since this agent runs. The agent before it may have ended the stream for an election, which must stay so: nothing is streamed from a holder that may be gone."
        Rewind "rewind" "The data directory may have diverged: pg_rewind finds out and repairs."
        StartStandby "start" "Start as a standby of the leader; or, where commits rest on this member and the leader has not come up for `primary_start_timeout`, of nobody, to be able to lead in its place."
        Shun "fall-back" "The member that the tag `replicatefrom` names sends nothing: the leader does for a while."
        Follow "follow" "Streams from somebody else, or from nobody: the configuration is changed by reload."
        CopySlots "copy-slots" "Permanent logical slots of the leader are not here: their state is copied, with a restart, so that a failover does not lose them."
        Stuck "stuck" "The leader is the primary, but we have not streamed for long: stop, to compare and repair."
        CopiedLately "copied-lately" "The standby has still not streamed, although it was copied a moment ago: another copy would not help. The next is made ten minutes after the last."
        Unstartable "unstartable" "The standby could not be started ten times, and the leader has said that it is the primary: a new copy is made, at most one in ten minutes."
        FollowerPaused "paused" "Paused: PostgreSQL runs as primary though somebody else has the lock; a person did that."
        Following "following" "All is well."
    }
    "standby-cluster" {
        StandbyDemote "demote" "The cluster became a standby cluster: its primary is stopped, and comes back as a standby of the remote one."
        StandbyCopy "copy" "A new standby cluster: its data is copied from the remote cluster or its archive."
        StandbyRewind "rewind" "The former primary of this cluster is compared with the remote one before it follows."
        StandbyStart "start" "The standby leader starts as a standby of the remote cluster."
        StandbyFollow "follow" "The standby leader streams from somebody else, or the remote cluster has moved: its configuration is changed by reload."
        StandbyStuck "stuck" "The standby leader gets nothing from the remote cluster: their logs are compared while it runs. Where they have parted it is stopped, to be rewound or copied."
        StandbyLead "lead" "The lock is ours and we follow the remote cluster: nothing to do."
    }
    "unlocked" {
        AbsentLock "absent-lock" "The lock object is gone; its holder may still live, so its ttl is waited for."
        Promised "promised" "We promised a leader that is cut off from the API server to leave the lock alone."
        Candidate "candidate" "A switchover names another member: it goes first for a while."
        ReleasedByUs "released" "We released the lock a moment ago: others go first."
        StartAlone "start-alone" "Nobody leads: start as a standby of nobody, to learn our position."
        Barred "barred" "A moment ago this member was not allowed to lead: others go first for a ttl."
        NoData "no-data" "Nobody leads and we have no data to lead with."
        Restore "restore" "Nobody leads and we have no data, but a replica method needs no leader."
        PausedHolder "paused-holder" "The last holder's fence was lifted in pause: whatever the time, it may be writable until it renews, says that it is demoted, or a person orders a failover by hand."
        PrimaryAgain "primary-again" "We run as primary, and the last holder was this member or the cluster is paused: take the lock."
        PrimaryDemote "demote" "We run as primary, but the last holder was somebody else: immediate stop."
        Paused "paused" "Automatic failover is off."
        NotInTopology "not-in-failsafe" "We are not in the failsafe topology that the last leader wrote: it may still lead without us."
        NoFailover "nofailover" "Tagged nofailover (or failover_priority 0): we never lead."
        RaceBackoff "race-backoff" "primary_race_backoff: the log of the primary still comes, so it gets time to renew its lock."
        OldTimeline "old-timeline" "check_timeline is on and we are not on the cluster's timeline."
        Lagging "lagging" "Too far behind the last known position of the leader."
        Complete "complete" "The former primary stopped cleanly and we have all of its log: take the lock."
        Race "race" "All members are asked for their positions."
        RaceOpen "race-open" "Waiting for answers."
        RaceLost "race-lost" "Another member is fitter, or too few members answered."
        Acquire "acquire" "We are the fittest: take the lock."
    }
    "bootstrap" {
        RaceInitialize "race" "A new cluster: who writes `initialize` first makes it."
        WaitBootstrap "wait" "Another member makes the cluster."
        Initdb "initdb" "We make the cluster."
        BootstrapAcquire "acquire" "initdb is complete: take the lock, then start."
        BootstrapRecovery "recovery" "The new cluster is made from a backup: its recovery goes on until its target, and ends by itself or by a person."
        BootstrapFailed "failed" "The bootstrap failed: what there is of it is kept beside the data directory, and the cluster is as new."
        TakeOverBootstrap "take-over" "The member that made the cluster is gone and never got far enough to hold data: somebody else does it."
    }
    "paused" {
        PausedHold "hold" "Automatic actions are off: a stopped PostgreSQL stays stopped."
    }
}

/// The generated page.
pub fn document() -> String {
    let mut page = String::from(
        "# The rules\n\nGenerated from `sidecar/ha/src/decide/rules.rs` by `make generate`. Each verdict in the log, in the pod's `status` \
         annotation and in `GET /patroni` cites one of these ids.\n",
    );
    let mut group = "";
    for rule in Rule::ALL {
        let (this, _) = rule.id().split_once('.').unwrap_or(("", ""));
        if this != group {
            group = this;
            page += &format!("\n## {group}\n\n| rule | when, and what it does |\n|---|---|\n");
        }
        page += &format!("| `{}` | {} |\n", rule.id(), rule.why());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let ids: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|r| r.id()).collect();
        assert_eq!(ids.len(), Rule::ALL.len());
    }

    #[test]
    fn the_page_of_rules_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules.md");
        if std::env::var_os("MATRIARCH_GENERATE").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            document(),
            "docs/rules.md is stale: run `make generate`"
        );
    }
}
