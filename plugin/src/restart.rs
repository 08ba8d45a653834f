//! `kubectl matriarch restart`, `reload`, `reinit`: orders that each member's agent carries out.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::ctl;
use crate::error::Error;
use crate::members::{self, Of, Role};
use crate::output::say;
use crate::store::Store;
use crate::view::Member;

/// After this a member that always looked well is taken for copied.
const UNSEEN: Duration = Duration::from_secs(10);
/// For an order that is only taken down.
const SHORT: Duration = Duration::from_secs(15);

/// Whose PostgreSQL, when, and under which conditions.
#[derive(clap::Args)]
pub struct RestartArgs {
    #[command(flatten)]
    of: Of,
    /// Only members that have to be restarted for a setting.
    #[arg(long)]
    pending: bool,
    /// Only members whose PostgreSQL is older, e.g. 17.5.
    #[arg(long, value_name = "VERSION")]
    pg_version: Option<String>,
    /// Later, with a time zone, e.g. 2026-12-01T03:00:00+01:00.
    #[arg(long, visible_alias = "scheduled", value_name = "TIME")]
    at: Option<String>,
    /// Call off what was scheduled.
    #[arg(long, conflicts_with_all = ["pending", "pg_version", "at"])]
    cancel: bool,
    /// For how many seconds each restart is waited for; a primary that takes longer may be failed over from.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Does not ask.
    #[arg(short, long, visible_alias = "force")]
    yes: bool,
}

/// Whose configuration.
#[derive(clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    of: Of,
}

/// Whose data directory.
#[derive(clap::Args)]
pub struct ReinitArgs {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// The standbys that are copied anew.
    #[arg(required = true, add = completion::members())]
    members: Vec<String>,
    /// Also when something else is under way there, which is ended.
    #[arg(long)]
    force: bool,
    /// Copy from the leader, whatever other source there is.
    #[arg(long)]
    from_leader: bool,
    /// Wait until they stream again.
    #[arg(long)]
    wait: bool,
    /// For how many seconds that is waited for.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
}

/// One after the other, the leader last; after one that failed no other is touched.
pub async fn restart(session: &Session, args: &RestartArgs) -> Result<(), Error> {
    let body = order(args, Timestamp::now()).map_err(Error::Refused)?;
    let store = Store::open(session, Some(&args.of.cluster)).await?;
    let cluster = store.stored().await?;
    let mut chosen = args.of.chosen(&cluster)?;
    if args.pending && args.at.is_none() {
        chosen.retain(|m| m.pending_restart);
        if chosen.is_empty() {
            return say("no member has to be restarted for a setting");
        }
    }
    if args.cancel {
        return cancel(&store, &chosen, "/restart").await;
    }
    let names: Vec<&str> = chosen.iter().map(|m| m.name.as_str()).collect();
    let when = args.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let leads = chosen.iter().any(|m| cluster.leader.as_ref() == Some(&m.name));
    let harm = if leads { ", the leader among them (clients are cut off for a moment)" } else { "" };
    confirm(session, args.yes, &format!("Restart PostgreSQL of {}{harm}{when}?", names.join(", ")))?;
    for member in chosen {
        let patience = if args.at.is_some() { SHORT } else { Duration::from_secs(args.timeout) };
        let begun = Instant::now();
        let answer = ctl::ask(&store, &member.name, "POST", "/restart", Some(&body), patience).await?;
        if !answer.fine() {
            return Err(Error::Refused(format!(
                "{}: {} (code {}); members after it were not touched",
                member.name,
                answer.text(),
                answer.code
            )));
        }
        let took = if args.at.is_none() { format!(", {:.1} s", begun.elapsed().as_secs_f32()) } else { String::new() };
        say(&format!("{}: {}{took}", member.name, answer.text()))?;
    }
    Ok(())
}

/// The body of `POST /restart`, or what is wrong with the arguments.
fn order(args: &RestartArgs, now: Timestamp) -> Result<Value, String> {
    let mut body = json!({});
    if let Some(at) = &args.at {
        future(at, now, "restart")?;
        body["schedule"] = json!(at);
    }
    if let Some(version) = &args.pg_version {
        let plain = version.split('.').all(|part| part.parse::<u32>().is_ok());
        if !plain {
            return Err(format!("--pg-version {version}: write it as PostgreSQL does, e.g. 17.5"));
        }
        body["postgres_version"] = json!(version);
    }
    if args.pending {
        body["restart_pending"] = json!(true);
    }
    if args.at.is_none() && !args.cancel {
        body["timeout"] = json!(args.timeout);
    }
    Ok(body)
}

/// Checks a moment for something later.
pub fn future(at: &str, now: Timestamp, what: &str) -> Result<(), String> {
    let when: Timestamp = at.parse().map_err(|_| {
        format!("unable to parse the time {at}: write it as ISO 8601 with a time zone, e.g. 2026-12-01T03:00:00+01:00")
    })?;
    if when <= now { Err(format!("cannot schedule a {what} in the past: {at}")) } else { Ok(()) }
}

/// Calls off a scheduled restart; a member that has none is told.
pub async fn cancel(store: &Store, chosen: &[&Member], path: &str) -> Result<(), Error> {
    let mut done = false;
    for member in chosen {
        let answer = ctl::ask(store, &member.name, "DELETE", path, None, SHORT).await?;
        done |= answer.fine();
        say(&format!("{}: {}", member.name, answer.text()))?;
    }
    if done { Ok(()) } else { Err(Error::NotFound("nothing was scheduled".to_owned())) }
}

/// Files and certificates are read again, PostgreSQL's settings with them; nobody is cut off.
pub async fn reload(session: &Session, args: &ReloadArgs) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.of.cluster)).await?;
    let cluster = store.stored().await?;
    let mut failed = Vec::new();
    for member in args.of.chosen(&cluster)? {
        match ctl::ask(&store, &member.name, "POST", "/reload", Some(&json!({})), SHORT).await {
            Ok(answer) if answer.fine() => say(&format!("{}: {}", member.name, answer.text()))?,
            Ok(answer) => failed.push(format!("{}: {} (code {})", member.name, answer.text(), answer.code)),
            Err(error @ Error::Call { .. }) => return Err(error),
            Err(error) => failed.push(error.to_string()),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Refused(failed.join("; "))) }
}

/// A standby throws its data directory away and copies the leader's.
pub async fn reinit(session: &Session, args: &ReinitArgs) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    let cluster = store.stored().await?;
    let leader = members::leader(&cluster)?.name.clone();
    let chosen = members::choose(&cluster, &args.members, Role::Any)?;
    if chosen.iter().any(|m| m.name == leader) {
        return Err(Error::Refused(format!(
            "{leader} is the leader and cannot be reinitialized: switch over first, `kubectl matriarch switchover {}`",
            args.cluster
        )));
    }
    let others = cluster.members.iter().filter(|m| m.ready && !chosen.iter().any(|c| c.name == m.name)).count();
    let alone = if others < 2 { " Until they are copied, the leader has the only copy of the data." } else { "" };
    confirm(
        session,
        args.yes,
        &format!("Throw away the data directories of {} and copy them from {leader}?{alone}", args.members.join(", ")),
    )?;
    let body = json!({"force": args.force, "from_leader": args.from_leader});
    for member in &chosen {
        let answer = ctl::ask(&store, &member.name, "POST", "/reinitialize", Some(&body), SHORT).await?;
        if !answer.fine() {
            let advice = if answer.text().contains("in progress") { "; --force ends it" } else { "" };
            return Err(Error::Refused(format!("{}: {} (code {}){advice}", member.name, answer.text(), answer.code)));
        }
        say(&format!("{}: {}", member.name, answer.text()))?;
    }
    if !args.wait {
        return Ok(());
    }
    let (begun, mut old) = (Instant::now(), chosen.iter().map(|m| m.name.clone()).collect::<Vec<_>>());
    let names = old.clone();
    loop {
        let cluster = store.stored().await?;
        let missing: Vec<&Member> = cluster
            .members
            .iter()
            .filter(|m| names.contains(&m.name) && !(m.ready && m.state == "streaming"))
            .collect();
        // What is stored of a member may be of the time before, until it has been seen away; a small copy is made unseen.
        old.retain(|name| !missing.iter().any(|m| m.name == *name) && begun.elapsed() < UNSEEN);
        if missing.is_empty() && old.is_empty() {
            return say(&format!("{}: streaming", names.join(", ")));
        }
        if begun.elapsed() > Duration::from_secs(args.timeout) {
            let said: Vec<String> =
                missing.iter().map(|m| format!("{} is {}: {}", m.name, m.state, m.reason)).collect();
            return Err(Error::Unknown(format!("not copied within {} s: {}", args.timeout, said.join("; "))));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> RestartArgs {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: RestartArgs,
        }
        <Line as clap::Parser>::parse_from(std::iter::once("x").chain(line.split(' '))).args
    }

    #[test]
    fn conditions_become_patronis_body() {
        let now = Timestamp::UNIX_EPOCH;
        let body = order(&args("o --pending --pg-version 17.5 --timeout 9"), now).unwrap();
        assert_eq!(body, json!({"restart_pending": true, "postgres_version": "17.5", "timeout": 9}));
        let later = order(&args("o --at 2030-01-01T00:00:00Z"), now).unwrap();
        assert_eq!(later, json!({"schedule": "2030-01-01T00:00:00Z"}));
    }

    #[test]
    fn what_no_agent_would_take_is_refused_before_anything_is_asked() {
        let now = Timestamp::UNIX_EPOCH;
        for (line, why) in [
            ("o --at tomorrow", "ISO 8601"),
            ("o --at 2030-01-01T00:00:00", "ISO 8601"),
            ("o --at 1960-01-01T00:00:00Z", "in the past"),
            ("o --pg-version seventeen", "as PostgreSQL does"),
        ] {
            assert!(order(&args(line), now).unwrap_err().contains(why), "{line}");
        }
    }
}
