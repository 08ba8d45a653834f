//! Debian's HAProxy with the configuration of its page in `docs`, on the members' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::member::{Member, database, request_at};
use super::sandbox::SERVICE;
use super::team::Team;
use super::wait::until;
use crate::host::child::Running;
use crate::host::run::find_program;
use crate::workload::Database;

/// What users read is what runs here.
const PAGE: &str = include_str!("../../../docs/haproxy.md");
/// The first three numbers of the members' addresses on the page, and here.
const NETWORK: (&str, &str) = ("10.0.0.", "10.77.0.");
const STATS: u16 = 7000;

/// A running HAProxy; dropping it ends it.
#[derive(Debug)]
pub struct Balancer(#[expect(dead_code, reason = "ends HAProxy by being dropped")] Running);

impl Balancer {
    /// In front of the three members of a team whose first address is 1.
    pub fn start(team: &Team<'_>) -> Result<Self> {
        let text = configuration()?;
        for member in &team.members {
            ensure!(text.contains(&format!(" {}:5432 ", member.address)), "{} is not on the page", member.address);
        }
        let path = team.folder().join("haproxy.cfg");
        std::fs::write(&path, text)?;
        let program = find_program("haproxy").context("there is no haproxy (`make deps`)")?;
        let running =
            Running::start(Command::new(program).arg("-db").arg("-f").arg(&path), &team.folder().join("haproxy.log"))?;
        Ok(Self(running))
    }

    /// Where writes go.
    pub fn primary() -> Database {
        Database { port: 5000, ..database(SERVICE) }
    }

    /// Where reads go.
    pub fn replicas() -> Database {
        Database { port: 5001, ..database(SERVICE) }
    }

    /// The addresses to which a pool's connections go now.
    async fn pool(name: &str) -> Result<BTreeSet<String>> {
        let stats = SocketAddr::from((SERVICE, STATS));
        let (code, text) = request_at(stats, "GET", "/;csv", "", Duration::from_secs(2)).await?;
        ensure!(code == 200, "the statistics were answered {code}");
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().context("no statistics")?;
        let column = |name: &str| {
            let found = header.iter().position(|one| one.trim_start_matches("# ") == name);
            found.with_context(|| format!("no column {name} in {header:?}"))
        };
        let (proxy, server, status) = (column("pxname")?, column("svname")?, column("status")?);
        let addresses = addresses(&configuration()?);
        let up = lines.filter(|line| line.get(proxy) == Some(&name));
        let up = up.filter(|line| line.get(status).is_some_and(|status| status.starts_with("UP")));
        Ok(up.filter_map(|line| addresses.get(*line.get(server)?).cloned()).collect())
    }

    /// Waits until a pool is exactly these members.
    pub async fn pool_is(name: &str, wanted: &[&Member], deadline: Duration) -> Result<()> {
        let wanted: BTreeSet<String> = wanted.iter().map(|member| member.address.to_string()).collect();
        until(&format!("the pool {name} is {wanted:?}"), deadline, async || {
            let found = Self::pool(name).await?;
            Ok(if found == wanted { Ok(()) } else { Err(format!("{found:?}")) })
        })
        .await
    }
}

/// The members' addresses by the names of their servers.
fn addresses(text: &str) -> BTreeMap<String, String> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let server = |words: Vec<&str>| match words[..] {
        ["server", name, place, ..] => Some((name.to_owned(), place.split(':').next()?.to_owned())),
        _ => None,
    };
    words.filter_map(server).collect()
}

/// The page's configuration with the addresses of the sandbox.
fn configuration() -> Result<String> {
    let begin = PAGE.split_once("```haproxy\n").context("the page has no configuration")?.1;
    let text = begin.split_once("```").context("the page's configuration has no end")?.0;
    Ok(text.replace(NETWORK.0, NETWORK.1))
}
