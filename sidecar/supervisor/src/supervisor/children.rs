//! What children say, and their ends; the postmaster's above all.

use matriarch_supervisor::protocol::{Answer, Exited, Message, Notice, Refusal};

use super::{Running, Supervisor, refused};
use crate::child::Kind;
use crate::sys;
use crate::sys::Signal;

impl Supervisor {
    /// A child said something, or became its program.
    pub fn talk(&mut self, pid: i32, now: u64) {
        let Some(child) = self.children.get_mut(&pid) else { return };
        child.talk();
        if child.kind != Kind::Postmaster {
            return;
        }
        let (executed, answer) = (child.executed, child.answer.clone());
        let Some(running) = self.running.as_mut().filter(|running| running.pid() == pid) else { return };
        running.refusal = answer;
        if executed && !running.executed {
            running.executed = true;
            let postmaster = running.postmaster.clone();
            self.log.line(&format!(
                "postmaster {pid} started as {:?} after {} us",
                postmaster.role,
                now - postmaster.started_us
            ));
            if let Some(starter) = running.starter.take() {
                self.reply(starter, Answer::Started { postmaster });
            }
        }
    }

    /// A program wrote something.
    pub fn output(&mut self, pid: i32, index: usize) {
        let Some(child) = self.children.get_mut(&pid) else { return };
        let caller = child.caller;
        if let Some((stream, text)) = child.read_output(index)
            && let Some(connection) = self.connection(caller.connection)
        {
            connection.send(&Message::Output { id: caller.id, stream, text });
        }
    }

    /// Takes every child that ended, and says so once nothing of the postmaster is left.
    pub fn reap(&mut self, now: u64) {
        let childless = loop {
            match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid.as_raw_nonzero().get(), status, now),
                Ok(None) => break false,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break true,
            }
        };
        self.watch(now);
        let gone = |running: &Running| running.ended.is_some() && ((childless && !running.adopted) || self.none_left());
        if self.running.as_ref().is_some_and(gone) {
            self.exited(now);
        }
    }

    pub(super) fn ended(&mut self, pid: i32, status: rustix::process::WaitStatus, now: u64) {
        self.talk(pid, now);
        let Some(mut child) = self.children.remove(&pid) else { return };
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        let unanswered = || {
            refused(
                Refusal::Io,
                match (code, signal) {
                    (_, Some(signal)) => format!("the process for it was ended by signal {signal}"),
                    (code, None) => format!("the process for it ended with {}", code.unwrap_or(-1)),
                },
            )
        };
        match child.kind {
            Kind::Postmaster => {
                if let Some(running) = &mut self.running {
                    running.ended = Some((code, signal));
                    if !running.executed && running.refusal.is_none() {
                        running.refusal = Some(unanswered());
                    }
                }
                if !self.none_left() {
                    let step = self.stopping.orphaned(signal.is_some(), now);
                    self.step(step);
                }
            }
            Kind::Tool => {
                for index in [0, 1] {
                    while let Some((stream, text)) = child.read_output(index) {
                        if let Some(connection) = self.connection(child.caller.connection) {
                            connection.send(&Message::Output { id: child.caller.id, stream, text });
                        }
                    }
                }
                let answer = match child.answer {
                    Some(refusal) => refusal,
                    // Cancelled before it ran is cancelled as well.
                    None if child.executed || signal.is_some() => Answer::Done { code, signal },
                    None => unanswered(),
                };
                self.reply(child.caller, answer);
            }
            Kind::File => self.reply(child.caller, child.answer.unwrap_or_else(unanswered)),
            Kind::Promotion => {
                let mut answer = child.answer.unwrap_or_else(unanswered);
                if answer == Answer::Ok {
                    match self.listening(Signal::SIGUSR1) {
                        Ok(running) => sys::signal(running.pid(), Signal::SIGUSR1),
                        Err(why) => answer = refused(Refusal::WrongState, why),
                    }
                }
                self.reply(child.caller, answer);
            }
        }
    }

    pub(super) fn exited(&mut self, now: u64) {
        let Some(running) = self.running.take() else { return };
        let fenced = self.fence.closing();
        self.fence.exited();
        self.watchdog.disarm();
        self.stopping.exited();
        let (code, signal) = running.ended.unwrap_or((None, None));
        if let Some(starter) = running.starter {
            let refusal = running.refusal.unwrap_or_else(|| refused(Refusal::Io, "it ended before it ran"));
            self.reply(starter, refusal);
        }
        if running.executed || fenced {
            let exited = Exited { postmaster: running.postmaster, code, signal, fenced, at_us: now };
            self.log.line(&format!(
                "postmaster {} and all of its processes are gone: code {code:?}, signal {signal:?}, fenced {fenced}",
                exited.postmaster.pid
            ));
            self.last_exit = Some(exited.clone());
            self.notice(Notice::Exited(exited));
        }
        for stopper in running.stoppers {
            self.reply(stopper, Answer::Ok);
        }
    }
}
