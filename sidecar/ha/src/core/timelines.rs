//! Which timelines are taken, which of those that are told are believed, and the one that is reserved for a promotion here.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Core;
use crate::effect::Effect;
use crate::lease::Holder;
use crate::mutants::{self, Mutant};
use crate::store::record::timeline;
use crate::types::{Boot, Timeline};

/// A number that is so many timelines further than our own server is was not reserved by anybody. A promotion to it would write a
/// history file for each number before it, here and, one question to the primary each, on every standby: with millions of them it would
/// not end. Nobody reserves a number beyond this either, so that one that is not believed was never used; to get there, members would
/// have to take the lock ten thousand times, one after the other, without one promotion that lasts.
pub const PLAUSIBLE: u32 = 10_000;

/// What is known of timelines.
#[derive(Debug, Default)]
pub(super) struct Timelines {
    /// The highest that our own server was on, 0: not known yet.
    own: Timeline,
    /// What the lock said, also when the object has vanished since: the highest that is believed, or all as long as nobody can tell.
    heard: BTreeSet<Timeline>,
    /// The one that our last write of the lock which reserved one said, 0: none.
    pub reserved: Timeline,
    /// What was said already of numbers that are not believed.
    told: BTreeSet<String>,
}

impl Timelines {
    /// Our own server, or its data directory, is on this one.
    pub fn is_on(&mut self, timeline: Timeline) {
        self.own = self.own.max(timeline);
    }

    /// The lock says this one.
    fn hear(&mut self, timeline: Timeline) {
        if timeline == Timeline(0) || !self.believes(timeline) {
            return;
        }
        self.heard.insert(timeline);
        if self.own != Timeline(0) {
            self.heard = self.heard.split_off(&self.highest_heard());
        }
    }

    fn highest_heard(&self) -> Timeline {
        self.heard.iter().rev().copied().find(|timeline| self.believes(*timeline)).unwrap_or_default()
    }

    /// It is not implausibly far ahead of our own server. Before that one is known nobody can tell.
    fn believes(&self, timeline: Timeline) -> bool {
        self.own == Timeline(0) || timeline.0 <= self.own.0.saturating_add(PLAUSIBLE)
    }

    fn believed(&self, timeline: Timeline) -> Timeline {
        if self.believes(timeline) { timeline } else { Timeline(0) }
    }
}

impl Core {
    /// The lock was read.
    pub(super) fn hear_timeline(&mut self) {
        let told = self.lease.record().map(|record| record.timeline).unwrap_or_default();
        self.timelines.hear(told);
    }

    /// A standby that takes the lock, or leads and is to be promoted, reserves a timeline that nobody has reserved before; else the
    /// number never goes back, whether PostgreSQL runs here or not: the object may have been made anew.
    pub(super) fn timeline_to_write(&mut self, known: Timeline, renewal: bool) -> Timeline {
        let recovers = self.server.status.as_ref().is_some_and(|status| status.in_recovery);
        let reserves = recovers && (!renewal || self.wants_timeline());
        if reserves
            && !mutants::on(Mutant::TimelineNotReserved)
            && let Some(next) = self.next_timeline()
        {
            self.timelines.reserved = next;
            // A claim of before does not say this number.
            self.sync_claim = None;
            return next;
        }
        if self.timelines.own == Timeline(0) && known != Timeline(0) {
            // Whether it can be is for those to say who know a server.
            return known;
        }
        self.taken()
    }

    /// The first that nobody has; none: it would be believed by nobody.
    fn next_timeline(&self) -> Option<Timeline> {
        // Patroni reserves none: each of its members may have made one that nobody has heard of.
        let unheard = u32::try_from(self.patroni_members()).unwrap_or(0);
        let next = Timeline(self.taken().0.checked_add(1)?.checked_add(unheard)?);
        self.timelines.believes(next).then_some(next)
    }

    /// The highest that was reserved, or that somebody is known to be on, or to have been.
    fn taken(&self) -> Timeline {
        self.highest_timeline().max(self.timelines.highest_heard()).max(self.timeline_of_sync())
    }

    /// The highest timeline that we or others are known to be on, or to have been.
    fn highest_timeline(&self) -> Timeline {
        // The lock object may have been made anew since; what members say of themselves has outlived it.
        let published =
            self.members.iter().filter_map(|m| published(&m.status)).filter(|t| self.timelines.believes(*t));
        let own = self.server.status.as_ref().map(|status| status.timeline);
        // And so has the history of those that are down now.
        published.chain(own).max().unwrap_or_default().max(self.timeline_of_history())
    }

    /// What the last claim before a promotion said: its number was used, or still may be.
    fn timeline_of_sync(&self) -> Timeline {
        self.timelines.believed(self.locks.get(&self.id.sync_object).map(timeline).unwrap_or_default())
    }

    /// The cluster's timeline by its history, 0: not known.
    pub(super) fn timeline_of_history(&self) -> Timeline {
        self.timelines.believed(self.history.timeline())
    }

    /// What the lock says to whoever is promoted under it.
    fn timeline_of_lock(&self) -> Timeline {
        self.timelines.believed(self.lease.record().map(|record| record.timeline).unwrap_or_default())
    }

    /// The timeline of a promotion now.
    pub(super) fn timeline_to_make(&self) -> Timeline {
        self.timeline_of_lock().max(self.timelines.reserved)
    }

    /// What `-sync` says, where it outlives the lock object; 0: nothing.
    pub(super) fn timeline_to_claim(&self) -> Timeline {
        self.timelines.highest_heard()
    }

    /// The lock says a timeline that this agent has reserved, and nobody has come to it since: members of a standby cluster follow the
    /// timelines of another one, whoever has reserved them here. What was seen when it was reserved may have been old.
    pub(super) fn timeline_reserved(&self) -> bool {
        let reserved = self.timelines.reserved;
        let of_sync = self.timeline_of_sync();
        let claimed = of_sync > reserved || (of_sync == reserved && !self.sync_settled());
        reserved != Timeline(0) && self.timeline_of_lock() >= reserved && reserved > self.highest_timeline() && !claimed
    }

    /// To be promoted, but without a timeline of its own.
    fn wants_timeline(&self) -> bool {
        let recovers = self.server.status.as_ref().is_some_and(|status| status.in_recovery);
        let blind = mutants::on(Mutant::TimelineNotReserved) || mutants::on(Mutant::ClusterTimelineNotReserved);
        recovers && self.config.standby_cluster.is_none() && !self.server.latched && !self.timeline_reserved() && !blind
    }

    /// The same, of a lock that is ours and can be written now.
    pub(super) fn lacks_timeline(&self, now: Boot) -> bool {
        self.holder(now) == Holder::Me && self.wants_timeline() && self.next_timeline().is_some()
    }

    /// Says once of every number that is not believed where it stands and what comes of it.
    pub(super) fn tell_timelines(&mut self, effects: &mut Vec<Effect>) {
        let now = self.unbelievable();
        effects.extend(now.difference(&self.timelines.told).cloned().map(Effect::Disbelieved));
        self.timelines.told = now;
    }

    fn unbelievable(&self) -> BTreeSet<String> {
        let own = self.timelines.own;
        if own == Timeline(0) {
            return BTreeSet::new();
        }
        let lock = self.lease.record().map(|record| record.timeline).unwrap_or_default();
        let sync = self.locks.get(&self.id.sync_object).map(timeline).unwrap_or_default();
        let stored = [
            (lock, "the lock", &self.id.leader_object),
            (sync, "the object", &self.id.sync_object),
            (self.history.timeline(), "the history in", &self.id.config_object),
        ];
        let said = self.members.iter().filter_map(|m| Some((published(&m.status)?, "the status of pod", &m.name)));
        let mut all: BTreeSet<String> = stored
            .into_iter()
            .chain(said)
            .filter(|(number, ..)| !self.timelines.believes(*number))
            .map(|(number, what, name)| {
                format!(
                    "timeline {number} in {what} {name} is ignored: this server has been on {own}, and nobody reserves one more than \
                     {PLAUSIBLE} ahead"
                )
            })
            .collect();
        if self.next_timeline().is_none() {
            let (taken, lock, sync) = (self.taken(), &self.id.leader_object, &self.id.sync_object);
            all.insert(format!(
                "timelines up to {taken} are reserved, more than {PLAUSIBLE} ahead of {own}, on which this server is: it is not promoted. \
                 When no member, of those that are down too, is on one of them, remove the annotation matriarch.dev/timeline from {lock} \
                 and {sync} and restart the agents"
            ));
        }
        all
    }
}

/// What a member says of itself; a number that is none of PostgreSQL's is the highest one.
fn published(status: &Value) -> Option<Timeline> {
    status.get("timeline").and_then(Value::as_u64).map(|t| Timeline(u32::try_from(t).unwrap_or(u32::MAX)))
}
