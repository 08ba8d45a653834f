//! The supervisor: the production fence, and a mailbox.

use matriarch_ha::event::{DataDir, Event, QueryError, TaskError};
use matriarch_ha::fence::{Fence, FenceAction, QUIT_TO_KILL_US, Role};
use matriarch_ha::mutants::{self, Mutant};
use matriarch_ha::types::Boot;

use super::event::{Message, ServerEv};
use super::node::{Pm, Server};
use super::{Ev, MS, World};
use crate::draw::For;

impl World {
    pub(super) fn supervisor_hears(&mut self, node: usize, supervisor: u32, message: Message) {
        let n = &self.nodes[node];
        if !n.supervisor.up || n.supervisor.incarnation != supervisor || !n.up {
            return self.unheard(node, &message);
        }
        match message {
            Message::Permit { seq, deadline } => {
                let fence = &mut self.nodes[node].supervisor.fence;
                let heard = match deadline {
                    Some(Boot(at)) => fence.permit(seq, at),
                    None => fence.lift(seq),
                };
                if heard.is_ok() {
                    self.arm_fence(node);
                    self.check_permits(node);
                }
            }
            Message::Inspect { agent, id } => self.inspect(node, agent, id),
            Message::Query { agent, id } => self.query(node, agent, id),
            Message::History { agent, id } => self.history(node, agent, id),
            Message::Change { agent, id, change } => self.change(node, agent, id, change),
            Message::Task { agent, id, task } => self.task(node, agent, id, task),
            Message::Cancel { agent, id } => self.cancel(node, agent, id),
            Message::Finish => self.server_dies(node, false),
        }
    }

    /// The connection to that supervisor is broken: the agent's call fails.
    fn unheard(&mut self, node: usize, message: &Message) {
        let why = || "the connection to the supervisor broke".to_owned();
        let (agent, event) = match *message {
            Message::Inspect { agent, id } => (agent, Event::Inspected { id, found: DataDir::Unknown(why()) }),
            Message::Query { agent, id } => (agent, Event::Queried { id, result: Err(QueryError::Failed(why())) }),
            Message::History { agent, id } => (agent, Event::History { id, result: Err(why()) }),
            Message::Change { agent, id, .. } => (agent, Event::Changed { id, result: Err(why()) }),
            Message::Task { agent, id, .. } => (agent, Event::TaskDone { id, result: Err(TaskError::Failed(why())) }),
            Message::Permit { .. } | Message::Cancel { .. } | Message::Finish => return,
        };
        self.push(500, Ev::Core { node, agent, event: Box::new(event) });
    }

    /// Arms the one timer of the fence.
    pub(super) fn arm_fence(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.supervisor.timer += 1;
        let (supervisor, timer) = (n.supervisor.incarnation, n.supervisor.timer);
        if let Some(at) = n.supervisor.fence.next_timer()
            && let Some(when) = n.clock.when(self.now, Boot(at))
        {
            let late = self.draws.below(For::Process, node, 2_000);
            self.push(when - self.now + late, Ev::Fence { node, supervisor, timer });
        }
    }

    pub(super) fn fence_timer(&mut self, node: usize, supervisor: u32, timer: u32) {
        let now = self.now;
        let n = &mut self.nodes[node];
        if !n.supervisor.up || n.supervisor.incarnation != supervisor || n.supervisor.timer != timer {
            return;
        }
        let boot = n.clock.boot(now).0;
        let server = n.server.incarnation;
        match n.supervisor.fence.due(boot) {
            _ if mutants::on(Mutant::FenceKillsNothing) => {}
            FenceAction::Nothing => {}
            FenceAction::Quit { .. } => {
                self.line(|w| format!("  {} fence: SIGQUIT", w.nodes[node].name));
                self.tell(node, 200, Event::Fencing);
                // Most end at once; some have to be killed.
                let hangs = self.draws.chance(For::Process, node, 50);
                let after =
                    if hangs { QUIT_TO_KILL_US * 3 } else { self.draws.between(For::Process, node, 3, 60) * MS };
                self.nodes[node].server.dying = true;
                self.push(after, Ev::Server { node, server, what: ServerEv::Dead(true) });
            }
            FenceAction::Kill => {
                let after = self.draws.between(For::Process, node, 1, 20) * MS;
                self.push(after, Ev::Server { node, server, what: ServerEv::Dead(true) });
            }
        }
        self.arm_fence(node);
    }

    /// Asks the fence, and sets its latch.
    pub(super) fn may_start(&mut self, node: usize, role: Role) -> Result<(), TaskError> {
        let boot = self.nodes[node].clock.boot(self.now).0;
        let fence = &mut self.nodes[node].supervisor.fence;
        let allowed = match role {
            Role::Primary => fence.promoting(boot),
            Role::Standby => fence.starting(Role::Standby, boot),
        };
        if allowed.is_err() {
            return Err(TaskError::NoPermit);
        }
        self.arm_fence(node);
        self.check_permits(node);
        Ok(())
    }

    /// The container of PostgreSQL is gone with all its processes, and comes again.
    pub(super) fn container_dies(&mut self, node: usize) {
        if !self.nodes[node].supervisor.up {
            return;
        }
        self.fail_run(node);
        self.server_vanishes(node);
        let n = &mut self.nodes[node];
        n.supervisor.up = false;
        n.supervisor.incarnation += 1;
        let pod = n.pod;
        self.tell(node, 100, Event::Detached);
        self.container_ended(node);
        let after = self.draws.between(For::Process, node, 200, 3_000) * MS;
        self.push(after, Ev::SupervisorStart { node, pod });
    }

    pub(super) fn supervisor_start(&mut self, node: usize, pod: u32) {
        let n = &self.nodes[node];
        if n.pod != pod || !n.up || n.supervisor.up || n.deleting {
            return;
        }
        self.new_supervisor(node);
        self.attach(node);
    }

    /// One that permits nothing.
    pub(super) fn new_supervisor(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let receivers = n.server.receivers;
        n.server = Server::down(n.server.incarnation + 1, receivers);
        n.supervisor.up = true;
        n.supervisor.incarnation += 1;
        n.supervisor.timer += 1;
        n.supervisor.fence = Fence::new();
        n.supervisor.terminating = false;
        debug_assert!(n.server.pm == Pm::Down);
    }
}
