//! The agent: the production core, and a driver that maps each effect to one message and each answer to one event.

use matriarch_ha::core::Core;
use matriarch_ha::effect::{Effect, StoreCall};
use matriarch_ha::event::{Attached, Event, Now};
use matriarch_ha::fence::Permit;
use matriarch_ha::mutants::{self, Mutant};
use matriarch_ha::types::{Boot, Wall};

use super::event::Message;
use super::node::Pm;
use super::{Ev, MS, S, World};
use crate::draw::For;
use crate::plan::Probe;

/// The true wall clock at the beginning of the world.
const EPOCH: i64 = 1_700_000_000_000_000;

impl World {
    pub(super) fn agent_start(&mut self, node: usize, pod: u32) {
        let n = &self.nodes[node];
        if !n.up || n.pod != pod || n.agent.core.is_some() || self.stays_down(node) {
            return;
        }
        let identity = self.identity(node);
        let n = &mut self.nodes[node];
        n.agent.incarnation += 1;
        n.agent.core = Some(Box::new(Core::new(identity)));
        n.agent.mailbox.clear();
        n.agent.view = None;
        n.agent.rule = "";
        n.agent.since = self.now;
        n.agent.wakes = self.now + S;
        let agent = n.agent.incarnation;
        self.line(|w| format!("! {} agent starts", w.nodes[node].name));
        self.attach(node);
        self.push(100, Ev::Core { node, agent, event: Box::new(Event::Tick) });
    }

    /// The agent connects to the supervisor.
    pub(super) fn attach(&mut self, node: usize) {
        let n = &self.nodes[node];
        if n.agent.core.is_none() || !n.supervisor.up {
            return;
        }
        let fence = &n.supervisor.fence;
        let attached = Attached {
            instance: n.supervisor.incarnation.to_string(),
            postmaster: (n.server.pm != Pm::Down).then_some(n.server.incarnation),
            latched: fence.latched(),
            deadline: match fence.granted() {
                Permit::Never => Some(Boot(0)),
                Permit::Until(at) => Some(Boot(at)),
                Permit::Lifted => None,
            },
            permit_seq: fence.seq(),
            terminating: n.supervisor.terminating,
            version: Some("15.1".to_owned()),
        };
        self.tell(node, 300, Event::Attached(attached));
    }

    /// An event for the agent that lives now.
    pub(crate) fn tell(&mut self, node: usize, after: u64, event: Event) {
        let agent = self.nodes[node].agent.incarnation;
        self.push(after, Ev::Core { node, agent, event: Box::new(event) });
    }

    /// The agent dies; the kubelet starts another.
    pub(crate) fn kill_agent(&mut self, node: usize, restart: bool) {
        let n = &mut self.nodes[node];
        if n.agent.core.take().is_none() {
            return;
        }
        n.agent.incarnation += 1;
        n.agent.mailbox.clear();
        n.agent.timer += 1;
        n.agent.view = None;
        n.agent.restarts += 1;
        let (pod, restarts) = (n.pod, n.agent.restarts);
        self.abort_run(node);
        self.close_streams(node);
        if restart {
            let longest = if restarts > 2 { 10_000 } else { 1_500 };
            let after = self.draws.between(For::Process, node, 100, longest) * MS;
            self.push(after, Ev::AgentStart { node, pod });
        }
    }

    pub(super) fn core_event(&mut self, node: usize, agent: u32, event: Event) {
        let now = self.now;
        let n = &mut self.nodes[node];
        let late = n.agent.incarnation != agent && !mutants::on(Mutant::StaleAnswers);
        if late || n.agent.core.is_none() || !n.up {
            return;
        }
        if n.agent.stopped > 0 {
            n.agent.mailbox.push(event);
            return;
        }
        if now < n.agent.busy_until {
            // In the order in which they came.
            n.agent.deferred_to = (n.agent.deferred_to + 1).max(n.agent.busy_until);
            let wait = n.agent.deferred_to - now;
            self.push(wait, Ev::Core { node, agent, event: Box::new(event) });
            return;
        }
        if n.agent.slow_ms > 0 {
            n.agent.busy_until = now + n.agent.slow_ms * MS;
        }
        let clock = Now { boot: n.clock.boot(now), wall: self.wall(node) };
        let n = &mut self.nodes[node];
        let Some(core) = n.agent.core.as_mut() else { return };
        self.stats.handled += 1;
        let effects = core.handle(clock, event);
        for effect in effects {
            self.perform(node, effect);
        }
    }

    pub(crate) fn wall(&self, node: usize) -> Wall {
        let true_time = EPOCH + i64::try_from(self.now).unwrap_or(0);
        Wall(true_time + self.nodes[node].clock.wall_offset)
    }

    pub(super) fn core_tick(&mut self, node: usize, agent: u32, timer: u32) {
        let n = &mut self.nodes[node];
        if n.agent.incarnation != agent || n.agent.timer != timer {
            return;
        }
        if n.agent.stopped > 0 {
            n.agent.timer_due = true;
            return;
        }
        self.core_event(node, agent, Event::Tick);
    }

    /// Sets the agent's one timer.
    pub(super) fn wake_at(&mut self, node: usize, at: Boot) {
        let n = &mut self.nodes[node];
        n.agent.timer += 1;
        let (agent, timer) = (n.agent.incarnation, n.agent.timer);
        if let Some(when) = n.clock.when(self.now, at) {
            // Timers are late, never early.
            let late = self.draws.below(For::Process, node, 500);
            let after = (when - self.now).max(MS) + late;
            self.nodes[node].agent.wakes = self.now + after;
            self.push(after, Ev::Tick { node, agent, timer });
        }
    }

    /// SIGCONT: first the timer or first the mail, as it comes.
    pub(super) fn agent_continues(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.agent.stopped > 0 || n.agent.core.is_none() {
            return;
        }
        n.agent.since = self.now;
        let (agent, mail) = (n.agent.incarnation, std::mem::take(&mut n.agent.mailbox));
        let due = std::mem::take(&mut n.agent.timer_due);
        let tick_first = self.draws.chance(For::Process, node, 500);
        if due && tick_first {
            self.push(1, Ev::Core { node, agent, event: Box::new(Event::Tick) });
        }
        let mut after = 10;
        for event in mail {
            after += self.draws.between(For::Process, node, 1, 300);
            self.push(after, Ev::Core { node, agent, event: Box::new(event) });
        }
        if due && !tick_first {
            self.push(after + 10, Ev::Core { node, agent, event: Box::new(Event::Tick) });
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let agent = self.nodes[node].agent.incarnation;
        match effect {
            Effect::Store(StoreCall::Watch { kind, resource_version }) => self.watch(node, kind, &resource_version),
            Effect::Store(call) => self.request(node, call),
            Effect::Permit { seq, deadline } => self.send(node, Message::Permit { seq, deadline }),
            Effect::Inspect { id } => self.send(node, Message::Inspect { agent, id }),
            Effect::Query { id, .. } => self.send(node, Message::Query { agent, id }),
            Effect::Change { id, change } => {
                self.line(|w| format!("  {} changes {change:?}", w.nodes[node].name));
                self.send(node, Message::Change { agent, id, change });
            }
            Effect::Task { id, task } => {
                self.task_asked(node, &task);
                self.send(node, Message::Task { agent, id, task });
            }
            Effect::CancelTask { id } => self.send(node, Message::Cancel { agent, id }),
            Effect::Ask { id, peer, question, timeout_ms } => self.ask(node, id, peer, question, timeout_ms),
            Effect::Reply { id, reply } => self.reply(node, id, reply),
            Effect::WakeAt(at) => self.wake_at(node, at),
            Effect::Settings { .. } | Effect::Callback { .. } | Effect::Decided(_) => {}
            Effect::History { id, .. } => self.send(node, Message::History { agent, id }),
            Effect::Publish(view) => self.nodes[node].agent.view = Some(view),
            Effect::Disbelieved(why) => self.line(|w| format!("  {} {why}", w.nodes[node].name)),
            Effect::Verdict { rule, reason } => {
                *self.stats.rules.entry(rule).or_default() += 1;
                self.check_reason(node, rule, &reason);
                self.nodes[node].agent.rule = rule;
                self.line(|w| format!("  {} {rule}: {reason}", w.nodes[node].name));
            }
            Effect::Finish => {
                self.send(node, Message::Finish);
                self.kill_agent(node, false);
                let after = self.draws.between(For::Process, node, 20, 2_000) * MS;
                let pod = self.nodes[node].pod;
                self.push(after, Ev::PodGone { node, pod });
            }
            Effect::Exit(reason) => {
                self.line(|w| format!("! {} agent exits: {reason}", w.nodes[node].name));
                self.kill_agent(node, true);
            }
        }
    }

    fn task_asked(&mut self, node: usize, task: &matriarch_ha::effect::Task) {
        use matriarch_ha::effect::Task;
        self.line(|w| {
            let text = format!("{task:?}");
            format!("  {} task {}", w.nodes[node].name, text.split([' ', '{', '(']).next().unwrap_or(""))
        });
        self.check_task(node, task);
        self.check_standby_task(node, task);
        self.task_in_silence();
        match task {
            Task::Promote { .. } => self.probe(Probe::PromoteSent, node),
            Task::BaseBackup { .. } | Task::Rewind { .. } => self.probe(Probe::WipeSent, node),
            Task::Stop { .. } => self.probe(Probe::StopSent, node),
            _ => {}
        }
    }

    /// A message to the supervisor; in order.
    fn send(&mut self, node: usize, message: Message) {
        let delay = self.draws.between(For::Socket, node, 30, 400);
        let n = &mut self.nodes[node];
        let at = (self.now + delay).max(n.agent.socket_at + 1);
        n.agent.socket_at = at;
        let supervisor = n.supervisor.incarnation;
        self.push(at - self.now, Ev::Socket { node, supervisor, message: Box::new(message) });
    }
}
