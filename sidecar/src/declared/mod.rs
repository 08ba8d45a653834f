//! Declared roles, databases, schemas and extensions: what `declared.json` says is brought into PostgreSQL by the leader.
//!
//! Observe ([`catalog`]), plan ([`plan`], pure), apply ([`apply`]). Nothing of it touches the HA loop: an object that fails is told of,
//! and tried again later.

mod apply;
mod catalog;
mod desired;
mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use matriarch_ha::event::{Declared, Event};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

pub use desired::Desired;

use crate::driver::handle::Handle;
use crate::mounted::{Stamp, stamp};
use crate::reload::Reloader;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the catalog when all was well: somebody may have changed it by hand.
const DRIFT: Duration = Duration::from_mins(10);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// Longest reason that is shown of one object, characters, and the most objects that are shown: a Pod's annotations are small.
const REASON: usize = 300;
const SHOWN: usize = 50;

/// Keeps PostgreSQL as the file says while this member leads, for ever.
pub async fn keep(handle: Handle, reloader: Reloader, events: UnboundedSender<Event>) {
    let mut state = State::default();
    loop {
        sleep(LOOK).await;
        let Some(path) = reloader.config().matriarch.declared.clone() else { continue };
        let view = handle.view();
        // In pause a person works at the servers.
        let leads = view.leader && view.role == "primary" && view.state == "running" && !view.paused;
        if !state.due(Instant::now(), leads, stamp(&path)) {
            continue;
        }
        let report = if leads && path.exists() { Some(bring(&path, &reloader).await) } else { None };
        let failed = report.as_ref().is_some_and(|report| !report.failed.is_empty());
        state.next = Some(Instant::now() + if failed { AGAIN } else { DRIFT });
        if state.told != report {
            for (object, why) in report.iter().flat_map(|report| &report.failed) {
                if state.told.as_ref().and_then(|told| told.failed.get(object)) != Some(why) {
                    tracing::warn!("{object} is not as declared: {why}");
                }
            }
            state.told.clone_from(&report);
            // Fails only when the agent ends.
            let _ = events.send(Event::Declared(report));
        }
    }
}

/// When the file is applied.
#[derive(Default)]
struct State {
    leads: bool,
    seen: Stamp,
    next: Option<Instant>,
    told: Option<Declared>,
}

impl State {
    fn due(&mut self, now: Instant, leads: bool, seen: Stamp) -> bool {
        let changed = leads != self.leads || leads && seen != self.seen;
        (self.leads, self.seen) = (leads, seen);
        changed || leads && seen.is_some() && self.next.is_none_or(|next| now >= next)
    }
}

async fn bring(path: &Path, reloader: &Reloader) -> Declared {
    let read = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string());
    let desired = match read.and_then(|text| Desired::parse(&text)) {
        Ok(desired) => desired,
        Err(why) => {
            let why = shown(&format!("{} cannot be read: {why}", path.display()));
            return Declared { generation: String::new(), failed: BTreeMap::from([("declared.json".to_owned(), why)]) };
        }
    };
    let generation = desired.generation.clone();
    let applied = reloader.postgres().apply_declared(&desired).await;
    if applied.statements > 0 {
        tracing::info!(
            generation,
            statements = applied.statements,
            "roles and databases were brought to what is declared"
        );
    }
    let failed = applied.failed.into_iter().take(SHOWN).map(|(object, why)| (object, shown(&why))).collect();
    Declared { generation, failed }
}

fn shown(why: &str) -> String {
    why.chars().take(REASON).collect()
}

/// Where the file is in the operator's pods.
pub fn default_path() -> PathBuf {
    "/etc/matriarch/declared/declared.json".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_applies_at_its_beginning_at_changes_and_now_and_then() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let file = |version: u64| Some((version, 0, 0, 1));
        let mut state = State::default();
        assert!(!state.due(at(0), false, file(1)), "a standby");
        assert!(state.due(at(1), true, file(1)), "a new leader");
        state.next = Some(at(601));
        assert!(!state.due(at(2), true, file(1)));
        assert!(state.due(at(3), true, file(2)), "a change");
        assert!(!state.due(at(4), true, file(2)) && state.due(at(601), true, file(2)), "drift");
        assert!(state.due(at(602), false, file(2)), "what it said is taken back");
        assert!(!state.due(at(603), false, file(3)));
    }
}
