//! The agent's end: who may connect, who is obeyed, what is said to whom.

use matriarch_supervisor::protocol::{Answer, Hello, Message, Notice, OLDEST, PROTOCOL, Refusal, Request};

use super::{Supervisor, fenced, refused};
use crate::child::{Caller, Child};
use crate::connection::{Connection, Incoming};
use crate::sys;

impl Supervisor {
    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    /// All children.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.children.values()
    }

    /// Whether programs may write more. Without an agent their output is read and lost.
    pub fn has_room(&self) -> bool {
        self.agent.is_none_or(|id| {
            self.connections.iter().find(|connection| connection.id == id).is_none_or(Connection::has_room)
        })
    }

    /// Somebody connected: only the agent's user is heard.
    pub fn connected(&mut self, connection: Connection, max: usize) {
        match sys::peer_uid(connection.stream()) {
            Ok(uid) if uid == self.options.agent_uid => {}
            Ok(uid) => return self.log.line(&format!("refused a connection of user {uid}")),
            Err(_) => return,
        }
        if self.connections.len() >= max {
            let oldest = self.connections.iter().position(|connection| Some(connection.id) != self.agent);
            if let Some(oldest) = oldest {
                self.connections.remove(oldest);
            }
        }
        self.connections.push(connection);
    }

    pub(super) fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// Takes what has arrived on a connection. Permits are obeyed at once, other calls wait for [`Self::on_calls`].
    pub fn receive(&mut self, id: u64) {
        let Some(connection) = self.connection(id) else { return };
        for incoming in connection.receive() {
            self.incoming(id, incoming);
        }
    }

    pub(super) fn incoming(&mut self, id: u64, incoming: Incoming) {
        let greeted = self.agent == Some(id);
        if greeted {
            self.last_heard = sys::now_us();
        }
        match incoming {
            Incoming::Bad(call, message) => {
                if let Some(call) = call {
                    self.reply(Caller { connection: id, id: call }, refused(Refusal::Invalid, message));
                }
                if !greeted && let Some(connection) = self.connection(id) {
                    connection.close();
                }
            }
            Incoming::Call(call) => {
                let caller = Caller { connection: id, id: call.id };
                match call.request {
                    Request::Hello { protocol, boot_id, .. } => self.hello(caller, protocol, &boot_id),
                    _ if !greeted => {
                        self.reply(caller, refused(Refusal::Invalid, "the first call is Hello"));
                        if let Some(connection) = self.connection(id) {
                            connection.close();
                        }
                    }
                    Request::Permit { seq, deadline_us } => {
                        let answer = self.fence.permit(seq, deadline_us).map_or_else(fenced, |()| Answer::Ok);
                        self.latch_adopted();
                        self.reply(caller, answer);
                        let now = sys::now_us();
                        if self.fence.latched() && self.fence.may_write(now).is_ok() {
                            // After a pause it is armed anew.
                            self.arm().unwrap_or_else(|why| self.log.line(&why));
                            self.watchdog.alive();
                        }
                    }
                    Request::LiftFence { seq } => {
                        let answer = self.fence.lift(seq).map_or_else(fenced, |()| Answer::Ok);
                        if answer == Answer::Ok {
                            self.watchdog.disarm();
                        }
                        self.latch_adopted();
                        self.reply(caller, answer);
                    }
                    request => self.calls.push((caller, request)),
                }
            }
        }
    }

    pub(super) fn hello(&mut self, caller: Caller, protocol: u32, boot_id: &str) {
        let problem = if protocol < OLDEST {
            Some(format!("protocol {protocol} is too old: versions {OLDEST} to {PROTOCOL} are understood"))
        } else if boot_id.trim() == self.boot_id {
            None
        } else {
            Some(format!("boot id {boot_id} is not {}: clocks cannot be compared", self.boot_id))
        };
        if let Some(problem) = problem {
            self.reply(caller, refused(Refusal::Invalid, problem));
            if let Some(connection) = self.connection(caller.connection) {
                connection.close();
            }
            return;
        }
        if self.agent != Some(caller.connection) {
            self.log.line("an agent attached");
            self.connections
                .retain(|connection| connection.id == caller.connection || Some(connection.id) != self.agent);
            self.calls.retain(|(other, _)| other.connection == caller.connection);
            self.agent = Some(caller.connection);
        }
        self.last_heard = sys::now_us();
        if let Some(connection) = self.connection(caller.connection) {
            connection.greeted = true;
        }
        let hello = Hello {
            protocol: PROTOCOL,
            instance: self.instance.clone(),
            boot_id: self.boot_id.clone(),
            now_us: sys::now_us(),
            bin_dir: self.programs.as_ref().map(|programs| programs.dir.clone()),
            version: self.version.clone(),
            status: self.status(),
        };
        self.reply(caller, Answer::Hello(hello));
    }

    pub(super) fn reply(&mut self, caller: Caller, answer: Answer) {
        if let Some(connection) = self.connection(caller.connection) {
            connection.send(&Message::Reply { id: caller.id, answer });
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        if let Some(agent) = self.agent.and_then(|id| self.connection(id)) {
            agent.send(&Message::Notice(notice));
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self, id: u64) {
        if let Some(connection) = self.connection(id) {
            connection.flush();
        }
    }

    /// Drops connections that are over.
    pub fn tidy(&mut self) {
        self.connections.retain(|connection| !connection.ended());
        if let Some(agent) = self.agent
            && self.connection(agent).is_none()
        {
            self.log.line("the agent is gone");
            self.agent = None;
        }
    }
}
