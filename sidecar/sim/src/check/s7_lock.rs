//! S7: the lock goes from one holder to another only after a release by the holder while it could not write, or a ttl after
//! its last renewal.

use matriarch_ha::effect::StoreCall;
use matriarch_ha::event::Kind;
use matriarch_ha::fence::RHO_PPM;
use matriarch_ha::store::record::LockRecord;

use crate::plan::Probe;
use crate::queue::Time;
use crate::world::{MS, World};

/// The last holder as the store knows it.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    uid: Option<String>,
    ttl_ms: u64,
    renewed: Time,
    released: bool,
}

/// The lock before a write.
pub(crate) type LockSeen = Option<LockRecord>;

impl World {
    /// What a write may change of the lock.
    pub(crate) fn lock_seen(&self, call: &StoreCall) -> LockSeen {
        let name = self.leader_object();
        let about = match call {
            StoreCall::Patch(patch) => patch.kind == Kind::Lock && patch.name == name,
            StoreCall::Create { kind, name: created, .. } => *kind == Kind::Lock && created == name,
            _ => false,
        };
        about.then(|| self.api.get(Kind::Lock, name).map(|object| LockRecord::parse(&object)).unwrap_or_default())
    }

    /// As the store knows it.
    pub(crate) fn holds_lock(&self, node: usize) -> bool {
        self.check.lock.uid.as_deref() == Some(self.nodes[node].uid.as_str()) && !self.check.lock.released
    }

    /// A write was applied.
    pub(crate) fn check_write(&mut self, node: usize, uid: &str, call: &StoreCall, before: LockSeen) {
        if let Some(before) = before {
            self.lock_written(node, uid, &before);
        }
        let patched = match call {
            StoreCall::Patch(patch) => Some((patch.kind, patch.name.as_str(), patch.addresses.is_some())),
            StoreCall::Create { kind, name, .. } => Some((*kind, name.as_str(), false)),
            _ => None,
        };
        match patched {
            Some((Kind::Lock, "x-sync", _)) => {
                self.line(|w| {
                    let state = w.sync_state();
                    format!(
                        "  {} votes: {:?} of {:?}, quorum {}",
                        w.nodes[node].name, state.leader, state.voters, state.quorum
                    )
                });
                self.probe(Probe::SyncApplied, node);
                self.check_given_up(node);
                for primary in 0..self.nodes.len() {
                    self.check_names(primary);
                }
            }
            Some((Kind::Slice, ..) | (_, _, true)) => self.check_route(node, uid),
            _ => {}
        }
    }

    fn lock_written(&mut self, node: usize, uid: &str, before: &LockRecord) {
        let Ok(object) = self.api.get(Kind::Lock, self.leader_object()) else { return };
        let after = LockRecord::parse(&object);
        if after.leader.is_none() {
            if before.leader.is_some() {
                self.lock_released(node, uid);
            }
            return;
        }
        let lock = &self.check.lock;
        if lock.uid.as_deref() == Some(uid) && !lock.released {
            self.probe(Probe::RenewalApplied, node);
        } else {
            let held = lock.uid.is_some() && !lock.released;
            let true_ttl = lock.ttl_ms * MS * 1_000_000 / (1_000_000 + RHO_PPM);
            let age = self.now - lock.renewed;
            if held && age < true_ttl && !self.check.clock_hell && !self.knows_only_the_shorter_ttl(node, before) {
                let what = format!(
                    "{} took the lock {} ms after its holder's last renewal, whose ttl is {} ms",
                    self.nodes[node].name,
                    age / MS,
                    lock.ttl_ms
                );
                self.check.fail(self.now, "S7", what);
            }
            self.line(|w| format!("  {} takes the lock", w.nodes[node].name));
            self.check.routing.acquired(uid);
            self.probe(Probe::AcquireApplied, node);
        }
        let ttl_ms = after.ttl_ms.unwrap_or(0);
        self.check.lock = Lock { uid: Some(uid.to_owned()), ttl_ms, renewed: self.now, released: false };
    }

    /// Told in `docs/safety.md`: the ttl was shortened, the lock object deleted, and this agent started anew, all within a ttl: nothing
    /// is left that says how long the last holder counts.
    fn knows_only_the_shorter_ttl(&self, node: usize, before: &LockRecord) -> bool {
        let config = self.api.get(Kind::Lock, "x-config").ok();
        let config = config.and_then(|o| serde_json::from_str::<serde_json::Value>(o.annotations.get("config")?).ok());
        let configured_ms = config.and_then(|document| document["ttl"].as_u64()).map_or(0, |seconds| seconds * 1000);
        let lock = &self.check.lock;
        before.acquire_time.is_empty() && self.nodes[node].agent.since > lock.renewed && configured_ms < lock.ttl_ms
    }

    fn lock_released(&mut self, node: usize, uid: &str) {
        let ours = self.check.lock.uid.as_deref() == Some(uid);
        let n = &self.nodes[node];
        let latched = n.supervisor.up && n.supervisor.fence.latched();
        // Its shutdown checkpoint written, a primary cannot write any more.
        let could_write = n.up && n.uid == uid && latched && n.server.writable();
        if !ours || could_write {
            let why = if ours { "while it can write" } else { "that is not its own" };
            let what = format!("{} releases the lock {why}", n.name);
            self.check.fail(self.now, "S7", what);
        }
        self.line(|w| format!("  {} releases the lock", w.nodes[node].name));
        self.check.lock.released = true;
        self.probe(Probe::ReleaseApplied, node);
    }
}
