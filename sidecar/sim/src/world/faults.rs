//! Faults and commands of the plan: how each begins and ends.

use std::rc::Rc;

use matriarch_ha::event::{Event, Kind, Request, RestartOrder};

use super::network::count;
use super::{Ev, MS, Phase, World};
use crate::draw::For;
use crate::plan::{ANYBODY, Fault, Plan, Probe, When};

/// More members than there ever are.
const MEMBERS: usize = 8;

/// What faults do to things that are everybody's.
#[derive(Debug, Default)]
pub(crate) struct Active {
    pub(crate) api_down: u32,
    pub(crate) api_slow_ms: u64,
    /// Of a thousand.
    pub(crate) api_lose: u64,
    pub(crate) api_errors: u64,
    /// By member: of a thousand, and by how many microseconds.
    pub(crate) api_late: [Option<(u64, u64)>; MEMBERS],
    pub(crate) watch_mute: [u32; MEMBERS],
    pub(crate) watch_lag_ms: [u64; MEMBERS],
    /// Those that wait for a probe: index of the op, whether it began.
    begun: Vec<bool>,
}

impl World {
    /// Schedules what has a time.
    pub(super) fn begin_chaos(&mut self) {
        self.stats.failovers = 0;
        self.begin_transactions();
        let plan = self.plan.clone();
        self.faults.begun = vec![false; plan.ops.len()];
        for (op, what) in plan.ops.iter().enumerate() {
            if let When::At(ms) = what.when {
                self.push(ms * MS, Ev::FaultBegins { op, member: ANYBODY });
            }
        }
    }

    /// The one fault of a plan that promises to be calm but for it.
    pub(crate) fn only_fault(&self) -> Option<Fault> {
        match self.plan.ops.as_slice() {
            [only] if self.plan.config.calm => Some(only.what.clone()),
            _ => None,
        }
    }

    /// What waited for this.
    pub(super) fn faults_after(&mut self, probe: Probe, nth: u32, member: usize) {
        let plan: Rc<Plan> = self.plan.clone();
        for (op, what) in plan.ops.iter().enumerate() {
            if let When::After { probe: waited, nth: which, delay_us } = what.when
                && waited == probe
                && which == nth
                && !self.faults.begun[op]
            {
                self.faults.begun[op] = true;
                self.push(delay_us, Ev::FaultBegins { op, member });
            }
        }
    }

    pub(super) fn fault_begins(&mut self, op: usize, by: usize) {
        if self.phase != Phase::Chaos {
            return;
        }
        let plan = self.plan.clone();
        let Some(what) = plan.ops.get(op) else { return };
        let member = self.member_of(&what.what, by);
        let Some(node) = self.current.get(member).copied() else { return };
        self.line(|_| format!("! x-{member}: {:?} ({} ms)", what.what, what.lasts_ms));
        if self.begin(node, member, &what.what, what.lasts_ms) && what.lasts_ms > 0 {
            self.push(what.lasts_ms * MS, Ev::FaultEnds { op, node, member });
        }
    }

    /// The member that a fault is about.
    fn member_of(&self, fault: &Fault, by: usize) -> usize {
        let named = match fault {
            Fault::AgentKill(m)
            | Fault::AgentStop(m)
            | Fault::AgentSlow(m, _)
            | Fault::PostmasterKill(m)
            | Fault::ContainerKill(m)
            | Fault::PodKill(m)
            | Fault::PodDelete(m)
            | Fault::PodFreeze(m)
            | Fault::NodeCrash(m)
            | Fault::PodReplace(m)
            | Fault::Cut(m)
            | Fault::CutApi(m)
            | Fault::CutPeers(m, _)
            | Fault::CutOneWay(m, _)
            | Fault::ApiLate(m, _)
            | Fault::WatchMute(m)
            | Fault::WatchLag(m, _)
            | Fault::ClockRate(m, _)
            | Fault::WallJump(m, _)
            | Fault::ClockStop(m)
            | Fault::DiskSlow(m, _)
            | Fault::VolumeLost(m)
            | Fault::StreamStuck(m)
            | Fault::Restart(m)
            | Fault::RestartLater(m, _)
            | Fault::Reinitialize(m)
            | Fault::SwitchoverLater(m, _)
            | Fault::StartsFail(m)
            | Fault::Fence(m)
            | Fault::SlowStart(m)
            | Fault::DataLost(m)
            | Fault::Switchover(m)
            | Fault::Failover(m)
            | Fault::CutSource(m) => *m,
            _ => 0,
        };
        if named != ANYBODY {
            return named;
        }
        if by == ANYBODY { self.leader().map_or(0, |node| self.nodes[node].member) } else { by }
    }

    /// False when it cannot begin, or has no end.
    fn begin(&mut self, node: usize, member: usize, fault: &Fault, lasts_ms: u64) -> bool {
        match fault {
            Fault::AgentKill(_) => self.kill_agent(node, true),
            Fault::AgentStop(_) => count(&mut self.nodes[node].agent.stopped, true),
            Fault::AgentSlow(_, ms) => self.nodes[node].agent.slow_ms = *ms,
            Fault::PostmasterKill(_) => self.server_dies(node, false),
            Fault::ContainerKill(_) => self.container_dies(node),
            Fault::PodKill(_) => {
                self.kill_agent(node, true);
                self.container_dies(node);
            }
            Fault::PodDelete(_) => self.delete_pod(node),
            Fault::PodFreeze(_) => self.nodes[node].frozen += 1,
            Fault::NodeCrash(_) => self.node_crashes(node),
            Fault::PodReplace(_) => return self.replace_pod(node, member),
            Fault::Cut(_) => self.cut(node, true),
            Fault::CutApi(_) => self.net.cut_api(node, true),
            Fault::CutPeers(_, other) => self.cut_pair(node, *other, true, true),
            Fault::CutOneWay(_, other) => self.cut_pair(node, *other, false, true),
            Fault::ApiDown => {
                self.faults.api_down += 1;
                self.end_watches();
            }
            Fault::ApiSlow(ms) => self.faults.api_slow_ms = *ms,
            Fault::ApiLoseAnswers(per_mille) => self.faults.api_lose = *per_mille,
            Fault::ApiErrors(per_mille) => self.faults.api_errors = *per_mille,
            Fault::ApiLate(_, per_mille) => self.faults.api_late[member] = Some((*per_mille, lasts_ms * MS)),
            Fault::WatchesEnd => {
                if self.draws.chance(For::Swarm, 1, 500) {
                    self.api.floor = self.api.revision();
                }
                self.end_watches();
            }
            Fault::WatchMute(_) => self.faults.watch_mute[member] += 1,
            Fault::WatchLag(_, ms) => self.faults.watch_lag_ms[member] = *ms,
            Fault::ClockRate(_, ppm) => self.set_rate(node, *ppm),
            Fault::WallJump(_, seconds) => self.nodes[node].clock.wall_offset += seconds * 1_000_000,
            Fault::ClockStop(_) => {
                // A hypervisor pause: nothing runs, and the boot clock stands still.
                self.check.clock_hell = true;
                self.nodes[node].frozen += 1;
                let now = self.now;
                self.nodes[node].clock.set_stopped(now, true);
            }
            Fault::DiskSlow(_, ms) => self.nodes[node].slow_disk_ms = *ms,
            Fault::VolumeLost(_) => self.lose_volume(node),
            Fault::StreamStuck(_) => self.nodes[node].stuck_stream += 1,
            Fault::LockDeleted => {
                let name = self.leader_object();
                let _ = self.api.delete(Kind::Lock, name);
                self.stored();
            }
            Fault::Restart(_) => self.order(node, Request::Restart(RestartOrder::default())),
            Fault::RestartLater(_, seconds) => {
                let schedule = Some(self.later(node, *seconds));
                self.order(node, Request::Restart(RestartOrder { schedule, ..RestartOrder::default() }));
            }
            Fault::Reinitialize(_) => self.order(node, Request::Reinitialize { force: true, from_leader: false }),
            Fault::StartsFail(_) => self.nodes[node].starts_fail += 1,
            Fault::SlowStart(_) => self.nodes[node].slow_start_ms = lasts_ms.min(20_000),
            Fault::DataLost(_) => self.lose_data(node),
            Fault::SwitchoverLater(_, seconds) => self.command(member, true, Some(*seconds)),
            Fault::Switchover(_) => self.command(member, true, None),
            Fault::Failover(_) => {
                self.check.failover_by_hand = true;
                self.command(member, false, None);
            }
            Fault::Pause => {
                self.check.paused = true;
                self.check.paused_since = Some(self.now);
                self.edit_config("pause", serde_json::Value::Bool(true));
            }
            Fault::Fence(_) => self.fence(member, true),
            Fault::Durability(durability) => self.set_durability(*durability),
            Fault::Ttl(seconds) => self.edit_config("ttl", (*seconds).into()),
            Fault::SyncCount(n) => self.edit_config("synchronous_node_count", (*n).into()),
            Fault::PromoteCluster => self.follow_source(false),
            Fault::DemoteCluster => self.follow_source(true),
            Fault::SourceDown => self.source_down(),
            Fault::SourceSlow(ms) => self.slow_source(*ms),
            Fault::SourceFailover(lost) => self.source_fails_over(*lost),
            Fault::CutSource(_) => self.cut_source(node, true),
        }
        true
    }

    pub(super) fn fault_ends(&mut self, op: usize, node: usize, member: usize) {
        let plan = self.plan.clone();
        let Some(what) = plan.ops.get(op) else { return };
        if self.phase != Phase::Chaos {
            return;
        }
        self.line(|_| format!("! end of {:?}", what.what));
        match &what.what {
            Fault::AgentStop(_) => {
                count(&mut self.nodes[node].agent.stopped, false);
                self.agent_continues(node);
            }
            Fault::AgentSlow(..) => self.nodes[node].agent.slow_ms = 0,
            Fault::PodFreeze(_) => self.thaw(node),
            Fault::NodeCrash(_) => self.node_boots(node),
            Fault::PodReplace(_) => self.zombie_ends(node),
            Fault::Cut(_) => self.cut(node, false),
            Fault::CutApi(_) => self.net.cut_api(node, false),
            Fault::CutPeers(_, other) => self.cut_pair(node, *other, true, false),
            Fault::CutOneWay(_, other) => self.cut_pair(node, *other, false, false),
            Fault::ApiDown => count(&mut self.faults.api_down, false),
            Fault::ApiSlow(_) => self.faults.api_slow_ms = 0,
            Fault::ApiLoseAnswers(_) => self.faults.api_lose = 0,
            Fault::ApiErrors(_) => self.faults.api_errors = 0,
            Fault::ApiLate(..) => self.faults.api_late[member] = None,
            Fault::WatchMute(_) => count(&mut self.faults.watch_mute[member], false),
            Fault::WatchLag(..) => self.faults.watch_lag_ms[member] = 0,
            Fault::ClockStop(_) => {
                let now = self.now;
                self.nodes[node].clock.set_stopped(now, false);
                self.thaw(node);
                self.clock_changed(node);
            }
            Fault::StartsFail(_) => count(&mut self.nodes[node].starts_fail, false),
            Fault::SlowStart(_) => self.nodes[node].slow_start_ms = 0,
            Fault::DiskSlow(..) => self.nodes[node].slow_disk_ms = 0,
            Fault::StreamStuck(_) => count(&mut self.nodes[node].stuck_stream, false),
            Fault::Pause => self.resume(),
            Fault::SourceDown => self.source_returns(),
            Fault::SourceSlow(_) => self.slow_source(0),
            Fault::CutSource(_) => self.cut_source(node, false),
            Fault::Fence(_) => self.fence(member, false),
            Fault::Durability(_) => self.set_durability(plan.config.durability),
            Fault::Ttl(_) => self.edit_config("ttl", plan.config.ttl.into()),
            Fault::SyncCount(_) => self.edit_config("synchronous_node_count", plan.config.sync_count.into()),
            _ => {}
        }
    }

    /// Ends every fault.
    pub(super) fn end_all_faults(&mut self) {
        let begun = std::mem::take(&mut self.faults.begun);
        self.faults = Active { begun, ..Active::default() };
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].agent.stopped = 0;
            self.nodes[node].agent.slow_ms = 0;
            self.nodes[node].slow_disk_ms = 0;
            self.nodes[node].stuck_stream = 0;
            self.nodes[node].starts_fail = 0;
            self.nodes[node].slow_start_ms = 0;
            if self.nodes[node].zombie {
                self.zombie_ends(node);
                continue;
            }
            if self.nodes[node].frozen > 0 {
                self.nodes[node].frozen = 1;
                let now = self.now;
                self.nodes[node].clock.set_stopped(now, false);
                self.thaw(node);
                self.clock_changed(node);
            }
            self.agent_continues(node);
        }
        self.source_returns();
        if self.check.paused_since.is_some() {
            self.resume();
        }
        self.fenced.clear();
        self.fence_stored();
        self.set_durability(self.plan.config.durability);
        self.edit_config("ttl", self.plan.config.ttl.into());
        self.edit_config("synchronous_node_count", self.plan.config.sync_count.into());
    }

    pub(super) fn thaw(&mut self, node: usize) {
        count(&mut self.nodes[node].frozen, false);
        if self.nodes[node].frozen > 0 {
            return;
        }
        self.nodes[node].thawed_at = self.now;
        let deferred = std::mem::take(&mut self.nodes[node].deferred);
        let mut after = 0;
        for event in deferred {
            // In the order in which they came.
            after += self.draws.between(For::Process, node, 1, 60);
            self.push(after, event);
        }
    }

    fn set_rate(&mut self, node: usize, ppm: i64) {
        let now = self.now;
        self.nodes[node].clock.set_rate(now, ppm);
        self.clock_changed(node);
    }

    /// Timers are set anew.
    fn clock_changed(&mut self, node: usize) {
        self.arm_fence(node);
        if self.nodes[node].agent.core.is_some() {
            self.tell(node, 1_000, Event::Tick);
        }
    }

    pub(super) fn cut(&mut self, node: usize, cut: bool) {
        self.net.cut_api(node, cut);
        for other in 0..self.nodes.len() {
            if other != node {
                self.net.cut_link(node, other, cut);
                self.net.cut_link(other, node, cut);
            }
        }
    }

    fn cut_pair(&mut self, node: usize, other: usize, both: bool, cut: bool) {
        let Some(other) = self.current.get(other).copied().filter(|other| *other != node) else { return };
        self.net.cut_link(node, other, cut);
        if both {
            self.net.cut_link(other, node, cut);
        }
    }

    pub(crate) fn config(&self) -> &crate::plan::Config {
        &self.plan.config
    }
}
