//! Signals and time: the fence, the order of a stop, SIGTERM, and when the supervisor is done.

use matriarch_ha::fence::FenceAction;
use matriarch_supervisor::protocol::{Notice, StopMode};

use super::{Supervisor, Termination};
use crate::stopping::Step;
use crate::sys;
use crate::sys::Signal;

/// An agent that has not called for so long, after SIGTERM, is not waited for.
const SILENCE_US: u64 = 5_000_000;
/// A detached supervisor without an agent and without PostgreSQL ends after this.
const FORGOTTEN_US: u64 = 60_000_000;
/// How long the supervisor's own fast stop may take before it becomes an immediate one.
const OWN_STOP_MS: u64 = 60_000;

impl Supervisor {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Interrupt => self.signal_postmaster(Signal::SIGINT),
            Step::Terminate => self.signal_postmaster(Signal::SIGTERM),
            Step::Quit => self.signal_postmaster(Signal::SIGQUIT),
            Step::Kill => self.kill_left(false),
        }
    }

    /// To the postmaster, or to its orphans when it is gone.
    pub(super) fn signal_postmaster(&self, signal: Signal) {
        match &self.running {
            Some(running) if running.ended.is_none() => sys::signal(running.pid(), signal),
            Some(_) => self.left().unwrap_or_default().into_iter().for_each(|pid| sys::signal(pid, signal)),
            None => {}
        }
    }

    /// `all`: the fence spares nobody, and no fork slips through; tools that run beside are lost with it.
    pub(super) fn kill_left(&mut self, all: bool) {
        if self.running.is_none() {
            return;
        }
        if self.init && all {
            sys::kill_everything();
        } else {
            self.left().unwrap_or_default().into_iter().for_each(|pid| sys::signal(pid, Signal::SIGKILL));
        }
    }

    /// SIGTERM. A second one changes nothing.
    pub fn terminate(&mut self, now: u64) {
        if self.termination.is_none() {
            self.log.line("SIGTERM: the agent has the word");
            self.termination = Some(Termination::default());
            self.last_heard = now;
            self.notice(Notice::Terminating);
        }
    }

    /// A fast stop of what still runs.
    pub(super) fn leave(&mut self, now: u64) {
        if self.running.is_some() {
            let step = self.stopping.stop(StopMode::Fast, OWN_STOP_MS, now);
            self.step(step);
        }
    }

    /// Whether the supervisor is to exit.
    pub fn finished(&self) -> bool {
        let left = self.termination.as_ref().is_some_and(|termination| termination.leaving);
        let forgotten = self.idle() && sys::now_us() >= self.last_heard.saturating_add(FORGOTTEN_US);
        self.running.is_none() && (left || forgotten)
    }

    /// Nobody needs it. In a container that is for the kubelet to say.
    pub(super) fn idle(&self) -> bool {
        self.options.detached && self.agent.is_none() && self.running.is_none() && self.children.is_empty()
    }

    /// When [`Self::on_time`] has to be called.
    pub fn next_timer(&self) -> Option<u64> {
        let silence = self.termination.as_ref().filter(|termination| !termination.leaving);
        self.fence
            .next_timer()
            .into_iter()
            .chain(self.stopping.next_timer())
            .chain(self.children.values().filter_map(|child| child.kill_at))
            .chain(silence.map(|_| self.last_heard.saturating_add(SILENCE_US)))
            .chain(self.watches().then(|| self.watch.next_timer()))
            .chain(self.idle().then(|| self.last_heard.saturating_add(FORGOTTEN_US)))
            .min()
    }

    /// Does what is due, the fence first.
    pub fn on_time(&mut self, now: u64) {
        match self.fence.due(now) {
            FenceAction::Nothing => {}
            FenceAction::Quit { deadline_us } => {
                self.signal_postmaster(Signal::SIGQUIT);
                self.log.line(&format!("the fence closes, {} us after its deadline", now - deadline_us));
                self.notice(Notice::Fencing { deadline_us });
            }
            FenceAction::Kill => self.kill_left(true),
        }
        let step = self.stopping.due(now);
        self.step(step);
        for child in self.children.values_mut() {
            if child.kill_at.is_some_and(|at| now >= at) {
                child.kill_at = None;
                sys::signal_group(child.pid, Signal::SIGKILL);
                sys::signal(child.pid, Signal::SIGKILL);
            }
        }
        if now >= self.last_heard.saturating_add(SILENCE_US)
            && let Some(termination) = self.termination.as_mut().filter(|termination| !termination.leaving)
        {
            termination.leaving = true;
            self.log.line("the agent is silent: stopping without it");
            self.leave(now);
        }
    }
}
