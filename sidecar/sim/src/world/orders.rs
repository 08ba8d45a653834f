//! What people ask of the cluster and of its members, and change in its configuration.

use matriarch_ha::event::{Event, Kind, Request};
use matriarch_ha::store::record::LockRecord;
use matriarch_ha::types::Wall;

use super::{MS, World};
use crate::plan::Durability;

/// Above every id that a peer's question has: nobody waits for the answer.
const BY_HAND: u64 = 1 << 50;

fn seconds_us(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(0) * 1_000_000
}

impl World {
    /// A person's request to a member over REST.
    pub(super) fn order(&mut self, node: usize, request: Request) {
        self.nodes[node].ordered = true;
        self.tell(node, MS, Event::Request { id: BY_HAND, request });
    }

    /// In so many seconds by the member's own clock on the wall.
    pub(super) fn later(&self, node: usize, seconds: u64) -> Wall {
        Wall(self.wall(node).0 + seconds_us(seconds))
    }

    /// As `kubectl matriarch switchover` and `patronictl failover` do it.
    pub(super) fn command(&mut self, member: usize, switchover: bool, after: Option<u64>) {
        let leader = self.api.get(Kind::Lock, self.leader_object()).ok().and_then(|o| LockRecord::parse(&o).leader);
        let candidate = format!("x-{member}");
        if leader.as_deref() == Some(candidate.as_str()) {
            return;
        }
        let at = after.map(|seconds| self.later(self.current[member], seconds));
        self.check.commanded_at = Some(self.now);
        self.api.edit(Kind::Lock, "x-failover", |object| {
            object.annotations.insert("member".into(), candidate);
            if let Some(at) = at {
                object.annotations.insert("scheduled_at".into(), at.to_string());
            }
            if let Some(leader) = leader.filter(|_| switchover) {
                object.annotations.insert("leader".into(), leader);
            }
        });
        self.stored();
    }

    pub(super) fn resume(&mut self) {
        self.check.paused_since = None;
        self.edit_config("pause", serde_json::Value::Bool(false));
    }

    /// As `kubectl matriarch fence` does it. A member that is fenced twice is free when both have ended.
    pub(super) fn fence(&mut self, member: usize, fenced: bool) {
        if let Some(node) = self.current.get(member).copied() {
            self.nodes[node].ordered = true;
        }
        let names = &mut self.fenced;
        if fenced {
            names.push(member);
        } else if let Some(at) = names.iter().position(|one| *one == member) {
            names.remove(at);
        }
        self.fence_stored();
    }

    pub(super) fn fence_stored(&mut self) {
        let names: Vec<String> = self.fenced.iter().map(|member| format!("x-{member}")).collect();
        if !names.is_empty() || self.fenced_once {
            self.fenced_once = true;
            self.edit_config("matriarch", serde_json::json!({"fenced": names}));
        }
    }

    pub(super) fn set_durability(&mut self, durability: Durability) {
        if self.check.durability != durability {
            self.check.asked_at = self.now;
        }
        self.check.durability = durability;
        // From one mode to another there is no moment without its promise; to async and back there is.
        self.check.suspended |= durability == Durability::Async;
        self.edit_config("synchronous_mode", super::mode(durability));
    }

    pub(super) fn edit_config(&mut self, key: &str, value: serde_json::Value) {
        let Ok(object) = self.api.get(Kind::Lock, "x-config") else { return };
        let text = object.annotations.get("config").map_or("{}", String::as_str);
        let mut document: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        if document.get(key) == Some(&value) {
            return;
        }
        document[key] = value;
        self.api.edit(Kind::Lock, "x-config", |object| {
            object.annotations.insert("config".into(), document.to_string());
        });
        self.stored();
    }
}
