//! The leader lock as it is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use matriarch_crds::names::HOLDER_ANNOTATION;

use crate::workload::clock;

/// Who leads, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// The member; empty when the lock is free.
    pub leader: String,
    /// Which pod: `<uid>@<time>`.
    pub holder: String,
    /// When that member took the lock, as it says it.
    pub acquired: Option<Timestamp>,
}

impl Lock {
    /// From the lock object's annotations.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
        Self { leader: text("leader"), holder: text(HOLDER_ANNOTATION), acquired: text("acquireTime").parse().ok() }
    }

    /// The uid of the pod that holds it.
    pub fn pod_uid(&self) -> &str {
        self.holder.split('@').next().unwrap_or_default()
    }

    /// When it was taken, on the boot-time clock: all members of a test run on one machine.
    pub fn acquired_at(&self) -> Option<Duration> {
        self.acquired.map(clock::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_patroni_writes_it() {
        let annotations = BTreeMap::from([
            ("leader".to_owned(), "orders-1".to_owned()),
            ("acquireTime".to_owned(), "2024-07-02T11:06:42.123456+00:00".to_owned()),
            (HOLDER_ANNOTATION.to_owned(), "a-b@2024-07-02T11:06:42.123456+00:00".to_owned()),
        ]);
        let lock = Lock::of(&annotations);
        assert_eq!((lock.leader.as_str(), lock.pod_uid()), ("orders-1", "a-b"));
        assert!(lock.acquired.is_some());
        assert_eq!(Lock::of(&BTreeMap::new()), Lock::default());
    }
}
