//! `kubectl matriarch switchover` and `failover`: asks by the `-failover` object, as patronictl does, and watches the leader lock.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::error::{Error, instead};
use crate::list::print;
use crate::output::{Format, say};
use crate::restart::future;
use crate::store::Store;
use crate::view::{Annotations, Cluster};

/// How often the lock is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Why the last one was not done.
const RESULT: &str = "matriarch.dev/result";

/// From where, to where and when.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// The member that becomes primary. When absent, the agents choose the best one.
    #[arg(long, add = completion::members())]
    candidate: Option<String>,
    /// Only if this member is the primary now.
    #[arg(long, visible_alias = "primary", add = completion::members())]
    leader: Option<String>,
    /// Later, with a time zone, e.g. 2026-12-01T03:00:00+01:00.
    #[arg(long, visible_alias = "scheduled", value_name = "TIME")]
    at: Option<String>,
    /// Call off what was scheduled.
    #[arg(long, conflicts_with_all = ["candidate", "leader", "at"])]
    cancel: bool,
    /// Does not ask.
    #[arg(short, long, visible_alias = "force")]
    yes: bool,
    /// For how many seconds it is waited for.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

/// To where, when there is no leader or the best one is not wanted.
#[derive(clap::Args)]
pub struct FailoverArgs {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// The member that becomes primary.
    #[arg(long, required = true, add = completion::members())]
    candidate: String,
    /// Does not ask.
    #[arg(short, long, visible_alias = "force")]
    yes: bool,
    /// For how many seconds it is waited for.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

/// What is known of a switchover that was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing yet.
    Pending,
    /// This member has the lock now.
    Moved(String),
    /// The request is gone and the old leader has the lock; why, where that was written.
    Refused(Option<String>),
}

/// Does it, or calls it off.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    if args.cancel {
        return cancel(&store, args.yes).await;
    }
    let cluster = store.stored().await?;
    let leader = check(&cluster, args, Timestamp::now())?;
    if !args.yes {
        say(&print(std::slice::from_ref(&cluster), Format::Pretty)?)?;
    }
    let to = args.candidate.as_ref().map(|c| format!(" and promoting {c}")).unwrap_or_default();
    let at = args.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    confirm(
        session,
        args.yes,
        &format!("Switch over cluster {}, demoting the primary {leader}{to}{at}?", args.cluster),
    )?;
    request(&store, Some(&leader), args.candidate.as_deref(), args.at.as_deref()).await?;
    if let Some(at) = &args.at {
        return say(&format!("Switchover scheduled at {at}"));
    }
    wait(&store, "switchover", args.candidate.as_deref(), &leader, args.timeout).await
}

/// To a member that is named, whether there is a leader or not.
pub async fn failover(session: &Session, args: &FailoverArgs) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    let cluster = store.stored().await?;
    let loss = check_failover(&cluster, &args.candidate)?;
    if !args.yes {
        say(&print(std::slice::from_ref(&cluster), Format::Pretty)?)?;
    }
    let from = cluster.leader.as_ref().map(|l| format!(", demoting the primary {l}")).unwrap_or_default();
    confirm(session, args.yes, &format!("Fail over cluster {} to {}{from}?{loss}", args.cluster, args.candidate))?;
    request(&store, None, Some(&args.candidate), None).await?;
    let old = cluster.leader.unwrap_or_default();
    wait(&store, "failover", Some(&args.candidate), &old, args.timeout).await
}

/// Calls off a scheduled switchover; one that is under way is not disturbed.
pub async fn cancel(store: &Store, yes: bool) -> Result<(), Error> {
    let name = store.names.failover();
    let read = store.shared(&name).await?;
    let value = |key: &str| read.as_ref().and_then(|r| r.annotations.get(key)).filter(|v| !v.is_empty());
    let Some(at) = value("scheduled_at") else {
        let now = value("leader").or(value("member")).map(|_| ": one is under way, which cannot be called off");
        return Err(Error::NotFound(format!("no switchover is scheduled{}", now.unwrap_or_default())));
    };
    confirm(&store.session, yes, &format!("Call off the switchover that is scheduled at {at}?"))?;
    let none = json!({"leader": null, "member": null, "scheduled_at": null, (RESULT): null});
    store.annotate(&name, read.as_ref(), &none).await?;
    say("scheduled switchover deleted")
}

/// Writes the request, unless somebody else wrote one meanwhile.
async fn request(store: &Store, leader: Option<&str>, to: Option<&str>, at: Option<&str>) -> Result<(), Error> {
    let name = store.names.failover();
    let read = store.shared(&name).await?;
    let pending = ["leader", "member"]
        .iter()
        .any(|k| read.as_ref().and_then(|r| r.annotations.get(*k)).is_some_and(|v| !v.is_empty()));
    if pending {
        return Err(Error::Refused(
            "another switchover was asked for meanwhile: see `kubectl matriarch status`".to_owned(),
        ));
    }
    let wanted: Value = json!({"leader": leader, "member": to, "scheduled_at": at, (RESULT): null});
    store.annotate(&name, read.as_ref(), &wanted).await
}

/// Refuses what agents would refuse, with the reason; gives the leader.
fn check(cluster: &Cluster, args: &Args, now: Timestamp) -> Result<String, Error> {
    let refuse = |why: String| Err(Error::Refused(why));
    let Some(leader) = &cluster.leader else {
        return refuse(format!(
            "{} has no leader now, so there is nothing to switch over from: `kubectl matriarch failover` names a new one{}",
            cluster.name,
            cluster.reasons()
        ));
    };
    if let Some(expected) = args.leader.as_ref().filter(|l| *l != leader) {
        return refuse(format!("leader name does not match: {expected} was given, the leader is {leader}"));
    }
    if let Some([from, to, at]) = &cluster.switchover {
        let to = if to.is_empty() { "the best standby" } else { to };
        let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
        return refuse(format!(
            "a switchover from {from} to {to}{at} is already asked for: wait for it, or call it off with --cancel"
        ));
    }
    if let Some(at) = &args.at {
        future(at, now, "switchover").map_err(Error::Refused)?;
        if cluster.paused {
            return refuse(
                "cannot schedule a switchover while the cluster is paused: `kubectl matriarch resume` first".to_owned(),
            );
        }
    }
    let Some(candidate) = &args.candidate else {
        if cluster.paused {
            return refuse(
                "switchover is possible only to a specific candidate while the cluster is paused: give --candidate"
                    .to_owned(),
            );
        }
        return if cluster.members.iter().any(|m| m.name != *leader && m.ready) {
            Ok(leader.clone())
        } else {
            refuse(format!("switchover is not possible: no good candidates have been found{}", cluster.reasons()))
        };
    };
    if candidate == leader {
        return refuse(format!("switchover target and source are the same: {leader} is the leader already"));
    }
    let member = standby(cluster, candidate)?;
    if args.at.is_none() && !member.ready {
        return refuse(format!("candidate {candidate} is not ready: it is {}{}", member.state, cluster.reasons()));
    }
    let sync = cluster.sync_standbys.iter().any(|s| s.eq_ignore_ascii_case(candidate));
    if cluster.synchronous_mode == "true" && args.at.is_none() && !sync {
        return refuse(format!(
            "candidate {candidate} is not a synchronous standby: choose one of {}",
            cluster.sync_standbys.join(", ")
        ));
    }
    Ok(leader.clone())
}

fn standby<'a>(cluster: &'a Cluster, candidate: &str) -> Result<&'a crate::view::Member, Error> {
    cluster.members.iter().find(|m| m.name == candidate).ok_or_else(|| {
        let leader = cluster.leader.as_deref();
        let names: Vec<&str> = cluster.members.iter().map(|m| m.name.as_str()).filter(|n| Some(*n) != leader).collect();
        let near = instead(candidate, &names);
        Error::NotFound(format!("candidate {candidate} does not exist: {near} The standbys are {}", names.join(", ")))
    })
}

/// Refuses what agents would refuse; gives what is to be said before a loss.
fn check_failover(cluster: &Cluster, candidate: &str) -> Result<&'static str, Error> {
    if cluster.switchover.is_some() {
        return Err(Error::Refused("a switchover is already asked for: wait for it, or call it off with `kubectl matriarch switchover --cancel`".to_owned()));
    }
    if cluster.leader.as_deref() == Some(candidate) {
        return Err(Error::Refused(format!("{candidate} is the leader already")));
    }
    standby(cluster, candidate)?;
    let sync = cluster.sync_standbys.iter().any(|s| s.eq_ignore_ascii_case(candidate));
    Ok(match (cluster.synchronous_mode.as_str(), sync) {
        ("", _) => " What it has not received is lost (async).",
        (_, false) => " It is no synchronous standby: what it has not received is lost.",
        _ => "",
    })
}

async fn wait(store: &Store, what: &str, candidate: Option<&str>, leader: &str, timeout: u64) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        match look(store, leader).await? {
            Progress::Pending if started.elapsed() < Duration::from_secs(timeout) => sleep(LOOK).await,
            Progress::Pending => {
                let cluster = store.stored().await?;
                return Err(Error::Unknown(format!(
                    "{what} status unknown after {timeout} seconds; it may still be in progress{}",
                    cluster.reasons()
                )));
            }
            Progress::Refused(why) => {
                let cluster = store.stored().await?;
                let still = cluster
                    .leader
                    .as_deref()
                    .map_or_else(|| "nobody leads".to_owned(), |l| format!("{l} is the leader"));
                let why = why.map_or_else(|| cluster.reasons(), |why| format!(": {why}"));
                return Err(Error::Refused(format!("{what} failed: the agents withdrew it and {still}{why}")));
            }
            Progress::Moved(now) => {
                let (seconds, cluster) = (started.elapsed().as_secs_f32(), store.view().await?);
                say(&print(&[cluster], Format::Pretty)?)?;
                return match candidate {
                    Some(candidate) if candidate != now => {
                        Err(Error::Refused(format!("{now} leads now instead of {candidate}")))
                    }
                    _ if what == "failover" => {
                        say(&format!("Successfully failed over to \"{now}\" after {seconds:.1} s"))
                    }
                    _ => say(&format!("Successfully switched over to \"{now}\" after {seconds:.1} s")),
                };
            }
        }
    }
}

/// The request is read before the lock: whoever takes the lock withdraws the request afterwards, so a request that is
/// gone under the old leader was refused.
async fn look(store: &Store, leader: &str) -> Result<Progress, Error> {
    let request = store.annotations(&store.names.failover()).await?;
    let lock = store.annotations(&store.names.leader()).await?;
    Ok(progress(&request, &lock, leader))
}

fn progress(request: &Annotations, lock: &Annotations, leader: &str) -> Progress {
    let asked = ["leader", "member"].iter().any(|k| request.get(*k).is_some_and(|v| !v.is_empty()));
    match lock.get("leader").filter(|l| !l.is_empty()) {
        Some(holder) if holder != leader => Progress::Moved(holder.clone()),
        _ if asked => Progress::Pending,
        // Withdrawn by whoever takes the lock now, or because it could not be.
        None if !leader.is_empty() && !request.contains_key(RESULT) => Progress::Pending,
        _ => Progress::Refused(request.get(RESULT).cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Member;

    fn args(line: &str) -> Args {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        <Line as clap::Parser>::parse_from(std::iter::once("x").chain(line.split(' '))).args
    }

    fn cluster() -> Cluster {
        let member =
            |name: &str, ready| Member { name: name.into(), ready, state: "streaming".into(), ..Member::default() };
        Cluster {
            name: "o".into(),
            leader: Some("o-0".into()),
            members: vec![member("o-0", true), member("o-1", true), member("o-2", false)],
            ..Cluster::default()
        }
    }

    #[test]
    fn what_agents_would_refuse_is_refused_with_the_reason() {
        let now = Timestamp::UNIX_EPOCH;
        let leaderless = Cluster { leader: None, ..cluster() };
        let paused = Cluster { paused: true, ..cluster() };
        let pending = Cluster { switchover: Some(["o-0".into(), String::new(), String::new()]), ..cluster() };
        for (cluster, line, why) in [
            (&cluster(), "o --candidate o-0", "are the same"),
            (&cluster(), "o --candidate o-9", "The standbys are o-1, o-2"),
            (&cluster(), "o --candidate o-2", "is not ready"),
            (&cluster(), "o --leader o-1", "leader name does not match"),
            (&cluster(), "o --at tomorrow", "ISO 8601"),
            (&cluster(), "o --at 1960-01-01T00:00:00Z", "in the past"),
            (&leaderless, "o", "has no leader"),
            (&paused, "o", "--candidate"),
            (&pending, "o", "already asked for"),
        ] {
            let said = check(cluster, &args(line), now).unwrap_err().to_string();
            assert!(said.contains(why), "{line}: {said}");
        }
        assert_eq!(check(&cluster(), &args("o --candidate o-1"), now).unwrap(), "o-0");
    }

    #[test]
    fn a_failover_needs_no_leader_and_says_what_may_be_lost() {
        let leaderless = Cluster { leader: None, ..cluster() };
        assert!(check_failover(&leaderless, "o-1").unwrap().contains("lost (async)"));
        let sync = Cluster { synchronous_mode: "quorum".into(), sync_standbys: vec!["o-1".into()], ..cluster() };
        assert_eq!(check_failover(&sync, "o-1").unwrap(), "");
        assert!(check_failover(&sync, "o-2").unwrap().contains("no synchronous standby"));
        assert!(check_failover(&sync, "o-0").unwrap_err().to_string().contains("leader already"));
        assert_eq!(check_failover(&sync, "o-7").unwrap_err().code(), 3);
    }

    #[test]
    fn a_request_that_is_gone_under_the_old_leader_was_refused() {
        let map =
            |pairs: &[(&str, &str)]| -> Annotations { pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect() };
        let held = map(&[("leader", "o-0")]);
        assert_eq!(progress(&map(&[("leader", "o-0")]), &held, "o-0"), Progress::Pending);
        assert_eq!(
            progress(&map(&[(RESULT, "too far behind")]), &held, "o-0"),
            Progress::Refused(Some("too far behind".into()))
        );
        assert_eq!(progress(&map(&[]), &map(&[("leader", "o-1")]), "o-0"), Progress::Moved("o-1".into()));
        // Between the old leader's release and the new one's lock.
        assert_eq!(progress(&map(&[("member", "o-1")]), &map(&[]), "o-0"), Progress::Pending);
        assert_eq!(progress(&map(&[]), &map(&[]), "o-0"), Progress::Pending);
        // A failover without a leader that nobody could do.
        assert_eq!(progress(&map(&[]), &map(&[]), ""), Progress::Refused(None));
    }
}
