//! The cache of one kind of objects, and the LIST and WATCH that keep it: relists after a loss, backs off after an error.

use std::collections::BTreeMap;

use crate::effect::{Effect, StoreCall};
use crate::event::{Kind, Object, StoreError};
use crate::types::Boot;

/// Longest time that a LIST may take before it is sent again, milliseconds.
const LIST_TIMEOUT_MS: u64 = 3_000;
/// First and longest pause after an error, milliseconds.
const BACKOFF_MS: (u64, u64) = (100, 1_000);

/// Where the upkeep of one kind stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// List, but not before.
    Idle { not_before: Boot },
    /// A LIST is on its way.
    Listing { id: u64, since: Boot },
    /// A WATCH is open, as far as we know.
    Watching,
}

/// Objects of one kind by name.
#[derive(Debug, Clone)]
pub struct Cache {
    kind: Kind,
    objects: BTreeMap<String, Object>,
    resource_version: String,
    phase: Phase,
    errors: u32,
    listed: bool,
    /// When the store last said anything about this kind.
    pub seen: Boot,
    /// The last error, for people.
    pub problem: Option<String>,
}

impl Cache {
    /// Empty, to be listed at once.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            objects: BTreeMap::new(),
            resource_version: String::new(),
            phase: Phase::Idle { not_before: Boot(0) },
            errors: 0,
            listed: false,
            seen: Boot(0),
            problem: None,
        }
    }

    /// An object by name.
    pub fn get(&self, name: &str) -> Option<&Object> {
        self.objects.get(name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// It was listed once.
    pub fn listed(&self) -> bool {
        self.listed
    }

    /// It is being watched now.
    pub fn fresh(&self) -> bool {
        self.phase == Phase::Watching
    }

    /// Starts what is due.
    pub fn upkeep(&mut self, now: Boot, next_id: &mut u64, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Idle { not_before } if now >= not_before => {}
            Phase::Listing { since, .. } if now.ms_since(since) >= LIST_TIMEOUT_MS => {}
            _ => return,
        }
        *next_id += 1;
        self.phase = Phase::Listing { id: *next_id, since: now };
        effects.push(Effect::Store(StoreCall::List { id: *next_id, kind: self.kind }));
    }

    /// When [`Self::upkeep`] wants to be called again.
    pub fn wake_at(&self) -> Option<Boot> {
        match self.phase {
            Phase::Idle { not_before } => Some(not_before),
            Phase::Listing { since, .. } => Some(since.plus_ms(LIST_TIMEOUT_MS)),
            Phase::Watching => None,
        }
    }

    /// A LIST ended. True when the content was replaced.
    pub fn on_listed(
        &mut self,
        now: Boot,
        id: u64,
        result: Result<(Vec<Object>, String), StoreError>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !matches!(self.phase, Phase::Listing { id: expected, .. } if expected == id) {
            return false;
        }
        match result {
            Ok((objects, resource_version)) => {
                self.objects = objects.into_iter().map(|o| (o.name.clone(), o)).collect();
                self.resource_version = resource_version;
                self.listed = true;
                self.errors = 0;
                self.problem = None;
                self.seen = now;
                self.watch(effects);
                true
            }
            Err(error) => {
                self.back_off(now, &error);
                false
            }
        }
    }

    /// A watch ended: goes on from the last version, or lists again.
    pub fn on_watch_ended(&mut self, now: Boot, error: Option<StoreError>, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Watching {
            return;
        }
        match error {
            None if self.seen.plus_ms(1) < now => self.watch(effects),
            None | Some(StoreError::Gone) => self.phase = Phase::Idle { not_before: now.plus_ms(BACKOFF_MS.0) },
            Some(error) => self.back_off(now, &error),
        }
    }

    /// An object was added or changed. False when what we have is newer.
    pub fn apply(&mut self, now: Boot, object: Object, watched: bool) -> bool {
        self.seen = now;
        if watched {
            self.resource_version.clone_from(&object.resource_version);
        }
        match self.objects.get(&object.name) {
            Some(known) if version(&known.resource_version) > version(&object.resource_version) => false,
            _ => {
                self.objects.insert(object.name.clone(), object);
                true
            }
        }
    }

    /// An object is gone. False when a newer one of that name is there.
    pub fn delete(&mut self, now: Boot, object: &Object) -> bool {
        self.seen = now;
        self.resource_version.clone_from(&object.resource_version);
        let stale = |known: &Object| known.uid == object.uid || object.uid.is_empty();
        self.objects.get(&object.name).is_some_and(stale) && self.objects.remove(&object.name).is_some()
    }

    /// Gone for sure (a GET or PATCH said so).
    pub fn forget(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// A bookmark.
    pub fn bookmark(&mut self, now: Boot, resource_version: String) {
        self.seen = now;
        self.resource_version = resource_version;
    }

    fn watch(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Watching;
        let resource_version = self.resource_version.clone();
        effects.push(Effect::Store(StoreCall::Watch { kind: self.kind, resource_version }));
    }

    fn back_off(&mut self, now: Boot, error: &StoreError) {
        let pause = (BACKOFF_MS.0 << self.errors.min(4)).min(BACKOFF_MS.1);
        self.errors = self.errors.saturating_add(1);
        self.problem = Some(format!("{error:?}"));
        let wait = match error {
            StoreError::Status(_, _, Some(seconds)) => u64::from(*seconds) * 1000,
            _ => pause,
        };
        self.phase = Phase::Idle { not_before: now.plus_ms(wait.min(5_000)) };
    }
}

/// Versions are compared as integers, as Patroni does and Kubernetes 1.35 documents.
fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, rv: &str) -> Object {
        Object { name: name.into(), uid: name.into(), resource_version: rv.into(), ..Object::default() }
    }

    #[test]
    fn it_lists_then_watches_and_lists_again_after_gone() {
        let (mut cache, mut id, mut effects) = (Cache::new(Kind::Lock), 0, vec![]);
        cache.upkeep(Boot(0), &mut id, &mut effects);
        assert_eq!(effects, [Effect::Store(StoreCall::List { id: 1, kind: Kind::Lock })]);
        effects.clear();
        assert!(cache.on_listed(Boot(1), 1, Ok((vec![object("a", "5")], "7".into())), &mut effects));
        assert!(cache.fresh());
        assert!(
            matches!(&effects[0], Effect::Store(StoreCall::Watch { resource_version, .. }) if resource_version == "7")
        );
        cache.on_watch_ended(Boot(2), Some(StoreError::Gone), &mut effects);
        assert!(!cache.fresh());
        assert_eq!(cache.wake_at(), Some(Boot(100_002)));
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let mut cache = Cache::new(Kind::Lock);
        assert!(cache.apply(Boot(0), object("a", "10"), false));
        assert!(!cache.apply(Boot(0), object("a", "9"), true));
        assert_eq!(cache.get("a").unwrap().resource_version, "10");
    }
}
