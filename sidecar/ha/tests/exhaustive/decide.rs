//! The rules over a lattice of snapshots: whatever a member sees, one verdict, with a reason, that breaks none of the promises of
//! `docs/safety.md`. The promises are said here once more, in their own words and not in those of the rules.

use std::collections::BTreeSet;

use matriarch_ha::decide::{Action, Job, Rule, decide};
use matriarch_ha::event::DataDir;
use matriarch_ha::lease::Holder;
use matriarch_ha::snapshot::{Repair, Snapshot, TaskKind};
use matriarch_ha::store::record::Initialize;

use crate::gen_all::Gen;
use crate::snapshots as vary;

/// Rules that no snapshot of these leads to, and why.
const UNREACHED: &[(Rule, &str)] = &[
    (Rule::OldTimeline, "needs check_timeline and a history: tested beside the rule"),
    (Rule::CopySlots, "needs a logical slot that is missing here: tested beside the rule"),
    (Rule::Lagging, "needs a lock with a position, in async: tested beside the rule"),
];

type Vary = fn(&mut Snapshot, &mut Gen);
type Checks<'a> = &'a mut dyn FnMut(&str, bool);

/// Promise 1: nothing becomes writable but under a confirmed lock, and nobody takes a lock that another may still have.
fn one_primary(s: &Snapshot, actions: &[Action], holds: Checks<'_>) {
    let may_write =
        s.server.running && (s.server.latched || s.server.status.as_ref().is_some_and(|status| !status.in_recovery));
    let promised = s.promised_until.is_some_and(|until| s.now < until);
    for action in actions {
        match action {
            Action::Run(Job::Promote | Job::StartPrimary) => {
                holds("writable only with the lock", s.holder == Holder::Me);
                holds("a standby cluster is never writable", s.config.standby_cluster.is_none());
                holds("writable only in a confirmed tenure", s.deadline.is_some_and(|until| s.now < until));
                holds("not after a promise", !promised);
            }
            Action::Run(Job::PostBootstrap) => holds("a cluster is completed by its leader", s.holder == Holder::Me),
            Action::Acquire => {
                let waited = match s.holder {
                    Holder::Free { .. } => true,
                    Holder::Absent { until } => s.now >= until,
                    Holder::Unfenced { .. } => {
                        let demoted = matches!(&s.leader_answer, Some(Ok(a)) if a.demoted && a.pod_uid == "uid-b");
                        demoted || s.by_hand() || may_write
                    }
                    Holder::Other { .. } => patronis(s),
                    Holder::Unknown | Holder::Me => false,
                };
                holds("a lock is taken only when nobody can have it", waited);
                holds("a lock is taken only on fresh knowledge", s.store_fresh);
                holds("a promise to leave the lock alone is kept", !promised);
                let primary = s.server.status.as_ref().is_some_and(|status| !status.in_recovery);
                holds("one that never leads takes no lock", !s.tags.nofailover || primary || !s.server.running);
            }
            Action::Release(at) => {
                holds("only the holder releases", s.holder == Holder::Me);
                let clean = matches!(&s.server.dir, Some(DataDir::Present(c)) if c.state == "shut down");
                holds("where the log ended is told only after a clean stop", at.is_none() || clean);
                let last_record = clean && at.is_some() && s.task.is_some_and(|t| t.kind == TaskKind::Stop);
                holds("what may write does not release", !may_write || last_record);
            }
            Action::Finish => {
                holds("the agent ends after PostgreSQL", !s.server.running);
                holds("and when its supervisor knows", !s.unannounced);
            }
            _ => {}
        }
    }
    let elsewhere = matches!(s.holder, Holder::Other { .. }) && s.server.attached && !s.config.pause;
    if elsewhere && may_write && s.task.is_none() && !patronis(s) {
        let stops = actions.iter().any(|a| matches!(a, Action::Run(Job::Stop { .. })));
        holds("a primary without the lock is stopped", stops);
    }
}

/// A primary that ran here before our agent did, under a lock in this member's name: Patroni had both.
fn patronis(s: &Snapshot) -> bool {
    let named = matches!(&s.holder, Holder::Other { name, .. } if *name == s.name);
    let primary = s.server.running && s.server.status.as_ref().is_some_and(|status| !status.in_recovery);
    named && primary && s.lock.as_ref().is_some_and(|lock| lock.holder_uid.is_none())
}

/// Promise 2: the only copy is never removed, and commits that somebody waited for rest on what the next election asks.
fn no_loss(s: &Snapshot, actions: &[Action], holds: Checks<'_>) {
    let ours = match (&s.initialize, &s.server.dir) {
        (Initialize::Done(id), Some(DataDir::Present(control))) => *id == control.system_id,
        _ => true,
    };
    // The leader of a standby cluster leads as a standby.
    let may_follow = s.config.standby_cluster.is_some();
    let leader_lives = matches!(&s.leader_answer, Some(Ok(a)) if a.primary || may_follow && a.running);
    let follows = matches!(&s.holder, Holder::Other { name, .. } if *name != s.name);
    for action in actions {
        match action {
            Action::Run(Job::BaseBackup { leader, .. }) => {
                holds("a copy replaces nothing that runs", !s.server.running);
                if may_follow && !follows && leader.member.is_empty() {
                    let useless = matches!(s.server.dir, Some(DataDir::Empty | DataDir::Broken(_)));
                    let judged = s.holder == Holder::Me && (useless || s.server.repair == Repair::Copy);
                    let made = s.bootstrapping() && s.server.dir == Some(DataDir::Empty);
                    holds("a standby cluster is made in an empty directory, or mended by its leader", made || judged);
                    holds("another cluster's directory is left alone", ours);
                    continue;
                }
                holds("a copy comes from a leader that said it is the primary", follows && leader_lives);
                holds(
                    "a copy comes from the leader",
                    matches!(&s.holder, Holder::Other { name, .. } if *name == leader.member),
                );
                let useless = matches!(s.server.dir, Some(DataDir::Empty | DataDir::Broken(_)));
                let judged = s.server.repair != Repair::None || !s.config.use_pg_rewind;
                holds("a directory is replaced only with a cause", useless || judged);
                holds("another cluster's directory is left alone", ours || s.reinitializing());
            }
            Action::Run(Job::Rewind(_)) => {
                let remote = may_follow && s.holder == Holder::Me;
                holds("rewound only against a leader that said it is the primary", remote || follows && leader_lives);
                holds("another cluster's directory is left alone", ours && !s.server.running);
            }
            Action::Run(Job::Initdb) => {
                holds("a cluster is made only in an empty directory", s.server.dir == Some(DataDir::Empty));
                let by_us = matches!(&s.initialize, Initialize::Racing { by: Some((name, _)) } if *name == s.name);
                holds("a cluster is made only by who won the race", by_us);
            }
            Action::Run(Job::Restore) => {
                let useless = matches!(s.server.dir, Some(DataDir::Empty | DataDir::Broken(_)));
                holds("an archive replaces nothing that is there", useless && !s.server.running);
            }
            Action::Run(Job::MoveAside) => {
                let failed = s.server.bootstrap_failed.is_some() && !matches!(s.initialize, Initialize::Done(_));
                holds("only a failed bootstrap is moved aside", failed && !s.server.running);
            }
            Action::Run(Job::StartPrimary | Job::StartStandby(_)) => {
                holds("another cluster's directory is not started", ours && !s.server.running);
            }
            _ => {}
        }
        let claimed = s.sync_settled && s.sync.leader.as_deref().is_none_or(|leader| leader == s.name);
        match action {
            Action::Run(Job::Promote) => holds("promoted only after /sync is claimed", claimed),
            Action::Run(Job::StartPrimary) if s.sync.leader.is_some() => {
                holds("started as primary only with a setting that /sync allows", claimed || s.sync_kept);
            }
            Action::Follow(Some(_)) | Action::Run(Job::StartStandby(Some(_))) if follows => {
                let streams = s.server.status.as_ref().is_some_and(|status| status.streaming);
                holds("nothing is streamed from a holder that gave no sign of life", s.lock_renewed || streams);
            }
            _ => {}
        }
    }
}

/// A fenced member runs no PostgreSQL and takes no lock.
fn fence(s: &Snapshot, actions: &[Action], holds: Checks<'_>) {
    if !s.config.fenced.contains(&s.name) || s.holder == Holder::Unknown || s.terminating {
        return;
    }
    let starts = |a: &Action| matches!(a, Action::Run(job) if !matches!(job, Job::Stop { .. }));
    holds("nothing but a stop is run on a fenced member", !actions.iter().any(starts));
    holds(
        "a fenced member takes no lock",
        !actions.iter().any(|a| matches!(a, Action::Acquire | Action::RaceInitialize)),
    );
    if s.server.running && s.server.attached && s.task.is_none() {
        let stops = actions.iter().any(|a| matches!(a, Action::Run(Job::Stop { .. })));
        holds("a fenced member is stopped", stops);
    }
    let ready = s.server.attached && s.server.installed && s.task.is_none() && s.server.dir.is_some();
    if s.holder == Holder::Me && !s.server.running && ready {
        holds("its lock is released", actions.iter().any(|a| matches!(a, Action::Release(_))));
    }
}

/// Pause: nothing is started, stopped, promoted, rewound, copied or made but on a command or at the end of the pod.
fn pause(s: &Snapshot, actions: &[Action], holds: Checks<'_>) {
    let fenced = s.config.fenced.contains(&s.name);
    if s.config.pause && !fenced && !s.server.commanded && s.failover.is_none() && s.command.is_none() && !s.terminating
    {
        holds("nothing is run in pause", !actions.iter().any(|a| matches!(a, Action::Run(_))));
    }
}

fn coherent(s: &Snapshot, reason: &str, actions: &[Action], holds: Checks<'_>) {
    let count = |which: fn(&Action) -> bool| actions.iter().filter(|a| which(a)).count();
    holds("a reason that a person can read", !reason.trim().is_empty());
    holds("one task at a time", count(|a| matches!(a, Action::Run(_))) <= 1);
    let lock = count(|a| matches!(a, Action::Acquire | Action::Release(_)));
    holds("the lock is taken or given up", lock <= 1);
    let stopping = s.task.is_some_and(|t| t.kind == TaskKind::Stop);
    let its_end = |a: &Action| match a {
        Action::Cancel => true,
        Action::Inspect | Action::AskStandbys | Action::Release(_) => stopping,
        _ => false,
    };
    holds("during a task nothing but its end", s.task.is_none() || actions.iter().all(its_end));
    holds("without a supervisor nothing", s.server.attached || actions.is_empty());
}

#[test]
fn every_snapshot_has_one_verdict_that_keeps_the_promises() {
    let groups: &[&[Vary]] = &[
        &[vary::holder, vary::server, vary::task, vary::surroundings],
        &[vary::holder, vary::initialize, vary::server, vary::pause],
        &[vary::holder, vary::sync, vary::server, vary::pause],
        &[vary::holder, vary::server, vary::stopping, vary::fence, vary::pause],
        &[vary::holder, vary::server, vary::task, vary::fence],
        &[vary::holder, vary::initialize, vary::server, vary::fence],
        &[vary::holder, vary::server, vary::repair, vary::answer, vary::pause],
        &[vary::holder, vary::server, vary::failover, vary::answer, vary::pause],
        &[vary::holder, vary::server, vary::round, vary::failover],
        &[vary::holder, vary::server, vary::stopping, vary::pause],
        &[vary::holder, vary::server, vary::relic, vary::answer, vary::repair],
        &[vary::holder, vary::sync, vary::server, vary::seldom],
        &[vary::holder, vary::server, vary::task, vary::command, vary::answer, vary::pause],
        &[vary::holder, vary::initialize, vary::server, vary::answer, vary::seldom],
    ];
    let (plain, mut seen, mut snapshots) = (vary::base(), BTreeSet::new(), 0);
    for group in groups {
        snapshots += Gen::all(|g| {
            let mut s = plain.clone();
            for vary in *group {
                vary(&mut s, g);
            }
            let verdict = decide(&s);
            let holds = &mut |promise: &str, kept: bool| assert!(kept, "{promise}: {verdict:?}\n{s:?}");
            coherent(&s, &verdict.reason, &verdict.actions, holds);
            one_primary(&s, &verdict.actions, holds);
            no_loss(&s, &verdict.actions, holds);
            pause(&s, &verdict.actions, holds);
            fence(&s, &verdict.actions, holds);
            seen.insert(verdict.rule);
        });
    }
    eprintln!("{snapshots} snapshots, {} rules", seen.len());
    let listed = |rule: &Rule| UNREACHED.iter().any(|(unreached, _)| unreached == rule);
    let missing: Vec<&str> = Rule::ALL.iter().filter(|r| !seen.contains(r) && !listed(r)).map(|r| r.id()).collect();
    assert!(missing.is_empty(), "rules that nothing leads to: {missing:?}");
    let reached: Vec<&str> = UNREACHED.iter().filter(|(r, _)| seen.contains(r)).map(|(r, _)| r.id()).collect();
    assert!(reached.is_empty(), "reached after all: {reached:?}");
}
