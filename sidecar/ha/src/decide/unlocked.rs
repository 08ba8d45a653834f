//! Rules while nobody has the lock: who may take it.

use std::collections::BTreeMap;

use super::server::{stopped_dir, unreadable};
use super::{Action, Job, Rule, Verdict, act, bootstrap, hold, run};
use crate::config::SyncMode;
use crate::election::{Candidate, Outcome, Round, judge};
use crate::event::{DataDir, ServerStatus};
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::snapshot::{Snapshot, position};
use crate::store::record::{Initialize, When};
use crate::types::Boot;

/// The candidate that a person chose is asked again after this, milliseconds.
const ROUND_REPEAT_MS: u64 = 2_000;
/// Answers that are older say nothing of what was acknowledged since: something else held us up meanwhile. Milliseconds.
const ROUND_LIFE_MS: u64 = 2_500;
/// A lost round is repeated after this, milliseconds.
const ROUND_PAUSE_MS: u64 = 300;

/// A member of higher priority that is as far as we are is waited for so long, milliseconds: it may be unable to lead.
const PRIORITY_MS: u64 = 5_000;
/// A store that was wiped has forgotten who has all commits: where the lock was never held, a member that has data and is still
/// starting is waited for so long. Milliseconds.
const STARTING_MS: u64 = 30_000;

pub(super) fn decide(s: &Snapshot) -> Verdict {
    if let Holder::Absent { until } = s.holder
        && s.now < until
    {
        return hold(Rule::AbsentLock, "the lock object is missing: its last holder may still live");
    }
    if !s.store_fresh {
        return hold(Rule::StoreAway, "DCS is not accessible");
    }
    if s.promised_until.is_some_and(|until| s.now < until) {
        return hold(Rule::Promised, "the leader goes on in failsafe mode, as agreed with us");
    }
    if let Some(verdict) = bootstrap::decide(s) {
        return verdict;
    }
    if let Some(verdict) = others_first(s) {
        return verdict;
    }
    match (s.server.running, &s.server.status) {
        (false, _) => stopped(s),
        (true, None) => act(Rule::Starting, "PostgreSQL does not answer yet", vec![Action::Query]),
        (true, Some(status)) if status.in_recovery => race(s, status),
        (true, Some(_)) => running_primary(s),
    }
}

/// The holder's ttl has passed, but its fence was lifted for pause, and nobody knows what became of it.
///
/// Nobody takes that lock unless the holder says itself that nothing of it is or may become writable (it starts or promotes only
/// after a fresh confirmation of the lock, which then fails), or a person orders a failover by hand, or promoted this member by
/// hand. All others wait, at the latest until the holder's own fence has stopped it.
pub(super) fn unfenced(s: &Snapshot, name: &str, until: Boot) -> Verdict {
    let holder = s.lock.as_ref().and_then(|l| l.holder_uid.as_deref());
    let demoted = matches!(&s.leader_answer, Some(Ok(a)) if a.demoted && holder == Some(a.pod_uid.as_str()));
    let primary = s.server.status.as_ref().is_some_and(|st| !st.in_recovery);
    if demoted || s.by_hand() || primary || !s.store_fresh {
        return decide(s);
    }
    // A standby may start. A cluster is not made while somebody may lead one.
    if !s.server.running {
        return stopped(s);
    }
    act(
        Rule::PausedHolder,
        format!(
            "{name} had the lock in pause, when its fence was lifted: waiting until it renews or says that it is demoted, or for a \
             failover by hand; at the latest in {} min",
            until.ms_since(s.now) / 60_000
        ),
        vec![Action::AskLeader],
    )
}

/// After a switchover's release the candidate goes first, and the old leader last.
fn others_first(s: &Snapshot) -> Option<Verdict> {
    let failover = s.failover.as_ref().filter(|f| f.when == When::Now)?;
    let Holder::Free { released: true, since } = s.holder else { return None };
    if s.now.ms_since(since) >= 2 * s.config.loop_wait_ms {
        return None;
    }
    if failover.leader.as_deref() == Some(s.name.as_str()) {
        return Some(hold(Rule::ReleasedByUs, "the lock was released for a switchover"));
    }
    let candidate = failover.member.as_deref()?;
    (candidate != s.name).then(|| hold(Rule::Candidate, format!("{candidate} is to become the leader")))
}

/// The last leader did not ask this member in failsafe, and may go on without its word.
fn outside_topology(s: &Snapshot, name: &str) -> bool {
    let topology = s.lock.as_ref().map(|lock| &lock.failsafe);
    s.config.failsafe_mode && topology.is_some_and(|topology| !topology.is_empty() && !topology.contains_key(name))
}

fn stopped(s: &Snapshot) -> Verdict {
    let dir = match stopped_dir(s) {
        Ok(dir) => dir,
        Err(verdict) => return verdict,
    };
    match dir {
        DataDir::Present(_) => run(s, Rule::StartAlone, "starting as a standby of nobody", Job::StartStandby(None)),
        DataDir::Unknown(why) => unreadable(why),
        DataDir::Empty if s.config.replica_without_leader && matches!(s.initialize, Initialize::Done(_)) => {
            run(s, Rule::Restore, "trying to bootstrap (without leader)", Job::Restore)
        }
        DataDir::Empty => hold(Rule::NoData, "waiting for a leader to copy from"),
        DataDir::Broken(why) => {
            hold(Rule::NoData, format!("the data directory is damaged ({why}): waiting for a leader to copy from"))
        }
    }
}

fn running_primary(s: &Snapshot) -> Verdict {
    let last = s.lock.as_ref().and_then(|l| l.leader.as_deref());
    let system = s.server.status.as_ref().map_or("", |st| st.system_id.as_str());
    match &s.initialize {
        Initialize::Done(id) if id != system && s.config.pause => {
            return hold(Rule::WrongSystem, format!("system ID mismatch: {system} here, {id} in the cluster"));
        }
        _ if last == Some(s.name.as_str()) => {
            return act(Rule::PrimaryAgain, "I run as primary and nobody else had the lock", vec![Action::Acquire]);
        }
        // A person promoted it.
        _ if s.config.pause => {
            return act(Rule::PrimaryAgain, "paused: I run as primary and nobody has the lock", vec![Action::Acquire]);
        }
        _ => {}
    }
    act(
        Rule::PrimaryDemote,
        "I run as primary without having had the lock",
        vec![Action::Run(Job::Stop { immediate: true })],
    )
}

/// Nothing that the last holder executes can be acknowledged any more: it released the lock, or its fence has closed. Patroni has
/// none.
fn former_is_over(s: &Snapshot) -> bool {
    let former = s.lock.as_ref().and_then(|lock| lock.leader.as_deref());
    let member = s.members.iter().find(|member| Some(member.name.as_str()) == former);
    match (&s.holder, member) {
        (Holder::Free { released: true, .. }, _) => true,
        (_, Some(member)) if member.status.is_object() => !member.runs_patroni(),
        _ => s.lock.as_ref().is_some_and(|lock| lock.holder_uid.is_some()),
    }
}

/// A primary that cannot renew its lock, but still sends its log, gets time to: for one loop_wait it is watched, then as long as more
/// comes, and no longer than primary_race_backoff.
fn backoff(s: &Snapshot, status: &ServerStatus) -> Option<Verdict> {
    let Holder::Free { released: false, since } = s.holder else { return None };
    let (gone, window) = (s.now.ms_since(since), s.config.race_backoff_ms);
    if s.config.pause || s.candidate() || gone >= window {
        return None;
    }
    let moves = status.streaming && s.now.ms_since(s.server.moved_at) < 2 * s.config.loop_wait_ms;
    (gone < s.config.loop_wait_ms || moves).then(|| {
        hold(
            Rule::RaceBackoff,
            format!(
                "My ({}) wal position moved since last heart beat loop, {} seconds until leader race",
                s.name,
                (window - gone).div_ceil(1000)
            ),
        )
    })
}

/// The failsafe topology of the lock's last holder, if that was another pod of our name and has somebody to ask.
fn replaces(s: &Snapshot) -> Option<&BTreeMap<String, String>> {
    let lock =
        s.lock.as_ref().filter(|lock| s.config.failsafe_mode && lock.failsafe.keys().any(|name| *name != s.name))?;
    let another = lock.holder_uid.as_deref().is_some_and(|uid| uid != s.uid);
    (another && lock.leader.as_deref() == Some(s.name.as_str())).then_some(&lock.failsafe)
}

fn race(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if let Some(why) = s.barred() {
        return hold(Rule::Barred, format!("others go first: {why}"));
    }
    if s.tags.nofailover {
        return hold(Rule::NoFailover, "following a different leader because I am not allowed to promote");
    }
    let by_hand = s.by_hand();
    if s.config.pause && !s.candidate() {
        return hold(Rule::Paused, "paused: nobody takes the lock");
    }
    if let Initialize::Done(id) = &s.initialize
        && *id != status.system_id
    {
        return hold(Rule::WrongSystem, format!("system ID mismatch: {} here, {id} in the cluster", status.system_id));
    }
    let mine = position(status);
    if outside_topology(s, &s.name) {
        return hold(Rule::NotInTopology, "not in the failsafe topology of the last leader");
    }
    let free_since = match s.holder {
        Holder::Free { since, .. } | Holder::Absent { until: since } => Some(since),
        _ => None,
    };
    let free_ms = free_since.map(|since| s.now.ms_since(since));
    let never_held = s.lock.as_ref().is_none_or(|lock| lock.acquire_time.is_empty());
    let me = Candidate {
        by_hand,
        patient: never_held
            && !by_hand
            && free_ms.is_some_and(|ms| ms < STARTING_MS)
            && !mutants::on(Mutant::Impatient),
        priority: (!s.candidate() && free_ms.is_none_or(|ms| ms < PRIORITY_MS)).then_some(s.tags.failover_priority),
        members: &s.members,
        name: &s.name,
        lsn: mine,
        timeline: status.timeline,
        // Without a leader in `/sync` no commit rests on a quorum yet.
        mode: match s.config.sync_mode {
            _ if s.sync.leader.is_none() => SyncMode::Off,
            SyncMode::Priority => SyncMode::Priority,
            // What is stored counts, also after the mode was switched off: its last leader takes it away when that loses nothing.
            SyncMode::Quorum | SyncMode::Off => SyncMode::Quorum,
        },
        sync: &s.sync,
        former: s.lock.as_ref().and_then(|l| l.leader.as_deref()),
        former_is_over: former_is_over(s),
        replaces: replaces(s),
    };
    let fresh = |round: &&Round| s.now.ms_since(round.started) < ROUND_LIFE_MS;
    let round = s.round.as_ref().filter(fresh);
    if let Some(lock) = &s.lock {
        // A primary that stopped in order has told where its log ends: whoever has all of it lacks no commit.
        if let (Holder::Free { released: true, .. }, Some((timeline, end))) = (&s.holder, lock.shutdown)
            && status.timeline == timeline
            && (mine > end || mutants::on(Mutant::CompleteWithoutLog))
            && !me.knows_better(round)
        {
            return act(
                Rule::Complete,
                format!("all of the former primary's log is here, up to {end}"),
                vec![Action::Acquire],
            );
        }
        if s.config.check_timeline && status.timeline < s.cluster_timeline {
            let reason = format!("on timeline {}, the cluster is on {}", status.timeline, s.cluster_timeline);
            return hold(Rule::OldTimeline, reason);
        }
        let lag = lock.optime.0.saturating_sub(mine.0);
        if s.sync.leader.is_none() && lag > s.config.maximum_lag_on_failover && !by_hand {
            return hold(Rule::Lagging, format!("{lag} bytes behind the last known position of the leader"));
        }
    }
    if let Some(verdict) = backoff(s, status) {
        return verdict;
    }
    let Some(round) = round else {
        return act(Rule::Race, "asking the other members for their positions", vec![Action::OpenRound, Action::Query]);
    };
    // One whom a person chose goes first, as long as it answers and may lead.
    if let Some(chosen) = s.failover.as_ref().filter(|f| f.when == When::Now).and_then(|f| f.member.as_deref())
        && chosen != s.name
        && !outside_topology(s, chosen)
        && matches!(round.asked.get(chosen), Some(Some(Ok(a))) if a.running && !a.primary && !a.nofailover)
        && s.now.ms_since(round.started) < ROUND_REPEAT_MS
    {
        return hold(Rule::Candidate, format!("{chosen} is to become the leader"));
    }
    match judge(round, &me) {
        _ if mutants::on(Mutant::NoRace) => act(Rule::Acquire, "the first one takes it", vec![Action::Acquire]),
        Outcome::Won => act(Rule::Acquire, "acquiring the lock: nobody is ahead", vec![Action::Acquire]),
        Outcome::Open(waiting) => hold(Rule::RaceOpen, format!("waiting for {}", waiting.join(", "))),
        Outcome::Lost(why) if s.now.ms_since(round.started) >= ROUND_PAUSE_MS => act(
            Rule::RaceLost,
            format!("following a different leader because i am not the healthiest node: {why}"),
            vec![Action::OpenRound, Action::Query],
        ),
        Outcome::Lost(why) => {
            hold(Rule::RaceLost, format!("following a different leader because i am not the healthiest node: {why}"))
        }
    }
}
