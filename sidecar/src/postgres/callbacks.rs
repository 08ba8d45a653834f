//! The user's callbacks: run beside everything else, in PostgreSQL's container; a newer one ends an older one that still runs.
//! Reloads have a lane of their own, so that they do not end what a change of the role has begun.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use matriarch_ha::effect::Callback;
use matriarch_supervisor::protocol::UserCommand;
use tokio::task::JoinHandle;

use super::Postgres;

/// What runs: all but reloads, and reloads.
#[derive(Default)]
pub struct Callbacks {
    lanes: Mutex<[Option<JoinHandle<()>>; 2]>,
}

impl Postgres {
    /// Runs `postgresql.callbacks.<action>`, if there is one, with Patroni's arguments: action, role, scope. Waits for nothing.
    pub fn callback(&self, action: Callback, role: &str) {
        let Some(mut argv) = self.settings().callbacks.get(action.name()).cloned() else { return };
        argv.extend([action.name().to_owned(), role.to_owned(), self.config().scope.clone()]);
        let (supervisor, name) = (self.supervisor.clone(), action.name());
        let run = tokio::spawn(async move {
            match supervisor.callback(UserCommand { argv, env: BTreeMap::new(), data_dir: None }).await {
                Ok(finished) if finished.success() => tracing::debug!("callback {name} is done"),
                Ok(finished) => tracing::warn!("callback {name}: {}", finished.reason()),
                Err(error) => tracing::warn!("callback {name}: {error}"),
            }
        });
        let lane = usize::from(action == Callback::Reload);
        let mut lanes = self.callbacks.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = lanes[lane].replace(run) {
            // Tells the supervisor to end it.
            former.abort();
        }
    }
}
