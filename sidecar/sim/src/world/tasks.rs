//! The long tasks, step by step as the agent does them; each step is a moment at which everything may die.

use matriarch_ha::effect::{Task, Upstream};
use matriarch_ha::event::{Event, TaskError};
use matriarch_ha::fence::Role;
use matriarch_ha::mutants::{self, Mutant};

use super::node::{Pm, Run};
use super::{Ev, MS, World};
use crate::draw::For;
use crate::model::disk::{Disk, Health, State};

/// How often a source is asked whether its first checkpoint after a promotion is done: 200 ms apart, 30 s.
const CHECKPOINT_TRIES: u32 = 150;

pub(super) enum Step {
    Again(u64),
    Done(Result<(), TaskError>),
    /// Ends by an event of the server.
    Waits,
}

pub(super) fn failed(why: &str) -> Step {
    Step::Done(Err(TaskError::Failed(why.to_owned())))
}

/// The step of a copy of slots in which they are written; then the server is started again.
const SLOTS_COPIED: u32 = 2;

impl World {
    pub(super) fn task(&mut self, node: usize, agent: u32, id: u64, task: Task) {
        let n = &mut self.nodes[node];
        if n.agent.incarnation != agent {
            return;
        }
        n.runs += 1;
        let run = n.runs;
        if n.task.is_some() {
            self.check.fail(self.now, "S10", format!("{} runs two tasks at once", n.name));
        }
        n.task = Some(Run { agent, id, task, number: run, step: 0, tries: 0, source: 0 });
        self.task_step(node, run);
    }

    pub(super) fn task_step(&mut self, node: usize, run: u32) {
        let Some(task) = self.nodes[node].task.as_mut().filter(|t| t.number == run) else { return };
        task.step += 1;
        let (step, task) = (task.step, task.task.clone());
        let next = match &task {
            Task::Initdb => self.initdb(node, step),
            Task::PostBootstrap => self.post_bootstrap(node, step),
            Task::BaseBackup { from, .. } => self.base_backup(node, step, from),
            Task::Rewind { from, .. } => self.rewind(node, step, from),
            Task::Compare { from } => self.parted(node, step, from),
            Task::StartPrimary { config } => self.start_primary(node, step, config),
            Task::StartStandby { config } => self.start_standby(node, step, config),
            Task::CopySlots { from, slots, config } => self.copy_slots(node, step, from, slots, config),
            Task::Restore => failed("no method without a leader is configured"),
            Task::MoveAside => {
                self.nodes[node].disk = Disk::empty();
                Step::Done(Ok(()))
            }
            Task::Promote { to, .. } => self.promote_task(node, to.0),
            Task::Stop { immediate, checkpoint, .. } => self.stop_task(node, step, *immediate, *checkpoint),
        };
        match next {
            Step::Again(after) => self.push(after, Ev::Task { node, run }),
            Step::Done(result) => self.run_ends(node, result),
            Step::Waits => {}
        }
    }

    fn run_ends(&mut self, node: usize, result: Result<(), TaskError>) {
        if let Some(run) = self.nodes[node].task.take() {
            let event = Box::new(Event::TaskDone { id: run.id, result });
            self.push(200, Ev::Core { node, agent: run.agent, event });
        }
    }

    pub(super) fn run_ends_when_up(&mut self, node: usize) {
        if let Some(run) = &self.nodes[node].task
            && matches!(run.task, Task::StartPrimary { .. } | Task::StartStandby { .. } | Task::CopySlots { .. })
        {
            self.run_ends(node, Ok(()));
        }
    }

    pub(super) fn run_ends_when_down(&mut self, node: usize) {
        let Some(run) = &self.nodes[node].task else { return };
        let waits = match run.task {
            Task::Stop { .. } => return self.run_ends(node, Ok(())),
            Task::StartPrimary { .. } | Task::StartStandby { .. } | Task::Promote { .. } | Task::PostBootstrap => true,
            // It stops the server itself first.
            Task::CopySlots { .. } => run.step > SLOTS_COPIED,
            _ => false,
        };
        if waits {
            self.run_ends(node, Err(TaskError::Failed("PostgreSQL ended".to_owned())));
        }
    }

    /// The supervisor is gone in the middle of a task.
    pub(super) fn fail_run(&mut self, node: usize) {
        self.run_ends(node, Err(TaskError::Failed("the connection to the supervisor broke".to_owned())));
    }

    /// The agent is gone in the middle of a task: nobody is told.
    pub(super) fn abort_run(&mut self, node: usize) {
        self.nodes[node].task = None;
    }

    pub(super) fn cancel(&mut self, node: usize, agent: u32, id: u64) {
        if self.nodes[node].task.as_ref().is_some_and(|run| run.agent == agent && run.id == id) {
            self.run_ends(node, Err(TaskError::Cancelled));
        }
    }

    pub(super) fn takes(&mut self, node: usize, low: u64, high: u64) -> Step {
        Step::Again(self.draws.log_uniform(For::Task, node, low, high) * MS)
    }

    fn initdb(&mut self, node: usize, step: u32) -> Step {
        if self.nodes[node].disk.health != Health::Empty {
            return failed("the data directory is not empty");
        }
        if step == 1 {
            return self.takes(node, 200, 3_000);
        }
        self.uids += 1;
        let branch = self.wal.root(7_400_000_000_000_000_000 + self.uids);
        self.nodes[node].disk = Disk::fresh(branch);
        Step::Done(Ok(()))
    }

    fn post_bootstrap(&mut self, node: usize, step: u32) -> Step {
        if !self.nodes[node].server.writable() {
            return failed("the server does not answer");
        }
        if step == 1 { self.takes(node, 30, 800) } else { Step::Done(Ok(())) }
    }

    /// The source runs as primary (of a standby cluster at all), and is reached.
    pub(super) fn source(&self, node: usize, from: &Upstream) -> Option<usize> {
        let source = self.server_at(from)?;
        let server = &self.nodes[source].server;
        let serves = server.writable() || (server.pm == Pm::Up && self.knows_standby(node));
        (serves && self.linked(node, source)).then_some(source)
    }

    /// Waits until the source's control file tells its timeline. None: go on.
    pub(super) fn source_ready(&mut self, node: usize, source: Option<usize>) -> Option<Step> {
        let Some(source) = source else { return Some(failed("the source is no primary")) };
        let standby = !self.nodes[source].server.primary;
        let told = self.nodes[source].disk.control_timeline == self.timeline(source);
        if told || standby || mutants::on(Mutant::RewindAtOnce) {
            if let Some(run) = &mut self.nodes[node].task {
                run.source = 0;
            }
            return None;
        }
        let run = self.nodes[node].task.as_mut()?;
        run.tries += 1;
        run.step -= 1;
        Some(if run.tries > CHECKPOINT_TRIES { failed("no checkpoint yet") } else { Step::Again(200 * MS) })
    }

    fn base_backup(&mut self, node: usize, step: u32, from: &Upstream) -> Step {
        let source = self.source(node, from);
        match step {
            1 => self.takes(node, 5, 60),
            2 if mutants::on(Mutant::WipeFirst) && source.is_none() => {
                self.wipe(node, "copy");
                self.nodes[node].disk = Disk::empty();
                failed("the source is no primary")
            }
            2 => self.source_ready(node, source).unwrap_or_else(|| {
                self.wipe(node, "copy");
                self.nodes[node].disk = Disk::empty();
                let server = source.map_or(0, |s| self.nodes[s].server.incarnation);
                if let Some(run) = &mut self.nodes[node].task {
                    run.source = server;
                }
                self.takes(node, 200, 8_000)
            }),
            _ => {
                let begun_on = self.nodes[node].task.as_ref().map_or(0, |run| run.source);
                let same = source.filter(|s| self.nodes[*s].server.incarnation == begun_on);
                let Some(source) = same else { return failed("the connection to the source was lost") };
                self.nodes[node].disk = Disk::copy_of(&self.nodes[source].disk, &self.wal);
                Step::Done(Ok(()))
            }
        }
    }

    /// What would be lost with this directory has to be elsewhere.
    pub(super) fn wipe(&mut self, node: usize, why: &str) {
        self.line(|w| format!("  {} wipes for a {why}", w.nodes[node].name));
        self.check_wipe(node);
        self.nodes[node].wipes += 1;
    }

    fn start_primary(&mut self, node: usize, step: u32, config: &matriarch_ha::effect::ServerConfig) -> Step {
        let n = &mut self.nodes[node];
        if n.server.pm != Pm::Down {
            return failed("a postmaster runs");
        }
        if !n.disk.intact() || matches!(n.disk.state, State::InArchiveRecovery | State::ShutDownInRecovery) {
            return failed("the directory is a standby's");
        }
        if step == 1 {
            return self.takes(node, 2, 20);
        }
        if n.starts_fail > 0 {
            return failed("could not create lock file \"postmaster.pid\": No space left on device");
        }
        n.disk.standby_signal = false;
        match self.may_start(node, Role::Primary) {
            Ok(()) => {
                self.spawn(node, true, config.clone());
                Step::Waits
            }
            Err(error) => Step::Done(Err(error)),
        }
    }

    fn start_standby(&mut self, node: usize, step: u32, config: &matriarch_ha::effect::ServerConfig) -> Step {
        let n = &mut self.nodes[node];
        if n.server.pm != Pm::Down {
            return failed("a postmaster runs");
        }
        if !n.disk.intact() && !mutants::on(Mutant::HalfRewoundStarts) {
            return failed("there is no data directory to start");
        }
        n.disk.standby_signal |= !mutants::on(Mutant::NoStandbySignal);
        if step == 1 {
            return self.takes(node, 2, 20);
        }
        if self.nodes[node].starts_fail > 0 {
            return failed("could not create lock file \"postmaster.pid\": No space left on device");
        }
        match self.may_start(node, Role::Standby) {
            Ok(()) => {
                let standby = self.nodes[node].disk.standby_signal;
                self.spawn(node, !standby, config.clone());
                Step::Waits
            }
            Err(error) => Step::Done(Err(error)),
        }
    }

    /// The state of logical slots comes from the primary, while the standby is stopped.
    fn copy_slots(
        &mut self,
        node: usize,
        step: u32,
        from: &Upstream,
        slots: &[String],
        config: &matriarch_ha::effect::ServerConfig,
    ) -> Step {
        match step {
            1 => return self.takes(node, 20, 400),
            SLOTS_COPIED => {}
            _ => return self.start_again(node, config),
        }
        let Some(source) = self.source(node, from) else { return failed("the source is no primary") };
        if self.nodes[node].server.pm != Pm::Up || self.nodes[node].server.primary {
            return failed("the server does not answer");
        }
        let theirs = self.nodes[source].disk.slots.clone();
        self.server_dies(node, false);
        let ours = &mut self.nodes[node].disk.slots;
        ours.retain(|slot| !slots.contains(&slot.name));
        ours.extend(theirs.into_iter().filter(|slot| slots.contains(&slot.name)));
        self.takes(node, 5, 50)
    }

    fn start_again(&mut self, node: usize, config: &matriarch_ha::effect::ServerConfig) -> Step {
        if self.nodes[node].server.pm != Pm::Down {
            return failed("a postmaster runs");
        }
        match self.may_start(node, Role::Standby) {
            Ok(()) => {
                self.spawn(node, false, config.clone());
                Step::Waits
            }
            Err(error) => Step::Done(Err(error)),
        }
    }

    fn promote_task(&mut self, node: usize, to: u32) -> Step {
        let n = &self.nodes[node];
        if n.server.writable() {
            return Step::Done(Ok(()));
        }
        if n.server.pm != Pm::Up || n.server.dying {
            return failed("the server does not answer");
        }
        if n.server.promoting {
            return Step::Again(10 * MS);
        }
        match self.may_start(node, Role::Primary) {
            Ok(()) => {
                // History files keep PostgreSQL off the timelines that others may have made.
                let disk = &mut self.nodes[node].disk;
                disk.known_timeline = disk.known_timeline.max(to.saturating_sub(1));
                self.promote(node);
                Step::Again(10 * MS)
            }
            Err(error) => Step::Done(Err(error)),
        }
    }

    fn stop_task(&mut self, node: usize, step: u32, immediate: bool, checkpoint: bool) -> Step {
        if self.nodes[node].server.pm == Pm::Down {
            return Step::Done(Ok(()));
        }
        if step == 1 && checkpoint && !immediate {
            return self.takes(node, 10, 600);
        }
        self.stop(node, immediate);
        Step::Waits
    }
}
