//! `kubectl matriarch pause` and `resume`: Patroni's maintenance mode.
//!
//! Both are written where agents read them, in the dynamic configuration, so that they work while the operator is away. A spec that
//! names `paused` is patched as well, for it would win otherwise.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::edit;
use crate::error::Error;
use crate::output::say;
use crate::store::{Store, late_members};

/// How often a write that somebody else was faster than is tried again.
const TRIES: usize = 5;

/// Of which cluster.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// Wait until every member knows.
    #[arg(long)]
    wait: bool,
    /// For how many seconds that is waited for.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Sets it (`true`) or ends it.
pub async fn run(session: &Session, args: &Args, pause: bool) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    let (word, done) = if pause { ("pause", "paused") } else { ("resume", "resumed") };
    let read = edit::read(&store, false).await?;
    let named = store.resource.spec.paused;
    let is = read.config["pause"].as_bool() == Some(true);
    if is == pause && named.is_none_or(|spec| spec == pause) {
        say(&format!("{} is {} already", args.cluster, if pause { "paused" } else { "not paused" }))?;
    } else {
        if pause {
            let question = format!("Pause {}? While it is paused nobody fails over, whatever happens.", args.cluster);
            confirm(session, args.yes, &question)?;
        }
        if named.is_some() {
            store.patch(json!({"spec": {"paused": pause}})).await?;
        }
        write(&store, pause).await?;
        say(&format!("{} is {done}", args.cluster))?;
    }
    if args.wait { wait(&store, args, pause, word).await } else { Ok(()) }
}

/// The operator may write what the spec says now at the same moment: what counts is what is there in the end.
async fn write(store: &Store, pause: bool) -> Result<(), Error> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        let read = edit::read(store, false).await?;
        if (read.config["pause"].as_bool() == Some(true)) == pause {
            return Ok(());
        }
        let mut config = read.config.clone();
        if pause {
            config["pause"] = Value::Bool(true);
        } else if let Some(map) = config.as_object_mut() {
            map.remove("pause");
        }
        last = edit::write(store, &read, &config).await;
        match &last {
            Err(Error::Refused(_)) => sleep(Duration::from_millis(200)).await,
            _ => break,
        }
    }
    last
}

async fn wait(store: &Store, args: &Args, pause: bool, word: &str) -> Result<(), Error> {
    let ignorant = format!("did not take note of the {word}");
    store.until(args.timeout, |cluster| late_members(cluster, |m| m.paused != pause, &ignorant)).await?;
    say("every member knows")
}
