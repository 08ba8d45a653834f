//! `kubectl matriarch status`: one screen that tells who leads, since when, how well, and what is waited for and why.

use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::Session;
use crate::completion;
use crate::error::Error;
use crate::findings::{self, Finding, Level};
use crate::output::{Data, say};
use crate::store::Store;
use crate::style::{Style, Tone};
use crate::view::{Cluster, Member};
use crate::when;

/// Of which cluster.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// For programs.
    #[arg(short, long, value_enum)]
    output: Option<Data>,
    /// End with 10 if something is not as it should be, with 11 if nobody leads.
    #[arg(long)]
    exit_code: bool,
}

/// Of which cluster, again and again.
#[derive(clap::Args)]
pub struct WatchArgs {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// End after so many screens.
    #[arg(long)]
    count: Option<u64>,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.2..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("0.2 to 3600 seconds".to_owned()) }
}

/// Shows it.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let cluster = Store::open(session, args.cluster.as_deref()).await?.view().await?;
    let now = Timestamp::now();
    let found = findings::of(&cluster, now);
    match args.output {
        None => say(&screen(&cluster, &found, now, Style::of_stdout()))?,
        Some(data) => say(&data.print(&document(&cluster, &found))?)?,
    }
    match found.first().map(|f| f.level) {
        Some(Level::Bad) if args.exit_code => Err(Error::Code(11)),
        Some(Level::Warn) if args.exit_code => Err(Error::Code(10)),
        _ => Ok(()),
    }
}

/// Shows it again and again: on a terminal in place, in a pipe when something but the time has changed.
pub async fn watch(session: &Session, args: &WatchArgs) -> Result<(), Error> {
    let store = Store::open(session, args.cluster.as_deref()).await?;
    let style = Style::of_stdout();
    let in_place = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let (mut shown, mut last) = (0_u64, None);
    let mut lost = false;
    while args.count.is_none_or(|count| shown < count) {
        let now = Timestamp::now();
        match store.view().await {
            Ok(cluster) => {
                let found = findings::of(&cluster, now);
                let calm = still(&cluster);
                if in_place || lost || last.as_ref() != Some(&calm) {
                    let clear = if in_place { "\u{1b}[H\u{1b}[2J" } else { "" };
                    let at = now.strftime("%Y-%m-%d %H:%M:%S UTC");
                    say(&format!(
                        "{clear}{}\n{}",
                        style.paint(Tone::Dim, &at.to_string()),
                        screen(&cluster, &found, now, style)
                    ))?;
                    std::io::stdout().flush().map_err(Error::output)?;
                    shown += 1;
                }
                (last, lost) = (Some(calm), false);
            }
            // An API server that is away is what one watches for.
            Err(error) if error.code() == 7 => {
                if !lost {
                    say(&style.paint(Tone::Bad, &format!("{error}")))?;
                }
                lost = true;
            }
            Err(error) => return Err(error),
        }
        if args.count.is_some_and(|count| shown >= count) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(args.interval)) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    Ok(())
}

/// Without what changes by itself.
fn still(cluster: &Cluster) -> Cluster {
    let mut cluster = Cluster { renewed: None, positions: String::new(), ..cluster.clone() };
    for member in &mut cluster.members {
        (member.lsn, member.lag, member.replay_lag) = (None, None, None);
    }
    cluster
}

/// For programs.
pub fn document(cluster: &Cluster, found: &[Finding]) -> Value {
    let mut document = json!(cluster);
    document["state"] = json!(state(found).1);
    document["findings"] = json!(found);
    document
}

fn state(found: &[Finding]) -> (Tone, &'static str) {
    match found.first().map(|f| f.level) {
        Some(Level::Bad) => (Tone::Bad, "NO LEADER"),
        Some(Level::Warn) => (Tone::Warn, "DEGRADED"),
        _ => (Tone::Good, "OK"),
    }
}

/// For people.
pub fn screen(cluster: &Cluster, found: &[Finding], now: Timestamp, style: Style) -> String {
    let (tone, word) = state(found);
    let ready = cluster.members.iter().filter(|m| m.ready).count();
    let paused = if cluster.paused { style.paint(Tone::Warn, "  PAUSED") } else { String::new() };
    let mut lines = vec![format!(
        "{}  {}  {ready}/{} ready{paused}",
        style.paint(Tone::Bold, &cluster.title()),
        style.paint(tone, word),
        cluster.wanted
    )];
    let mut fact =
        |name: &str, text: String| lines.push(format!("  {}  {text}", style.paint(Tone::Dim, &format!("{name:<10}"))));
    fact("Leader", leader(cluster, now));
    fact("Timeline", timelines(cluster));
    fact("Durability", durability(cluster));
    fact("Failover", last_failover(cluster, now));
    let mut versions: Vec<&str> =
        cluster.members.iter().map(|m| m.version.as_str()).filter(|v| !v.is_empty()).collect();
    versions.sort_unstable();
    versions.dedup();
    fact("PostgreSQL", if versions.is_empty() { "not known yet".to_owned() } else { versions.join(", ") });
    fact("System", format!("{}, state in {}", cluster.identifier, cluster.store_mode));
    lines.push(String::new());
    lines.extend(table(cluster, style));
    if cluster.positions != "now" {
        lines.push(style.paint(Tone::Dim, &format!("  Lag and positions {}", cluster.positions)));
    }
    lines.push(String::new());
    if found.is_empty() {
        lines.push(style.paint(Tone::Good, "Nothing is waited for."));
    }
    for one in found {
        let (tone, mark) = match one.level {
            Level::Bad => (Tone::Bad, "!!"),
            Level::Warn => (Tone::Warn, " !"),
            Level::Note => (Tone::Dim, " -"),
        };
        lines.push(format!("{} {}", style.paint(tone, mark), one.text));
    }
    lines.join("\n")
}

fn leader(cluster: &Cluster, now: Timestamp) -> String {
    let Some(leader) = &cluster.leader else { return "nobody".to_owned() };
    let since = cluster.leader_since.as_deref().unwrap_or_default();
    let long = when::ago(since, now).map(|t| format!(" ({t})")).unwrap_or_default();
    let renewed = cluster.renewed.as_deref().and_then(|at| when::ago(at, now));
    let renewed = renewed.map(|t| format!(", lock renewed {t} ago")).unwrap_or_default();
    let ttl = cluster.ttl.map(|t| format!(", ttl {t} s")).unwrap_or_default();
    format!("{leader} since {}{long}{renewed}{ttl}", when::shown(since))
}

fn timelines(cluster: &Cluster) -> String {
    let mut all: Vec<i64> = cluster.members.iter().filter_map(|m| m.timeline).collect();
    all.sort_unstable();
    all.dedup();
    match all.as_slice() {
        [] => "not known yet".to_owned(),
        [one] => format!("{one} everywhere"),
        _ => all.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn durability(cluster: &Cluster) -> String {
    let who = cluster.sync_standbys.join(", ");
    match cluster.synchronous_mode.as_str() {
        "" => "async: a failover may lose what no standby has received".to_owned(),
        _ if who.is_empty() => "synchronous, and no standby takes part now".to_owned(),
        "quorum" => format!("quorum: commits are confirmed by a quorum of {who}"),
        _ => format!("synchronous: commits are confirmed by {who}"),
    }
}

fn last_failover(cluster: &Cluster, now: Timestamp) -> String {
    let Some(last) = cluster.history.last() else { return "none yet".to_owned() };
    let who = last.leader.as_deref().map(|l| format!("to {l}")).unwrap_or_default();
    let at = last.at.as_deref().map(|at| {
        let long = when::ago(at, now).map(|t| format!(" ({t} ago)")).unwrap_or_default();
        format!(" at {}{long}", when::shown(at))
    });
    format!("last {who}{}, timeline {} ended at {}", at.unwrap_or_default(), last.timeline, last.lsn)
}

fn table(cluster: &Cluster, style: Style) -> Vec<String> {
    const HEAD: [&str; 7] = ["MEMBER", "ROLE", "STATE", "TL", "LAG", "RESTART", "NODE"];
    let rows: Vec<(Option<Tone>, [String; 7])> = cluster.members.iter().map(|m| row(cluster, m)).collect();
    let mut widths = HEAD.map(str::len);
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; 7]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("  {}", padded.join("  ")).trim_end().to_owned()
    };
    let head = style.paint(Tone::Bold, &line(&HEAD.map(str::to_owned)));
    let body =
        rows.iter().map(|(tone, cells)| tone.map_or_else(|| line(cells), |tone| style.paint(tone, &line(cells))));
    std::iter::once(head).chain(body).collect()
}

fn row(cluster: &Cluster, m: &Member) -> (Option<Tone>, [String; 7]) {
    let leads = cluster.leader.as_ref() == Some(&m.name);
    let lag = match m.lag {
        _ if leads => "-".to_owned(),
        Some(lag) => when::bytes(lag),
        None => "unknown".to_owned(),
    };
    let restart = match (&m.scheduled_restart, m.pending_restart) {
        (Some(at), _) => at["schedule"].as_str().unwrap_or("scheduled").to_owned(),
        (None, true) => "pending".to_owned(),
        (None, false) => "-".to_owned(),
    };
    let timeline = m.timeline.map_or_else(|| "-".to_owned(), |t| t.to_string());
    let state = if m.deleting { format!("{}, being deleted", m.state) } else { m.state.clone() };
    let tone = match () {
        () if !m.ready => Some(Tone::Warn),
        () if leads => Some(Tone::Good),
        () => None,
    };
    (tone, [m.name.clone(), m.role.clone(), state, timeline, lag, restart, m.node.clone()])
}
