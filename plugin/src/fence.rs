//! `kubectl matriarch fence` and `unfence`: PostgreSQL of a member is stopped and stays stopped, its pod stays.
//!
//! Both write `spec.fenced`, by compare-and-swap. The operator hands it to the agents.

use kube::ResourceExt;
use serde_json::json;

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::error::{Error, instead};
use crate::output::say;
use crate::store::{Store, late_members};
use crate::view::{Cluster, Member};

/// Of which members.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// The members.
    #[arg(required = true, add = completion::members())]
    members: Vec<String>,
    /// Wait until it is so.
    #[arg(long)]
    wait: bool,
    /// For how many seconds that is waited for.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Fences them (`true`), or lifts the fence.
pub async fn run(session: &Session, args: &Args, fence: bool) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    let cluster = store.stored().await?;
    let before = &store.resource.spec.fenced;
    let chosen = choose(&cluster, before, &args.members, fence)?;
    let after = changed(before, &chosen, fence);
    if after == *before {
        let is = if fence { "fenced already" } else { "not fenced" };
        say(&format!("{} {is}", those(&chosen)))?;
    } else {
        if fence {
            confirm(session, args.yes, &question(&cluster, &after, &chosen))?;
        }
        write(&store, &after).await?;
        let done = if fence { "is being fenced" } else { "is no longer fenced" };
        for name in &chosen {
            say(&format!("{name} {done}"))?;
        }
    }
    if args.wait { wait(&store, args, &chosen, fence).await } else { Ok(()) }
}

fn those(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// Names that are members, or that are in the list (a member that was scaled away can still be taken out of it).
fn choose(cluster: &Cluster, fenced: &[String], wanted: &[String], fence: bool) -> Result<Vec<String>, Error> {
    let members: Vec<&str> = cluster.members.iter().map(|m| m.name.as_str()).collect();
    let mut chosen = Vec::new();
    for name in wanted {
        if !members.contains(&name.as_str()) && (fence || !fenced.contains(name)) {
            let advice = instead(name, &members);
            return Err(Error::NotFound(format!("{name} is no member of {}: {advice}", cluster.name)));
        }
        if !chosen.contains(name) {
            chosen.push(name.clone());
        }
    }
    Ok(chosen)
}

fn changed(before: &[String], chosen: &[String], fence: bool) -> Vec<String> {
    let mut after: Vec<String> = before.iter().filter(|name| fence || !chosen.contains(name)).cloned().collect();
    if fence {
        after.extend(chosen.iter().filter(|name| !before.contains(name)).cloned());
    }
    after
}

fn question(cluster: &Cluster, after: &[String], chosen: &[String]) -> String {
    let left = |m: &&Member| !after.contains(&m.name) && m.ready;
    let names = chosen.join(", ");
    let consequence = match &cluster.leader {
        _ if cluster.members.iter().find(left).is_none() => {
            " No member that is ready is left: clients can neither write nor read.".to_owned()
        }
        Some(leader) if chosen.contains(leader) => {
            format!(" {leader} is the primary: another member takes over first, if one can.")
        }
        _ => String::new(),
    };
    format!("Fence {names}? PostgreSQL is stopped there until the fence is lifted.{consequence}")
}

async fn write(store: &Store, after: &[String]) -> Result<(), Error> {
    let version = store.resource.resource_version();
    store.patch(json!({"metadata": {"resourceVersion": version}, "spec": {"fenced": after}})).await
}

async fn wait(store: &Store, args: &Args, chosen: &[String], fence: bool) -> Result<(), Error> {
    let wanted = if fence { "stopped" } else { "ready" };
    let late = |cluster: &Cluster| {
        let late = |m: &&Member| chosen.contains(&m.name) && if fence { m.state != "stopped" } else { !m.ready };
        late_members(cluster, late, &format!("not {wanted}"))
    };
    store.until(args.timeout, late).await?;
    say(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let member = |name: &str, ready| Member { name: name.to_owned(), ready, ..Member::default() };
        Cluster {
            name: "orders".to_owned(),
            leader: Some("orders-0".to_owned()),
            members: vec![member("orders-0", true), member("orders-1", true), member("orders-2", false)],
            ..Cluster::default()
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_list_keeps_what_others_wrote() {
        let before = names(&["orders-2"]);
        assert_eq!(changed(&before, &names(&["orders-1", "orders-2"]), true), names(&["orders-2", "orders-1"]));
        assert_eq!(changed(&before, &names(&["orders-2"]), false), names(&[]));
        assert_eq!(changed(&before, &names(&["orders-1"]), false), before);
    }

    #[test]
    fn only_members_are_fenced_and_whoever_is_in_the_list_leaves_it() {
        let cluster = cluster();
        let error = choose(&cluster, &[], &names(&["orders-7"]), true).unwrap_err().to_string();
        assert!(error.contains("orders-7 is no member of orders"), "{error}");
        assert!(choose(&cluster, &[], &names(&["orders-7"]), false).is_err());
        assert_eq!(
            choose(&cluster, &names(&["orders-7"]), &names(&["orders-7"]), false).unwrap(),
            names(&["orders-7"])
        );
    }

    #[test]
    fn the_question_says_what_it_costs() {
        let cluster = cluster();
        let asked = |chosen: &[&str], fenced: &[&str]| question(&cluster, &names(fenced), &names(chosen));
        assert!(!asked(&["orders-1"], &["orders-1"]).contains("primary"));
        assert!(asked(&["orders-0"], &["orders-0"]).contains("another member takes over first"));
        assert!(asked(&["orders-1"], &["orders-0", "orders-1"]).contains("No member that is ready is left"));
    }
}
