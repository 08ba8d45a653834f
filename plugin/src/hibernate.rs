//! `kubectl matriarch hibernate` and `wake`: no pods, the volumes stay. Both write `spec.hibernate`.

use serde_json::json;

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::error::Error;
use crate::output::say;
use crate::store::Store;
use crate::view::Cluster;

/// Of which cluster.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// Wait until it is so.
    #[arg(long)]
    wait: bool,
    /// For how many seconds that is waited for.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Sends it to sleep (`true`), or wakes it.
pub async fn run(session: &Session, args: &Args, sleeps: bool) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    let name = &args.cluster;
    if store.resource.spec.hibernate == sleeps {
        say(&format!("{name} is {} already", if sleeps { "hibernated" } else { "awake" }))?;
    } else {
        if sleeps {
            let question = format!(
                "Hibernate {name}? All of its pods are stopped: clients can neither write nor read until it is woken. The data stays."
            );
            confirm(session, args.yes, &question)?;
        }
        store.patch(json!({"spec": {"hibernate": sleeps}})).await?;
        say(&format!("{name} {}", if sleeps { "is being hibernated" } else { "is being woken" }))?;
    }
    if args.wait { wait(&store, args, sleeps).await } else { Ok(()) }
}

/// No pods; or a leader, and every member ready.
fn settled(cluster: &Cluster, sleeps: bool) -> bool {
    if sleeps {
        return cluster.members.is_empty();
    }
    let ready = cluster.members.iter().filter(|m| m.ready).count();
    cluster.leader.is_some() && i32::try_from(ready).is_ok_and(|ready| ready >= cluster.wanted)
}

async fn wait(store: &Store, args: &Args, sleeps: bool) -> Result<(), Error> {
    let wanted = if sleeps { "hibernated" } else { "awake" };
    let late = |cluster: &Cluster| (!settled(cluster, sleeps)).then(|| format!("{} is not {wanted}", args.cluster));
    store.until(args.timeout, late).await?;
    say(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Member;

    #[test]
    fn awake_is_a_leader_and_every_member_ready() {
        let member = |ready| Member { ready, ..Member::default() };
        let cluster = |leader: Option<&str>, members: Vec<Member>| Cluster {
            leader: leader.map(str::to_owned),
            members,
            wanted: 2,
            ..Cluster::default()
        };
        assert!(settled(&cluster(None, vec![]), true));
        assert!(!settled(&cluster(None, vec![member(false)]), true));
        assert!(!settled(&cluster(None, vec![member(true), member(true)]), false));
        assert!(!settled(&cluster(Some("a-0"), vec![member(true), member(false)]), false));
        assert!(settled(&cluster(Some("a-0"), vec![member(true), member(true)]), false));
    }
}
