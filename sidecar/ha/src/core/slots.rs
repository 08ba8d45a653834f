//! The slots of our server: decided by [`crate::slots`] after every look at it, and what others are told of them.

use std::collections::{BTreeMap, BTreeSet};

use super::Core;
use crate::effect::{Change, Effect};
use crate::event::ServerStatus;
use crate::member::slot_name;
use crate::slots::{Facts, SlotKind, SlotPlan, plan};
use crate::types::{Boot, Lsn};

/// A plan that changed nothing (a slot that is in use, a plugin that is missing) is tried again after this, milliseconds.
const AGAIN_MS: u64 = 30_000;

impl Core {
    /// Once for each answer of the server.
    pub(super) fn keep_slots(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let ready = self.slots_due && self.config.use_slots && !self.config.pause && self.pods.listed();
        if !ready || self.slots_change.is_some() {
            return;
        }
        let leads = self.leading(now) || self.leading_standbys(now);
        let usable = |status: &ServerStatus| leads || (status.in_recovery && status.streaming);
        if !self.server.status.as_ref().is_some_and(usable) {
            return;
        }
        self.slots_due = false;
        let members = slots_of_members(self, now, leads);
        let Some(status) = &self.server.status else { return };
        let none = BTreeMap::new();
        let plan = plan(&Facts {
            leads,
            members: &members,
            permanent: if leads || !self.id.tags.nofailover { &self.config.slots } else { &none },
            former: &self.former_slots,
            ignored: &self.config.ignore_slots,
            positions: self.lease.record().map_or(&none_at(), |record| &record.slots),
            replayed: status.replayed,
            there: &status.slots,
        });
        // One that cannot be copied yet is not asked for all the time.
        if now.ms_since(self.slots_copied) >= AGAIN_MS || self.slots_copied == Boot(0) {
            self.server.slots_to_copy.clone_from(&plan.copy);
        }
        let todo = SlotPlan { copy: Vec::new(), ..plan };
        if todo == SlotPlan::default() {
            self.slots_tried = None;
            return;
        }
        if self.slots_tried.as_ref().is_some_and(|(tried, at)| *tried == todo && now.ms_since(*at) < AGAIN_MS) {
            return;
        }
        self.slots_tried = Some((todo.clone(), now));
        let id = self.id();
        // Beside other changes: what a failover changes never waits for a slot.
        self.slots_change = Some(id);
        effects.push(Effect::Change { id, change: Change::Slots(todo) });
    }

    /// The annotation `slots`: where the slots of members and permanent ones are, and where we are ourselves.
    pub(super) fn slot_positions(&self, status: &ServerStatus) -> Option<String> {
        if !self.config.use_slots {
            return None;
        }
        let known = |name: &str| {
            self.config.slots.contains_key(name) || self.slots_seen.keys().any(|member| slot_name(member) == *name)
        };
        let ours = status.slots.iter().filter(|slot| slot.lsn != Lsn(0) && known(&slot.name));
        let mut positions: BTreeMap<&str, u64> = ours.map(|slot| (slot.name.as_str(), slot.lsn.0)).collect();
        let own = slot_name(&self.id.name);
        positions.insert(&own, crate::snapshot::position(status).0);
        serde_json::to_string(&positions).ok()
    }

    /// The annotation `retain_slots`: slots of members, also of those that are away for a while, which a leader that runs Patroni goes on
    /// keeping.
    pub(super) fn retained_slots(&self) -> Option<String> {
        let stays = |name: &String| !self.config.slots.contains_key(name);
        let names: BTreeSet<String> = self.slots_seen.keys().map(|member| slot_name(member)).filter(stays).collect();
        (self.config.use_slots && !names.is_empty()).then(|| serde_json::to_string(&names).ok()).flatten()
    }

    /// Logical slots that the configuration has no more may be dropped.
    pub(super) fn remember_slots(&mut self) {
        let logical = self.config.slots.iter().filter(|(_, kind)| **kind != SlotKind::Physical);
        self.former_slots.extend(logical.map(|(name, _)| name.clone()));
    }
}

fn none_at() -> BTreeMap<String, Lsn> {
    BTreeMap::new()
}

/// Slots of the members that stream from us, and of those that may have to after a failover, also of members that are away for less
/// than `member_slots_ttl`.
fn slots_of_members(core: &mut Core, now: Boot, leads: bool) -> BTreeSet<String> {
    let ttl = core.config.member_slots_ttl_ms;
    for name in core.pods.all().map(|pod| pod.name.clone()).collect::<Vec<_>>() {
        core.slots_seen.insert(name, now);
    }
    core.slots_seen.retain(|_, seen| now.ms_since(*seen) < ttl.max(1));
    let (own, tags) = (core.id.name.as_str(), &core.id.tags);
    let member = |name: &str| core.members.iter().find(|member| member.name == name);
    let streams_here = |name: &str| {
        let from = member(name).and_then(|m| m.tags.replicatefrom.as_deref());
        from.map_or(leads, |from| from == own || (leads && member(from).is_none()))
    };
    let everywhere = ttl > 0 && (leads || !tags.nofailover);
    core.slots_seen
        .keys()
        .filter(|name| *name != own)
        .filter(|name| !member(name).is_some_and(|m| m.tags.nostream))
        .filter(|name| everywhere || streams_here(name))
        .map(|name| slot_name(name))
        .collect()
}
