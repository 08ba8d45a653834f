//! The view at one moment: what is true of it now that the clock has gone on since it was published.

use matriarch_ha::event::{Now, ServerStatus};
use matriarch_ha::types::Lsn;
use matriarch_ha::view::View;
use serde_json::Value;

use super::Site;

/// Everything that an answer is made from.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// As published.
    pub view: &'a View,
    /// When the request is answered.
    pub now: Now,
    /// What never changes.
    pub site: &'a Site,
}

impl Seen<'_> {
    /// We hold the lock, and its deadline has not passed, whatever the core had no time to publish.
    pub fn leader(&self) -> bool {
        self.view.leader && self.now.boot < self.view.leader_until
    }

    /// The store was heard of within ttl: Patroni's "DCS cache".
    pub fn store_known(&self) -> bool {
        self.view.store_seen.0 != 0 && self.now.boot.ms_since(self.view.store_seen) < self.view.ttl_ms
    }

    /// Nobody is known to lead.
    pub fn unlocked(&self) -> bool {
        self.view.unlocked || !self.store_known()
    }

    /// The dynamic configuration makes this a standby cluster.
    pub fn standby_cluster(&self) -> bool {
        let wanted = self.view.config.as_ref().and_then(|config| config.get("standby_cluster"));
        wanted.and_then(Value::as_object).is_some_and(|wanted| !wanted.is_empty())
    }

    /// Patroni's word for the role: what PostgreSQL says if it answers, else what we think of it.
    pub fn role(&self) -> &str {
        match &self.view.server {
            Some(server) if !server.in_recovery => "primary",
            Some(_) if !self.standby_cluster() => "replica",
            _ => &self.view.role,
        }
    }

    /// Patroni's word for the state; a server that should run and does not answer is `unknown`.
    pub fn state(&self) -> &str {
        match self.view.server {
            None if self.view.state == "running" => "unknown",
            _ => &self.view.state,
        }
    }

    /// PostgreSQL runs and answers.
    pub fn running(&self) -> bool {
        self.state() == "running"
    }

    /// The server, if it is a standby.
    pub fn standby(&self) -> Option<&ServerStatus> {
        self.view.server.as_ref().filter(|server| server.in_recovery)
    }

    /// The server, if it is a primary.
    pub fn primary(&self) -> Option<&ServerStatus> {
        self.view.server.as_ref().filter(|server| !server.in_recovery)
    }

    /// The standby is further behind the leader than `limit` bytes; `position` is one of its own. The leader is where it last
    /// published to be, or where our own stream says; where it is not known, nobody is behind.
    pub fn lags(&self, position: Lsn, limit: u64) -> bool {
        let streamed = self.standby().map_or(Lsn(0), |standby| standby.upstream_end);
        self.view.leader_lsn.max(streamed).0 > position.0.saturating_add(limit)
    }

    /// Listed as synchronous, and the list is known to be current.
    pub fn sync_standby(&self) -> bool {
        self.view.sync_standby && self.view.sync_mode == "on" && self.role() == "replica" && self.store_known()
    }

    /// Listed in quorum mode, and the list is known to be current.
    pub fn quorum_standby(&self) -> bool {
        self.view.sync_standby && self.view.sync_mode == "quorum" && self.role() == "replica" && self.store_known()
    }
}
