//! `kubectl matriarch switchover`: asks by the `-failover` object, as patronictl does, and watches the leader lock.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use serde_json::json;
use tokio::time::sleep;

use crate::error::Error;
use crate::list::{Output, print};
use crate::view::{Cluster, Store};

/// How often the lock is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// From where, to where and when.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster.
    cluster: String,
    /// The member that becomes primary. When absent, the agents choose the best one.
    #[arg(long)]
    candidate: Option<String>,
    /// Only if this member is the primary now.
    #[arg(long, visible_alias = "primary")]
    leader: Option<String>,
    /// When, with a time zone, e.g. 2026-12-01T03:00:00+01:00. Now when absent.
    #[arg(long)]
    scheduled: Option<String>,
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
    /// The request is gone and the old leader has the lock.
    Refused,
}

/// Does it.
pub async fn run(client: &Client, namespace: &str, args: &Args) -> Result<(), Error> {
    let store = Store::open(client, namespace, &args.cluster).await?;
    let cluster = store.view().await?;
    let now = Timestamp::now();
    let leader = check(&cluster, args, now).map_err(Error::Refused)?;
    if !args.yes {
        println!("{}", print(std::slice::from_ref(&cluster), Output::Pretty)?);
        confirm(&args.cluster, &leader, args.candidate.as_deref())?;
    }
    let failover = store.names.failover();
    let exists = store.annotations(&failover).await?.is_some();
    let mut wanted = json!({"leader": leader});
    if let Some(candidate) = &args.candidate {
        wanted["member"] = json!(candidate);
    }
    if let Some(at) = &args.scheduled {
        wanted["scheduled_at"] = json!(at);
    }
    store.annotate(&failover, exists, &wanted).await?;
    if let Some(at) = &args.scheduled {
        println!("Switchover scheduled at {at}");
        return Ok(());
    }
    wait(&store, args, &leader).await
}

/// Refuses what agents would refuse, with the reason; gives the leader.
fn check(cluster: &Cluster, args: &Args, now: Timestamp) -> Result<String, String> {
    let Some(leader) = &cluster.leader else {
        return Err(format!(
            "{} has no leader now, so there is nothing to switch over from{}",
            cluster.name,
            cluster.reasons()
        ));
    };
    if let Some(expected) = args.leader.as_ref().filter(|l| *l != leader) {
        return Err(format!("leader name does not match: {expected} was given, the leader is {leader}"));
    }
    if let Some([from, to, at]) = &cluster.switchover {
        let to = if to.is_empty() { "the best standby" } else { to };
        let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
        return Err(format!(
            "a switchover from {from} to {to}{at} is already asked for: wait for it, or remove the annotations leader, member and scheduled_at of {}-failover",
            cluster.name
        ));
    }
    if let Some(at) = &args.scheduled {
        let when: Timestamp = at.parse().map_err(|_| {
            format!("unable to parse --scheduled {at}: write it as ISO 8601 with a time zone, e.g. 2026-12-01T03:00:00+01:00")
        })?;
        if when <= now {
            return Err(format!("cannot schedule a switchover in the past: {at}"));
        }
        if cluster.paused {
            return Err("cannot schedule a switchover in maintenance mode: set spec.paused: false first".to_owned());
        }
    }
    let Some(candidate) = &args.candidate else {
        if cluster.paused {
            return Err(
                "switchover is possible only to a specific candidate in maintenance mode: give --candidate".to_owned()
            );
        }
        return if cluster.members.iter().any(|m| m.name != *leader && m.ready) {
            Ok(leader.clone())
        } else {
            Err(format!("switchover is not possible: no good candidates have been found{}", cluster.reasons()))
        };
    };
    if candidate == leader {
        return Err(format!("switchover target and source are the same: {leader} is the leader already"));
    }
    let Some(member) = cluster.members.iter().find(|m| m.name == *candidate) else {
        let names: Vec<&str> = cluster.members.iter().map(|m| m.name.as_str()).filter(|n| n != leader).collect();
        return Err(format!("candidate {candidate} does not exist: the standbys are {}", names.join(", ")));
    };
    if args.scheduled.is_none() && !member.ready {
        return Err(format!("candidate {candidate} is not ready: it is {}{}", member.state, cluster.reasons()));
    }
    let sync = cluster.sync_standbys.iter().any(|s| s.eq_ignore_ascii_case(candidate));
    if cluster.synchronous_mode == "true" && args.scheduled.is_none() && !sync {
        return Err(format!(
            "candidate {candidate} is not a synchronous standby: choose one of {}",
            cluster.sync_standbys.join(", ")
        ));
    }
    Ok(leader.clone())
}

fn confirm(cluster: &str, leader: &str, candidate: Option<&str>) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Refused("nobody is there to ask: give --yes".to_owned()));
    }
    let to = candidate.map(|c| format!(" and promoting {c}")).unwrap_or_default();
    print!("Are you sure you want to switch over cluster {cluster}, demoting the primary {leader}{to}? [y/N]: ");
    let mut answer = String::new();
    let read = std::io::stdout().flush().and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.map_err(|e| Error::Output(e.to_string()))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Error::Refused("aborted".to_owned())) }
}

async fn wait(store: &Store, args: &Args, leader: &str) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        match look(store, leader).await? {
            Progress::Pending if started.elapsed() < Duration::from_secs(args.timeout) => sleep(LOOK).await,
            Progress::Pending => {
                let cluster = store.view().await?;
                return Err(Error::Refused(format!(
                    "switchover status unknown after {} seconds; it may still be in progress{}",
                    args.timeout,
                    cluster.reasons()
                )));
            }
            Progress::Refused => {
                let cluster = store.view().await?;
                return Err(Error::Refused(format!(
                    "switchover failed: the agents withdrew it and {leader} is still the leader{}",
                    cluster.reasons()
                )));
            }
            Progress::Moved(now) => {
                let (seconds, cluster) = (started.elapsed().as_secs_f32(), store.view().await?);
                println!("{}", print(&[cluster], Output::Pretty)?);
                return match &args.candidate {
                    Some(candidate) if *candidate != now => {
                        Err(Error::Refused(format!("switched over to {now} instead of {candidate}")))
                    }
                    _ => {
                        println!("Successfully switched over to \"{now}\" after {seconds:.1} s");
                        Ok(())
                    }
                };
            }
        }
    }
}

/// The request is read before the lock: whoever takes the lock withdraws the request afterwards, so a request that is
/// gone under the old leader was refused.
async fn look(store: &Store, leader: &str) -> Result<Progress, Error> {
    let request = store.annotations(&store.names.failover()).await?.unwrap_or_default();
    let lock = store.annotations(&store.names.leader()).await?.unwrap_or_default();
    let asked = ["leader", "member"].iter().any(|k| request.get(*k).is_some_and(|v| !v.is_empty()));
    Ok(match lock.get("leader").filter(|l| !l.is_empty()) {
        Some(holder) if holder != leader => Progress::Moved(holder.clone()),
        Some(_) if !asked => Progress::Refused,
        _ => Progress::Pending,
    })
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
            (&cluster(), "o --candidate o-9", "the standbys are o-1, o-2"),
            (&cluster(), "o --candidate o-2", "is not ready"),
            (&cluster(), "o --leader o-1", "leader name does not match"),
            (&cluster(), "o --scheduled tomorrow", "ISO 8601"),
            (&cluster(), "o --scheduled 1960-01-01T00:00:00Z", "in the past"),
            (&leaderless, "o", "has no leader"),
            (&paused, "o", "--candidate"),
            (&pending, "o", "already asked for"),
        ] {
            let said = check(cluster, &args(line), now).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
        assert_eq!(check(&cluster(), &args("o --candidate o-1"), now), Ok("o-0".to_owned()));
    }
}
