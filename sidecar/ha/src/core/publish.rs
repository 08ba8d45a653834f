//! What others may see: the view for REST, probes and metrics, and the pod's `status` annotation and role label.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{CALL_TIMEOUT_MS, Call, Core, Shown};
use crate::config::SyncMode;
use crate::effect::{Effect, Patch, StoreCall};
use crate::event::{DataDir, Kind};
use crate::lease::Holder;
use crate::member::Member;
use crate::member_status::{member_status, worth_writing};
use crate::snapshot::TaskKind;
use crate::store::record::{Failover, Initialize};
use crate::types::{Boot, Lsn};
use crate::view::{MemberView, View};

/// A member's description is written when it has differed for so long, milliseconds.
const POD_SETTLES_MS: u64 = 300;

impl Core {
    pub(super) fn publish(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let view = self.view(now);
        self.write_pod(now, &view, effects);
        if view != *self.view {
            self.view = Arc::new(view);
            effects.push(Effect::Publish(self.view.clone()));
        }
    }

    fn state(&self) -> &'static str {
        match self.task.as_ref().map(|(_, _, view)| view.kind) {
            Some(TaskKind::Initdb) => "initializing new cluster",
            Some(TaskKind::MoveAside) => "custom bootstrap failed",
            Some(TaskKind::BaseBackup | TaskKind::Restore) => "creating replica",
            Some(TaskKind::StartPrimary | TaskKind::StartStandby | TaskKind::CopySlots) => "starting",
            Some(TaskKind::Stop) if self.server.running => "stopping",
            _ if self.server.running && self.server.status.is_some() => "running",
            _ if self.server.running => "starting",
            _ => "stopped",
        }
    }

    pub(super) fn role(&self) -> &'static str {
        match (&self.server.status, &self.server.dir) {
            (Some(status), _) if !status.in_recovery => "primary",
            (Some(_), _) if self.standby_leader => "standby_leader",
            (None, Some(DataDir::Empty)) => "uninitialized",
            (None, _) if self.handing_over => "demoted",
            _ => "replica",
        }
    }

    /// Made anew only when there is something new to show.
    fn shown_members(&mut self, leader: Option<&str>, voters: &[String]) -> Arc<Vec<MemberView>> {
        let shown = &self.shown;
        let same = Arc::ptr_eq(&shown.of, &self.members) && shown.leader.as_deref() == leader && shown.voters == voters;
        if !same {
            let member = |m: &Member| MemberView {
                leader: leader == Some(m.name.as_str()),
                sync: voters.iter().any(|voter| voter.eq_ignore_ascii_case(&m.name)),
                name: m.name.clone(),
                ip: m.ip.clone(),
                status: m.status.clone(),
            };
            self.shown = Shown {
                of: self.members.clone(),
                leader: leader.map(str::to_owned),
                voters: voters.to_vec(),
                members: Arc::new(self.members.iter().map(member).collect()),
            };
        }
        self.shown.members.clone()
    }

    fn view(&mut self, now: Boot) -> View {
        let holder = self.holder(now);
        let sync = self.sync_state();
        let voter = |name: &str| sync.voters.iter().any(|v| v.eq_ignore_ascii_case(name));
        let leader_name = match &holder {
            Holder::Me => Some(self.id.name.clone()),
            Holder::Other { name, .. } => Some(name.clone()),
            _ => None,
        };
        let members = self.shown_members(leader_name.as_deref(), &sync.voters);
        let record = self.lease.record();
        let (rule, reason) = self.verdict.as_ref().map(|(rule, why)| (rule.id(), why.as_str())).unwrap_or_default();
        let reason = match &self.server.last_error {
            Some(error) if self.server.status.is_none() && !reason.contains(error.as_str()) => {
                format!("{reason} (last error: {error})")
            }
            _ => reason.to_owned(),
        };
        View {
            name: self.id.name.clone(),
            pod_uid: self.id.uid.clone(),
            state: self.state().to_owned(),
            role: self.role().to_owned(),
            server: self.server.status.clone(),
            leader: holder == Holder::Me && self.lease.deadline().is_some_and(|d| now < d),
            leader_until: self.lease.deadline().unwrap_or_default(),
            unlocked: leader_name.is_none(),
            leader_name,
            leader_lsn: record.map_or(Lsn(0), |r| r.optime),
            failsafe_active: self.failsafe_active || self.promised_until.is_some(),
            failsafe_members: record.map(|r| r.failsafe.clone()).unwrap_or_default(),
            failsafe_mode: self.config.failsafe_mode,
            paused: self.config.pause,
            pausing: self.pausing(),
            sync_mode: match self.config.sync_mode {
                SyncMode::Off => "off",
                SyncMode::Priority => "on",
                SyncMode::Quorum => "quorum",
            }
            .to_owned(),
            sync_standby: voter(&self.id.name),
            members,
            config: self.config_document.clone(),
            switchover: Failover::parse(self.locks.get(&self.id.failover_object)),
            scheduled_restart: self.commands.shown(),
            demoted: self.demoted(),
            withholds_position: self.withholds_position(now),
            history: self.history.lines().to_vec(),
            store_seen: if self.locks.fresh() { now } else { self.locks.seen },
            cycle_at: now,
            rule: rule.to_owned(),
            reason,
            ttl_ms: self.config.ttl_ms,
            max_lag: self.config.maximum_lag_on_failover,
            tags: self.id.tags.published.clone(),
            invalid_parameters: self.unusable_parameters(),
            config_problems: self.config_problems.clone(),
            declared: self.declared.clone(),
            standbys: self.server.status.as_ref().map(|s| s.standbys.clone()).unwrap_or_default(),
            timeline: self.server.status.as_ref().map(|s| s.timeline).unwrap_or_default(),
        }
    }

    /// What PostgreSQL refuses, and what it is not even asked about.
    fn unusable_parameters(&self) -> BTreeMap<String, String> {
        let mut all = self.invalid_parameters.clone();
        let ours = self
            .config_problems
            .iter()
            .filter_map(|said| said.strip_prefix("postgresql.parameters.")?.split_once(": "));
        for (name, why) in ours {
            all.entry(name.to_owned()).or_insert_with(|| why.to_owned());
        }
        all
    }

    /// Nothing here is or may become writable, by the supervisor's word. A start or promotion begins with a fresh confirmation of the
    /// lock only, which nobody else can have taken in between.
    pub(super) fn demoted(&self) -> bool {
        let begins = self.task.as_ref().is_some_and(|(_, _, view)| {
            matches!(view.kind, TaskKind::StartPrimary | TaskKind::Promote | TaskKind::Initdb)
        });
        let recovers = self.server.status.as_ref().is_some_and(|s| s.in_recovery);
        self.server.attached && !self.server.latched && !begins && (recovers || !self.server.running)
    }

    /// The role, and what is said of a member that has no data yet. Its state is part of its description, so that these are written
    /// whenever they change.
    fn labels(&self, view: &View, role: Option<String>) -> BTreeMap<String, Option<String>> {
        let making = ["initializing new cluster", "custom bootstrap failed", "creating replica"];
        let ours = matches!(self.initialize(), Initialize::Racing { by: Some((pod, _)) } if pod == self.id.name);
        let starts = view.state == "starting" && ours;
        let making = starts || making.contains(&view.state.as_str());
        let special =
            self.id.bootstrap_labels.iter().map(|(name, value)| (name.clone(), making.then(|| value.clone())));
        special.chain(self.role_labels(view, role)).collect()
    }

    /// Only on a change that somebody acts on: the progress of a position alone is none.
    fn write_pod(&mut self, now: Boot, view: &View, effects: &mut Vec<Effect>) {
        let ours = self.pods.get(&self.id.name).is_some_and(|pod| pod.uid == self.id.uid);
        if !ours || self.in_flight(|c| matches!(c, Call::Pod { .. })) || now < self.pod_retry_at {
            return;
        }
        let mut status = member_status(view, &self.id.conn_url, &self.id.api_url);
        if let Some(proxy_url) = &self.id.proxy_url {
            status["proxy_url"] = json!(proxy_url);
        }
        // The address first: a changed role changes the Service of the standbys, and kube-proxy syncs once a second at most.
        if view.leader && view.role == "primary" && !self.address_written() {
            return;
        }
        let role = match (view.state.as_str(), view.role.as_str()) {
            ("running", "primary") if view.leader => Some(self.id.leader_label.clone()),
            ("running", "standby_leader") if view.leader => Some(self.id.standby_leader_label.clone()),
            ("running", "replica") => Some(self.id.follower_label.clone()),
            _ => None,
        };
        if !worth_writing(&self.pod_written.0, &status) && self.pod_written.1 == role {
            self.pod_differs_since = None;
            return;
        }
        // What lasts for a moment only is not written, least of all in the middle of a failover.
        let since = *self.pod_differs_since.get_or_insert(now);
        if self.pod_written.0 != Value::Null && now.ms_since(since) < POD_SETTLES_MS {
            return;
        }
        self.pod_differs_since = None;
        let id = self.id();
        self.pod_retry_at = now.plus_ms(100);
        self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), Call::Pod { status: status.clone(), role: role.clone() }));
        effects.push(Effect::Store(StoreCall::Patch(Patch {
            id,
            kind: Kind::Pod,
            name: self.id.name.clone(),
            resource_version: None,
            annotations: BTreeMap::from([("status".to_owned(), Some(status.to_string()))]),
            labels: self.labels(view, role),
            addresses: None,
            timeout_ms: CALL_TIMEOUT_MS,
        })));
    }

    /// The role label, and the second one: `primary` on every leader, else the plain role.
    fn role_labels(&self, view: &View, role: Option<String>) -> BTreeMap<String, Option<String>> {
        let plain = if view.leader { "primary" } else { view.role.as_str() };
        let second = self.id.tmp_role_label.clone().map(|label| (label, role.as_ref().map(|_| plain.to_owned())));
        BTreeMap::from([(self.id.role_label.clone(), role)]).into_iter().chain(second).collect()
    }
}
