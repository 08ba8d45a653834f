//! Rules while nobody has the lock: who may take it.

use super::server::stopped_dir;
use super::{Action, Job, Rule, Verdict, act, bootstrap, hold, run};
use crate::config::SyncMode;
use crate::election::{Candidate, Outcome, judge};
use crate::event::{DataDir, ServerStatus};
use crate::lease::Holder;
use crate::snapshot::{Snapshot, position};
use crate::store::record::Initialize;

/// A lost round is repeated after this, milliseconds.
const ROUND_PAUSE_MS: u64 = 300;

/// A member of higher priority that is as far as we are is waited for so long, milliseconds: it may be unable to lead.
const PRIORITY_MS: u64 = 5_000;

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

/// After a switchover's release the candidate goes first, and the old leader last.
fn others_first(s: &Snapshot) -> Option<Verdict> {
    let failover = s.failover.as_ref()?;
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

fn stopped(s: &Snapshot) -> Verdict {
    let dir = match stopped_dir(s) {
        Ok(dir) => dir,
        Err(verdict) => return verdict,
    };
    match dir {
        DataDir::Present(_) => run(s, Rule::StartAlone, "starting as a standby of nobody", Job::StartStandby(None)),
        DataDir::Unknown(why) => {
            act(Rule::Inspect, format!("the data directory cannot be read: {why}"), vec![Action::Inspect])
        }
        DataDir::Empty => hold(Rule::NoData, "waiting for a leader to copy from"),
        DataDir::Broken(why) => {
            hold(Rule::NoData, format!("the data directory is damaged ({why}): waiting for a leader to copy from"))
        }
    }
}

fn running_primary(s: &Snapshot) -> Verdict {
    let last = s.lock.as_ref().and_then(|l| l.leader.as_deref());
    if last == Some(s.name.as_str()) {
        return act(Rule::PrimaryAgain, "I run as primary and nobody else had the lock", vec![Action::Acquire]);
    }
    if s.config.pause {
        return hold(Rule::Paused, "continue to run as primary without lock");
    }
    act(
        Rule::PrimaryDemote,
        "I run as primary without having had the lock",
        vec![Action::Run(Job::Stop { immediate: true })],
    )
}

fn race(s: &Snapshot, status: &ServerStatus) -> Verdict {
    if s.tags.nofailover {
        return hold(Rule::NoFailover, "following a different leader because I am not allowed to promote");
    }
    let candidate_by_hand = s.failover.as_ref().and_then(|f| f.member.as_deref()) == Some(s.name.as_str());
    if s.config.pause && !candidate_by_hand {
        return hold(Rule::Paused, "paused: nobody takes the lock");
    }
    if let Initialize::Done(id) = &s.initialize
        && *id != status.system_id
    {
        return hold(Rule::WrongSystem, format!("system ID mismatch: {} here, {id} in the cluster", status.system_id));
    }
    let mine = position(status);
    if let Some(lock) = &s.lock {
        let topology = &lock.failsafe;
        if s.config.failsafe_mode && !topology.is_empty() && !topology.contains_key(&s.name) {
            return hold(Rule::NotInTopology, "not in the failsafe topology of the last leader");
        }
        // A primary that stopped in order has told where its log ends: whoever has all of it lacks no commit.
        if let (Holder::Free { released: true, .. }, Some((timeline, end))) = (&s.holder, lock.shutdown)
            && status.timeline == timeline
            && mine > end
        {
            return act(
                Rule::Complete,
                format!("all of the former primary's log is here, up to {end}"),
                vec![Action::Acquire],
            );
        }
        let lag = lock.optime.0.saturating_sub(mine.0);
        if s.config.sync_mode == SyncMode::Off && lag > s.config.maximum_lag_on_failover {
            return hold(Rule::Lagging, format!("{lag} bytes behind the last known position of the leader"));
        }
    }
    let Some(round) = &s.round else {
        return act(Rule::Race, "asking the other members for their positions", vec![Action::OpenRound, Action::Query]);
    };
    let free_since = match s.holder {
        Holder::Free { since, .. } => since,
        _ => round.started,
    };
    let me = Candidate {
        priority: (s.now.ms_since(free_since) < PRIORITY_MS).then_some(s.tags.failover_priority),
        members: &s.members,
        name: &s.name,
        lsn: mine,
        timeline: status.timeline,
        // Without a leader in `/sync` no commit rests on a quorum yet.
        mode: if s.sync.leader.is_some() { s.config.sync_mode } else { SyncMode::Off },
        sync: &s.sync,
        former: s.lock.as_ref().and_then(|l| l.leader.as_deref()),
    };
    match judge(round, &me) {
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
