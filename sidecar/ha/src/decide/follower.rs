//! Rules of a member while somebody else has the lock.

use super::server::{stopped_dir, unreadable};
use super::{Action, Job, Rule, Verdict, act, hold, run};
use crate::effect::Upstream;
use crate::event::{ControlData, DataDir, PeerAnswer, ServerStatus};
use crate::mutants::{self, Mutant};
use crate::quorum;
use crate::snapshot::{Repair, Snapshot};
use crate::store::record::Initialize;

/// A standby that has not streamed for so long, though the leader is the primary, is compared with it. Milliseconds.
const STUCK_MS: u64 = 12_000;
/// A member named by `replicatefrom` that has sent nothing for so long is passed over, milliseconds.
const CASCADE_MS: u64 = 6_000;
/// A standby is copied anew of our own accord at most once in this time, milliseconds: what one copy does not mend, the next does not
/// either, and each costs the leader a base backup.
const COPY_AGAIN_MS: u64 = 600_000;
/// So many failed starts in a row say that the directory cannot be started.
const UNSTARTABLE: u32 = 10;
/// A standby that does not accept connections after this is copied anew. Milliseconds; replay of much WAL takes its time.
const NEVER_READY_MS: u64 = 600_000;

pub(super) fn decide(s: &Snapshot, leader: &str) -> Verdict {
    let primary = s.server.status.as_ref().is_some_and(|st| !st.in_recovery);
    if leader == s.name && patronis_primary(s) {
        if !s.store_fresh || s.promised_until.is_some_and(|until| s.now < until) {
            return hold(Rule::StoreAway, "DCS is not accessible");
        }
        return act(Rule::Adopt, "I run as the primary that Patroni had the lock for", vec![Action::Acquire]);
    }
    if s.server.running && (s.server.latched || primary) && s.config.pause {
        return hold(Rule::FollowerPaused, format!("continue to run as primary without lock: {leader} has it"));
    }
    if s.server.running && (s.server.latched || primary) {
        let reason = format!("demoting self because I do not have the lock: {leader} has it");
        return act(Rule::Demote, reason, vec![Action::Run(Job::Stop { immediate: true })]);
    }
    if leader == s.name {
        return hold(Rule::FormerSelf, "an earlier pod of this name has the lock: it expires if that pod is gone");
    }
    match (s.server.running, &s.server.status) {
        (false, _) => stopped(s, leader),
        (true, None) => match s.follows(leader) {
            // A standby may need its upstream to become consistent: the name of a new one is told by reload.
            Some(wanted) if s.lock_renewed && s.server.upstream.as_ref() != Some(&wanted) => {
                act(Rule::Follow, following(wanted.as_ref(), leader), vec![Action::Follow(wanted), Action::Query])
            }
            _ if never_ready(s) => act(
                Rule::Stuck,
                format!(
                    "PostgreSQL has not become consistent for {} s: a new copy is made",
                    s.now.ms_since(s.server.started) / 1000
                ),
                vec![Action::Repair(Repair::Copy), Action::Run(Job::Stop { immediate: false })],
            ),
            _ => act(Rule::Starting, "PostgreSQL does not answer yet", vec![Action::Query, Action::AskLeader]),
        },
        (true, Some(status)) => running(s, leader, status),
    }
}

/// A primary runs here, and the lock is in our name without saying which pod: the agent that was here before us, Patroni, had both.
/// A new pod of a name begins without a running server.
fn patronis_primary(s: &Snapshot) -> bool {
    let unsaid = s.lock.as_ref().is_some_and(|lock| lock.holder_uid.is_none());
    let same = |system: &str| matches!(&s.initialize, Initialize::Done(id) if id == system);
    s.server.running
        && unsaid
        && s.task.is_none()
        && s.server.status.as_ref().is_some_and(|status| !status.in_recovery && same(&status.system_id))
}

/// The leader is where it has to be for others to copy or compare.
fn leads(s: &Snapshot, answer: &PeerAnswer) -> bool {
    answer.leads(s.config.standby_cluster.is_some())
}

/// The leader has not come up for as long as it may take. It gives up then if somebody else can lead, and only who runs can. Where
/// commits rest on nobody's word it is waited for: what a former primary lacks nobody knows.
fn replaces_the_late(s: &Snapshot) -> bool {
    s.leader_late_since.is_some_and(|since| s.now.ms_since(since) >= s.start_timeout_ms())
        && s.sync.leader.is_some()
        && quorum::electorate(&s.sync, &s.name)
        && !s.reinitializing()
        && s.server.starts_failed < UNSTARTABLE
}

fn following(wanted: Option<&Upstream>, leader: &str) -> String {
    match wanted {
        Some(upstream) if upstream.member == leader => format!("following new leader {leader}"),
        Some(upstream) => format!("following {}, which follows {leader}", upstream.member),
        None => "following nobody, as tagged".to_owned(),
    }
}

/// A standby whose leader is well and that accepts no connections for long lacks WAL that nobody has any more.
fn never_ready(s: &Snapshot) -> bool {
    s.now.ms_since(s.server.started) >= NEVER_READY_MS
        && matches!(&s.leader_answer, Some(Ok(a)) if leads(s, a))
        && !s.config.pause
}

/// No copy was made lately. (A person's order is not asked.)
fn copy_is_due(s: &Snapshot) -> bool {
    s.server.copied.is_none_or(|at| s.now.ms_since(at) >= COPY_AGAIN_MS)
}

/// Could not be started again and again, and has not just been copied.
fn unstartable(s: &Snapshot) -> bool {
    s.server.starts_failed >= UNSTARTABLE && s.config.remove_on_rewind_failure && copy_is_due(s)
}

fn stopped(s: &Snapshot, leader: &str) -> Verdict {
    let dir = match stopped_dir(s) {
        Ok(dir) => dir,
        Err(verdict) => return verdict,
    };
    let wait = |why: String| act(Rule::WaitForLeader, why, vec![Action::AskLeader]);
    let Some(upstream) = s.upstream_of(leader) else {
        return hold(Rule::WaitForLeader, format!("{leader} has the lock, but its pod has not published an address"));
    };
    if matches!(dir, DataDir::Present(control) if !control.standby_signal) && mutants::on(Mutant::WipeFirst) {
        return copy(s, leader, upstream, "at once");
    }
    let follows = s.follows(leader).flatten().filter(|_| s.lock_renewed);
    // A standby's directory may always be started: it follows as soon as there is somebody to follow.
    if let DataDir::Present(control) = dir
        && control.standby_signal
        && s.server.repair == Repair::None
        && !(unstartable(s) && s.leader_answer.is_none())
        && !matches!(&s.leader_answer, Some(Ok(answer)) if leads(s, answer))
    {
        return run(s, Rule::StartStandby, format!("starting as a secondary of {leader}"), Job::StartStandby(follows));
    }
    let answer = match &s.leader_answer {
        None => return wait(format!("asking {leader} for its state")),
        Some(Err(why)) => return wait(format!("{leader} does not answer: {why}")),
        Some(Ok(answer)) if !leads(s, answer) && replaces_the_late(s) && matches!(dir, DataDir::Present(_)) => {
            let reason = format!("{leader} does not come up: starting as a standby, so that somebody else can lead");
            return run(s, Rule::StartStandby, reason, Job::StartStandby(None));
        }
        Some(Ok(answer)) if !leads(s, answer) => return wait(format!("{leader} is not yet the primary")),
        Some(Ok(answer)) => answer,
    };
    if matches!(dir, DataDir::Present(_)) && s.server.repair != Repair::Copy && unstartable(s) {
        let why = s.server.last_error.as_deref().unwrap_or("unknown");
        return act(
            Rule::Unstartable,
            format!("PostgreSQL could not be started {} times ({why}): a new copy is made", s.server.starts_failed),
            vec![Action::Repair(Repair::Copy)],
        );
    }
    match dir {
        DataDir::Unknown(why) => unreadable(why),
        DataDir::Empty => copy(s, leader, upstream, "trying to bootstrap"),
        DataDir::Broken(why) => {
            copy(s, leader, upstream, &format!("the data directory is damaged ({why}): trying to bootstrap"))
        }
        DataDir::Present(control) => match s.server.repair {
            Repair::Copy => copy(s, leader, upstream, "a new copy"),
            Repair::Rewound => {
                run(s, Rule::StartStandby, format!("starting as a secondary of {leader}"), Job::StartStandby(follows))
            }
            Repair::Rewind => rewind(s, leader, upstream),
            Repair::None if may_have_diverged(control, answer) => rewind(s, leader, upstream),
            Repair::None => {
                run(s, Rule::StartStandby, format!("starting as a secondary of {leader}"), Job::StartStandby(follows))
            }
        },
    }
}

fn rewind(s: &Snapshot, leader: &str, upstream: Upstream) -> Verdict {
    run(
        s,
        Rule::Rewind,
        format!("comparing with {leader}, and running pg_rewind from it if needed"),
        Job::Rewind(upstream),
    )
}

/// A copy of `leader`, who has said that it is the primary, taken from it or from a member that offers itself.
fn copy(s: &Snapshot, leader: &str, upstream: Upstream, why: &str) -> Verdict {
    let from = s.clone_source(leader).filter(|_| !s.from_leader()).unwrap_or_else(|| upstream.clone());
    let whom = if from.member == leader { "leader" } else { "replica" };
    let reason = format!("{why} from {whom} '{}'", from.member);
    run(s, Rule::Copy, reason, Job::BaseBackup { from, leader: upstream })
}

/// A former primary, or a standby of another timeline than the leader's. pg_rewind finds out what has to be done.
fn may_have_diverged(control: &ControlData, leader: &PeerAnswer) -> bool {
    !control.standby_signal || control.timeline != leader.timeline
}

fn running(s: &Snapshot, leader: &str, status: &ServerStatus) -> Verdict {
    let Some(wanted) = s.follows(leader) else {
        return hold(Rule::WaitForLeader, format!("{leader} has the lock, but its pod has not published an address"));
    };
    // One that streams has not ended its stream for an election since.
    if wanted.is_some() && !s.lock_renewed && !status.streaming {
        let reason =
            format!("{leader} has the lock, but has not renewed it since this agent runs: not streaming from it yet");
        return hold(Rule::Unconfirmed, reason);
    }
    if s.server.upstream.as_ref() != Some(&wanted) {
        return act(Rule::Follow, following(wanted.as_ref(), leader), vec![Action::Follow(wanted)]);
    }
    let Some(from) = wanted else {
        let reason = format!("no action. I am ({}), a secondary, and stream from nobody (leader {leader})", s.name);
        return hold(Rule::Following, reason);
    };
    if !status.streaming
        && from.member != leader
        && s.server.streamless_since.is_some_and(|since| s.now.ms_since(since) >= CASCADE_MS)
    {
        let reason = format!("no WAL from {}: following {leader} for a while", from.member);
        return act(Rule::Shun, reason, vec![Action::Shun(from.member)]);
    }
    if !status.streaming
        && let Some(since) = s.server.streamless_since
        && s.now.ms_since(since) >= STUCK_MS
        && !s.config.pause
    {
        let again = s.server.repair == Repair::Rewound && s.config.remove_on_rewind_failure;
        if again && !copy_is_due(s) {
            let reason = format!(
                "no WAL from {leader}, and a copy was made lately: the next one is made ten minutes after it; PostgreSQL's log says what \
                 is wrong"
            );
            return hold(Rule::CopiedLately, reason);
        }
        return match &s.leader_answer {
            Some(Ok(answer)) if leads(s, answer) => act(
                Rule::Stuck,
                format!("no WAL from {leader} for {} s, though it is the primary", s.now.ms_since(since) / 1000),
                vec![
                    Action::Repair(if again { Repair::Copy } else { Repair::Rewind }),
                    Action::Run(Job::Stop { immediate: false }),
                ],
            ),
            _ => act(Rule::WaitForLeader, format!("no WAL from {leader}"), vec![Action::AskLeader]),
        };
    }
    if status.streaming && !s.server.slots_to_copy.is_empty() && !s.config.pause && s.now >= s.server.retry_at {
        let names = s.server.slots_to_copy.clone();
        let reason = format!("copying the state of the slots {} from {leader}", names.join(", "));
        if let Some(leader) = s.upstream_of(leader) {
            return act(Rule::CopySlots, reason, vec![Action::Run(Job::CopySlots(leader, names))]);
        }
    }
    let state = if status.streaming { "" } else { " (not streaming yet)" };
    let by_way = if from.member == leader { String::new() } else { format!(" by way of {}", from.member) };
    hold(
        Rule::Following,
        format!("no action. I am ({}), a secondary, and following a leader ({leader}){by_way}{state}", s.name),
    )
}
