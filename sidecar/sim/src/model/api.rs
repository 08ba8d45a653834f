//! etcd behind an API server: objects with one revision counter, compare-and-swap at the moment of applying, and a log of events
//! that watches read.

use std::collections::BTreeMap;
use std::rc::Rc;

use matriarch_ha::effect::Patch;
use matriarch_ha::event::{Kind, Object, StoreError};
use matriarch_ha::mutants::{self, Mutant};

/// One event of the log.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: Kind,
    pub(crate) deleted: bool,
    pub(crate) object: Rc<Object>,
}

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Api {
    revision: u64,
    uids: u64,
    objects: BTreeMap<(Kind, Rc<str>), Rc<Object>>,
    pub(crate) log: Vec<Change>,
    /// Watches from before here get 410.
    pub(crate) floor: u64,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self { revision: 100, ..Self::default() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Result<Rc<Object>, StoreError> {
        // Few objects: a scan costs less than a key made of a new string.
        self.objects
            .iter()
            .find(|((k, n), _)| *k == kind && &**n == name)
            .map(|(_, object)| object.clone())
            .ok_or(StoreError::NotFound)
    }

    pub(crate) fn list(&self, kind: Kind) -> (Vec<Object>, String) {
        let all = self.objects.iter().filter(|((k, _), _)| *k == kind).map(|(_, o)| (**o).clone()).collect();
        (all, self.revision.to_string())
    }

    pub(crate) fn create(&mut self, kind: Kind, mut object: Object) -> Result<Rc<Object>, StoreError> {
        if self.get(kind, &object.name).is_ok() {
            return Err(StoreError::Conflict);
        }
        self.uids += 1;
        if object.uid.is_empty() {
            object.uid = format!("o-{}", self.uids);
        }
        Ok(self.put(kind, object))
    }

    fn put(&mut self, kind: Kind, mut object: Object) -> Rc<Object> {
        self.revision += 1;
        object.resource_version = self.revision.to_string();
        let object = Rc::new(object);
        self.objects.insert((kind, object.name.as_str().into()), object.clone());
        self.log.push(Change { revision: self.revision, kind, deleted: false, object: object.clone() });
        object
    }

    pub(crate) fn patch(&mut self, patch: &Patch) -> Result<Rc<Object>, StoreError> {
        let old = self.get(patch.kind, &patch.name)?;
        let stale = patch.resource_version.as_ref().is_some_and(|version| *version != old.resource_version);
        if stale && !mutants::on(Mutant::CasIgnored) {
            return Err(StoreError::Conflict);
        }
        let mut object = (*old).clone();
        for (map, changes) in [(&mut object.annotations, &patch.annotations), (&mut object.labels, &patch.labels)] {
            for (key, value) in changes {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        }
        if let Some(addresses) = &patch.addresses {
            object.addresses.clone_from(addresses);
        }
        if object == *old {
            // Nothing changed, so nothing is written.
            return Ok(old);
        }
        Ok(self.put(patch.kind, object))
    }

    /// As a person or a controller does it: without compare-and-swap.
    pub(crate) fn edit(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut Object)) {
        if let Ok(old) = self.get(kind, name) {
            let mut object = (*old).clone();
            change(&mut object);
            self.put(kind, object);
        }
    }

    pub(crate) fn delete(&mut self, kind: Kind, name: &str) -> Result<(), StoreError> {
        let object = self.get(kind, name)?;
        self.objects.remove(&(kind, object.name.as_str().into()));
        self.revision += 1;
        let mut last = (*object).clone();
        last.resource_version = self.revision.to_string();
        self.log.push(Change { revision: self.revision, kind, deleted: true, object: Rc::new(last) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(version: &str, value: &str) -> Patch {
        Patch {
            id: 1,
            kind: Kind::Lock,
            name: "a".into(),
            resource_version: Some(version.into()),
            annotations: BTreeMap::from([("k".into(), Some(value.into()))]),
            labels: BTreeMap::new(),
            addresses: None,
            timeout_ms: 1,
        }
    }

    #[test]
    fn a_write_on_an_old_version_is_refused_when_it_is_applied() {
        let mut api = Api::new();
        let first = api.create(Kind::Lock, Object { name: "a".into(), ..Object::default() }).unwrap();
        let second = api.patch(&patch(&first.resource_version, "x")).unwrap();
        assert_eq!(api.patch(&patch(&first.resource_version, "y")), Err(StoreError::Conflict));
        assert_eq!(api.patch(&patch(&second.resource_version, "x")), Ok(second), "nothing changed, nothing is written");
        assert_eq!(api.log.len(), 2);
    }
}
