//! Where clients are sent: the EndpointSlice of the Service, or in Endpoints mode the lock object itself.

use std::collections::BTreeMap;

use super::{CALL_TIMEOUT_MS, Call, Core};
use crate::effect::{Effect, Patch, StoreCall};
use crate::event::Kind;
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::store::record::Failover;
use crate::types::Boot;

/// The leader looks at its EndpointSlice this often, milliseconds: nobody else should write it.
const SLICE_CHECK_MS: u64 = 60_000;
/// A slice read so lately need not be read again before a promotion, milliseconds.
pub(super) const SLICE_FRESH_MS: u64 = 5_000;

impl Core {
    /// Clients reach the primary: in `ConfigMap` mode through the slice, in Endpoints mode through the lock object.
    pub(super) fn keep_address(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        if self.id.ip.is_empty() {
            return;
        }
        let Some(name) = self.id.slice.clone() else {
            let addresses = self.locks.get(&self.id.leader_object).map(|o| o.addresses.clone());
            if addresses.as_deref() != Some(std::slice::from_ref(&self.id.ip)) && !self.lock_write_in_flight() {
                self.lock_sent = Boot(0); // the next renewal carries it, now
            }
            return;
        };
        if self.in_flight(|c| matches!(c, Call::SliceRead | Call::SliceWrite)) {
            return;
        }
        let id = self.next_id + 1;
        let wanted = vec![self.id.ip.clone()];
        let (call, effect) = match &self.slice {
            None if now.ms_since(self.slice_checked) < 200 => return,
            None => (Call::SliceRead, StoreCall::Get { id, kind: Kind::Slice, name }),
            Some((_, addresses)) if *addresses == wanted => {
                if now.ms_since(self.slice_checked) < SLICE_CHECK_MS {
                    return;
                }
                (Call::SliceRead, StoreCall::Get { id, kind: Kind::Slice, name })
            }
            Some((version, _)) => (
                Call::SliceWrite,
                StoreCall::Patch(Patch {
                    id,
                    kind: Kind::Slice,
                    name,
                    resource_version: (!mutants::on(Mutant::BlindSlice)).then(|| version.clone()),
                    annotations: BTreeMap::new(),
                    labels: BTreeMap::new(),
                    addresses: Some(wanted),
                    timeout_ms: CALL_TIMEOUT_MS,
                }),
            ),
        };
        self.next_id = id;
        self.slice_checked = now;
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), call));
        effects.push(Effect::Store(effect));
    }

    /// Clients are sent here, as far as we know.
    pub(super) fn address_written(&self) -> bool {
        if self.id.ip.is_empty() {
            return true;
        }
        let own = std::slice::from_ref(&self.id.ip);
        if self.id.slice.is_some() {
            self.slice.as_ref().is_some_and(|(_, addresses)| addresses == own)
        } else {
            self.locks.get(&self.id.leader_object).is_some_and(|o| o.addresses == own)
        }
    }

    /// Before a promotion the slice is read, so that one write is enough afterwards.
    pub(super) fn read_slice(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let Some(name) = self.id.slice.clone().filter(|_| !self.id.ip.is_empty()) else { return };
        if self.in_flight(|c| matches!(c, Call::SliceRead | Call::SliceWrite)) {
            return;
        }
        let id = self.id();
        self.slice_checked = now;
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), Call::SliceRead));
        effects.push(Effect::Store(StoreCall::Get { id, kind: Kind::Slice, name }));
    }

    /// The candidate of a switchover reads the slice while the old primary still works; that also opens the connection over
    /// which it takes the lock.
    pub(super) fn prepare_to_lead(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let failover = Failover::parse(self.locks.get(&self.id.failover_object));
        let candidate = failover.is_some_and(|f| f.member.as_deref() == Some(self.id.name.as_str()));
        if candidate && self.holder(now) != Holder::Me && now.ms_since(self.slice_checked) > SLICE_FRESH_MS {
            self.read_slice(now, effects);
        }
    }
}
