//! What the agent asks for: starting, promoting, stopping the server.

use matriarch_ha::fence::Role;
use matriarch_supervisor::protocol::{Answer, Postmaster, Refusal, Request, Start, StartRole};

use super::{Running, Supervisor, fenced, no_postgres, refused};
use crate::child::{Caller, Child, Kind};
use crate::job::{Job, Launch};
use crate::sys::Signal;
use crate::{paths, processes, programs, sys};

impl Supervisor {
    /// Does what was asked.
    pub fn on_calls(&mut self, now: u64) {
        for (caller, request) in std::mem::take(&mut self.calls) {
            if let Some(answer) = self.call(caller, request, now) {
                self.reply(caller, answer);
            }
        }
    }

    /// The answer, or none where it comes later.
    pub(super) fn call(&mut self, caller: Caller, request: Request, now: u64) -> Option<Answer> {
        match request {
            Request::Status => Some(Answer::Status(self.status())),
            Request::Start(start) => self.start(caller, start, now),
            Request::Stop { mode, timeout_ms } => match &mut self.running {
                None => Some(refused(Refusal::WrongState, "no postmaster runs")),
                Some(running) => {
                    running.stoppers.push(caller);
                    let step = self.stopping.stop(mode, timeout_ms, now);
                    self.step(step);
                    None
                }
            },
            Request::Promote => self.promote(caller, now),
            Request::Reload => Some(self.reload()),
            Request::Guard { watchdog } => {
                self.watchdog.configure(watchdog);
                Some(Answer::Ok)
            }
            Request::Run(run) => self.run_tool(caller, run),
            Request::Command(command) => self.run_command(caller, command),
            Request::Cancel { call } => Some(self.cancel(Caller { id: call, ..caller }, now)),
            Request::File(op) => self.file(caller, op),
            Request::Finish => match &mut self.termination {
                None => Some(refused(Refusal::WrongState, "no SIGTERM was received")),
                Some(termination) => {
                    termination.leaving = true;
                    self.reply(caller, Answer::Ok);
                    self.leave(now);
                    None
                }
            },
            // Obeyed on arrival.
            Request::Hello { .. } | Request::Permit { .. } | Request::LiftFence { .. } => None,
        }
    }

    pub(super) fn start(&mut self, caller: Caller, start: Start, now: u64) -> Option<Answer> {
        if self.termination.is_some() {
            return Some(refused(Refusal::WrongState, "the pod is being stopped"));
        }
        if let Some(running) = &self.running {
            let pid = running.postmaster.pid;
            return Some(refused(Refusal::WrongState, format!("a postmaster runs or is ending: process {pid}")));
        }
        let Some(programs) = &self.programs else { return Some(no_postgres()) };
        let data_dir = match paths::written(&self.options.volume, &start.data_dir) {
            Ok(data_dir) => data_dir,
            Err(error) => return Some(refused(Refusal::Invalid, error.to_string())),
        };
        let zero = |text: &String| text.contains('\0');
        if start.args.iter().any(zero) || start.env.iter().any(|(name, value)| zero(name) || zero(value)) {
            return Some(refused(Refusal::Invalid, "a zero byte in an argument or a variable"));
        }
        let job = Job::Launch(Launch {
            program: programs.path("postgres"),
            args: start.args,
            env: programs::environment(&start.env),
            stdin: String::new(),
            volume: self.options.volume.clone(),
            lock: Some(data_dir.clone()),
            role: Some(start.role),
        });
        let role = match start.role {
            StartRole::Primary => Role::Primary,
            StartRole::Standby => Role::Standby,
        };
        // The latch comes first: whatever hangs from here on, at the deadline nothing of it is left.
        if let Err(error) = self.fence.starting(role, now) {
            return Some(fenced(error));
        }
        if start.role == StartRole::Primary
            && let Err(why) = self.arm()
        {
            self.fence.exited();
            return Some(refused(Refusal::Watchdog, why));
        }
        let child = match Child::spawn(Kind::Postmaster, caller, &job, None) {
            Ok(child) => child,
            Err(error) => {
                self.fence.exited();
                self.watchdog.disarm();
                return Some(refused(Refusal::Io, format!("cannot start a process: {error}")));
            }
        };
        let pid = child.pid;
        self.running = Some(Running {
            postmaster: Postmaster {
                pid: u32::try_from(pid).unwrap_or(0),
                start_ticks: processes::start_ticks(pid).unwrap_or(0),
                role: start.role,
                started_us: now,
            },
            data_dir,
            starter: Some(caller),
            executed: false,
            refusal: None,
            ended: None,
            stoppers: Vec::new(),
            adopted: false,
        });
        self.children.insert(pid, child);
        self.talk(pid, now);
        None
    }

    /// The running postmaster, if it listens to `signal`: before its handlers are there, a signal would end it.
    pub(super) fn listening(&self, signal: Signal) -> Result<&Running, &'static str> {
        let running = self.running.as_ref().filter(|running| running.ended.is_none());
        let running = running.ok_or("no postmaster runs")?;
        if running.executed && processes::catches(running.pid(), signal as i32) {
            Ok(running)
        } else {
            Err("the postmaster is only just starting")
        }
    }

    pub(super) fn promote(&mut self, caller: Caller, now: u64) -> Option<Answer> {
        if self.termination.is_some() {
            return Some(refused(Refusal::WrongState, "the pod is being stopped"));
        }
        let data_dir = match self.listening(Signal::SIGUSR1) {
            Ok(running) if running.adopted || running.postmaster.role == StartRole::Standby => running.data_dir.clone(),
            Ok(_) => return Some(refused(Refusal::WrongState, "it was started as primary")),
            Err(why) => return Some(refused(Refusal::WrongState, why)),
        };
        let armed = self.watchdog.armed();
        if let Err(why) = self.arm() {
            return Some(refused(Refusal::Watchdog, why));
        }
        if let Err(error) = self.fence.promoting(now) {
            if !armed {
                self.watchdog.disarm();
            }
            return Some(fenced(error));
        }
        let job = Job::AskPromotion { volume: self.options.volume.clone(), data_dir };
        self.spawn(Kind::Promotion, caller, &job, None)
    }

    pub(super) fn arm(&mut self) -> Result<(), String> {
        if let Some(text) = self.watchdog.arm()? {
            self.log.line(&text);
        }
        Ok(())
    }

    pub(super) fn reload(&self) -> Answer {
        match self.listening(Signal::SIGHUP) {
            Ok(running) => {
                sys::signal(running.pid(), Signal::SIGHUP);
                Answer::Ok
            }
            Err(why) => refused(Refusal::WrongState, why),
        }
    }
}
