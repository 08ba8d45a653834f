//! `kubectl matriarch flush`: calls off what is scheduled.

use clap::Subcommand;

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::error::Error;
use crate::members::{self, Role};
use crate::restart;
use crate::store::Store;
use crate::switchover;

/// What is called off.
#[derive(Subcommand)]
pub enum What {
    /// A scheduled restart.
    Restart {
        /// The cluster.
        #[arg(add = completion::clusters())]
        cluster: String,
        /// The members; all when none is named.
        #[arg(add = completion::members())]
        members: Vec<String>,
        /// Only members of this role.
        #[arg(short, long, value_enum, default_value_t = Role::Any)]
        role: Role,
        /// Does not ask.
        #[arg(short, long, visible_alias = "force")]
        yes: bool,
    },
    /// A scheduled switchover.
    Switchover {
        /// The cluster.
        #[arg(add = completion::clusters())]
        cluster: String,
        /// Does not ask.
        #[arg(short, long, visible_alias = "force")]
        yes: bool,
    },
}

/// Does it.
pub async fn run(session: &Session, what: &What) -> Result<(), Error> {
    match what {
        What::Restart { cluster, members, role, yes } => {
            let store = Store::open(session, Some(cluster)).await?;
            let seen = store.stored().await?;
            let mut chosen = members::choose(&seen, members, *role)?;
            chosen.retain(|m| m.scheduled_restart.is_some());
            if chosen.is_empty() {
                return Err(Error::NotFound("no restart is scheduled".to_owned()));
            }
            let names: Vec<&str> = chosen.iter().map(|m| m.name.as_str()).collect();
            confirm(session, *yes, &format!("Call off the scheduled restart of {}?", names.join(", ")))?;
            restart::cancel(&store, &chosen, "/restart").await
        }
        What::Switchover { cluster, yes } => {
            let store = Store::open(session, Some(cluster)).await?;
            switchover::cancel(&store, *yes).await
        }
    }
}
