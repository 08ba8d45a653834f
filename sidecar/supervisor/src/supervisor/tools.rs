//! Programs and file operations that run beside the server, each a child.

use std::path::PathBuf;

use matriarch_supervisor::protocol::{Answer, FileOp, Refusal, Run, Tool, UserCommand};

use super::{Supervisor, no_postgres, refused};
use crate::child::{Caller, Child, Kind};
use crate::job::{Job, Launch};
use crate::sys::Signal;
use crate::{paths, programs, sys};

/// From a cancelled program's SIGTERM to its SIGKILL.
const CANCEL_US: u64 = 5_000_000;
/// Programs and file operations at one time.
const MAX_CHILDREN: usize = 64;

impl Supervisor {
    pub(super) fn run_tool(&mut self, caller: Caller, run: Run) -> Option<Answer> {
        if let Some(why) = programs::refused(&run) {
            return Some(refused(Refusal::Invalid, why));
        }
        let Some(found) = &self.programs else { return Some(no_postgres()) };
        let lock = programs::writes_into(&run);
        if let Some(data_dir) = &lock
            && let Err(error) = paths::written(&self.options.volume, data_dir)
        {
            return Some(refused(Refusal::Invalid, error.to_string()));
        }
        let job = Job::Launch(Launch {
            program: found.path(&run.program),
            args: run.args,
            env: programs::environment(&run.env),
            stdin: run.stdin,
            volume: self.options.volume.clone(),
            lock: lock.clone(),
            role: None,
        });
        let tool = Tool { call: caller.id, program: run.program, data_dir: lock };
        self.spawn(Kind::Tool, caller, &job, Some(tool))
    }

    pub(super) fn run_command(&mut self, caller: Caller, command: UserCommand) -> Option<Answer> {
        if let Some(why) = programs::refused_command(&command) {
            return Some(refused(Refusal::Invalid, why));
        }
        if let Some(data_dir) = &command.data_dir
            && let Err(error) = paths::written(&self.options.volume, data_dir)
        {
            return Some(refused(Refusal::Invalid, error.to_string()));
        }
        let mut argv = command.argv.into_iter();
        let program = argv.next().unwrap_or_default();
        let job = Job::Launch(Launch {
            program: PathBuf::from(&program),
            args: argv.collect(),
            env: programs::command_environment(&command.env, self.programs.as_ref().map(|found| found.dir.as_path())),
            stdin: String::new(),
            volume: self.options.volume.clone(),
            lock: command.data_dir.clone(),
            role: None,
        });
        self.spawn(Kind::Tool, caller, &job, Some(Tool { call: caller.id, program, data_dir: command.data_dir }))
    }

    pub(super) fn file(&mut self, caller: Caller, op: FileOp) -> Option<Answer> {
        let written: Vec<_> = match &op {
            FileOp::Rename { from, to } => vec![from, to],
            FileOp::Read { path }
            | FileOp::Write { path, .. }
            | FileOp::WriteHex { path, .. }
            | FileOp::Remove { path }
            | FileOp::RemoveTree { path }
            | FileOp::List { path } => vec![path],
        };
        let config_dir = match &op {
            FileOp::Read { .. } | FileOp::Write { .. } => self.options.config_dir.as_deref(),
            _ => None,
        };
        let mut clean = Vec::new();
        for path in written {
            match paths::written(paths::root(&self.options.volume, config_dir, path), path) {
                Ok(path) => clean.push(path),
                Err(error) => return Some(refused(Refusal::Invalid, error.to_string())),
            }
        }
        // The lock says the same of other supervisors; this also knows of folders above and below.
        let moves_away = matches!(op, FileOp::RemoveTree { .. } | FileOp::Rename { .. });
        let busy = |path: &PathBuf| {
            self.running.as_ref().is_some_and(|running| {
                running.data_dir.starts_with(path)
                    || (matches!(op, FileOp::RemoveTree { .. }) && path.starts_with(&running.data_dir))
            })
        };
        if moves_away && clean.iter().any(busy) {
            return Some(refused(Refusal::WrongState, "a postmaster runs in there"));
        }
        let job = Job::File { volume: self.options.volume.clone(), config_dir: self.options.config_dir.clone(), op };
        self.spawn(Kind::File, caller, &job, None)
    }

    pub(super) fn spawn(&mut self, kind: Kind, caller: Caller, job: &Job, tool: Option<Tool>) -> Option<Answer> {
        if self.children.len() >= MAX_CHILDREN {
            return Some(refused(Refusal::Io, format!("{MAX_CHILDREN} programs and file operations run already")));
        }
        match Child::spawn(kind, caller, job, tool) {
            Ok(child) => {
                self.children.insert(child.pid, child);
                None
            }
            Err(error) => Some(refused(Refusal::Io, format!("cannot start a process: {error}"))),
        }
    }

    pub(super) fn cancel(&mut self, caller: Caller, now: u64) -> Answer {
        let can_be = |child: &&mut Child| child.caller.id == caller.id && matches!(child.kind, Kind::Tool | Kind::File);
        // Its own first; else what an agent before it left running.
        let own = self.children.values().any(|child| child.caller == caller);
        let mut found = self.children.values_mut().filter(can_be);
        let own = found.find(|child| !own || child.caller == caller);
        match own {
            Some(child) => {
                child.kill_at = child.kill_at.or(Some(now.saturating_add(CANCEL_US)));
                sys::signal_group(child.pid, Signal::SIGTERM);
                sys::signal(child.pid, Signal::SIGTERM);
                Answer::Ok
            }
            None => refused(Refusal::WrongState, format!("no call {} runs a program", caller.id)),
        }
    }
}
