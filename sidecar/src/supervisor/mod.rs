//! The client of the supervisor: one connection over its unix socket, made anew whenever it ends.
//!
//! Calls fail at once while there is no connection: the core, which hears `Detached` and `Attached`, decides what to do
//! again. Permits overtake every call that still waits to be written.

pub mod config_dir;
mod connection;
pub mod launch;
pub mod runs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use matriarch_ha::event::Event;
use matriarch_ha::types::Boot;
use matriarch_supervisor::protocol::{Answer, Call, FileOp, Refusal, Request, Start, StopMode};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};

use launch::Launcher;
use runs::Output;

/// Why a call was not done.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// There is no connection, or it ended before the answer: whether it was done is unknown.
    #[error("the supervisor cannot be reached")]
    Detached,
    /// The supervisor said no.
    #[error("{message}")]
    Refused {
        /// Why, for code.
        kind: Refusal,
        /// Why, for people.
        message: String,
    },
    /// An answer that belongs to another question.
    #[error("the supervisor answered {0}, which is no answer to the question")]
    Unexpected(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

/// What the callers and the connection share.
struct Shared {
    state: Mutex<State>,
    /// A run has ended, or the connection.
    ended: Notify,
    events: UnboundedSender<Event>,
    /// Who starts the supervisor when there is none; none: somebody else does.
    launcher: Option<Launcher>,
}

#[derive(Default)]
struct State {
    /// Where frames go while a connection is there.
    line: Option<Line>,
    next_id: u64,
    /// Major version of PostgreSQL.
    major: Option<u32>,
    /// The supervisor's process, where it lives in our pid namespace.
    pid: Option<i32>,
    pending: BTreeMap<u64, Pending>,
}

/// The two queues of a connection.
struct Line {
    urgent: UnboundedSender<Vec<u8>>,
    calls: UnboundedSender<Vec<u8>>,
}

/// A call that waits for its answer.
struct Pending {
    /// Closed when nobody waits any more.
    answer: oneshot::Sender<(Answer, Output)>,
    /// A program's output until now.
    output: Option<Output>,
    /// A task waits for its end.
    counts: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and the state is valid between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// Connects to `socket` and goes on doing so; what the supervisor says goes to `events`.
    pub fn connect(socket: PathBuf, events: UnboundedSender<Event>) -> Self {
        Self::launch_and_connect(socket, events, None)
    }

    /// The same; `launcher` starts the supervisor whenever there is none.
    pub fn launch_and_connect(socket: PathBuf, events: UnboundedSender<Event>, launcher: Option<Launcher>) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), ended: Notify::new(), events, launcher });
        tokio::spawn(connection::keep(socket, Arc::downgrade(&shared)));
        Self { shared }
    }

    /// Major version of the image's PostgreSQL, as told at the last handshake.
    pub fn major_version(&self) -> Option<u32> {
        self.shared.state().major
    }

    /// Sends a permit ahead of everything else; lost when there is no connection (`Attached` tells what holds).
    pub fn permit(&self, seq: u64, deadline: Option<Boot>) {
        let request = match deadline {
            Some(Boot(deadline_us)) => Request::Permit { seq, deadline_us },
            None => Request::LiftFence { seq },
        };
        let answer = self.send(request, None, true);
        let events = self.shared.events.clone();
        tokio::spawn(async move {
            if let Ok((_, answer)) = answer {
                match answer.await {
                    Ok((Answer::Refused { message, .. }, _)) => {
                        tracing::warn!(permit.seq = seq, "the supervisor refused a permit: {message}");
                    }
                    // Fails only when the loop has ended.
                    Ok(_) => drop(events.send(Event::Permitted { seq })),
                    Err(_) => tracing::warn!(permit.seq = seq, "the supervisor went away before it answered a permit"),
                }
            } else {
                tracing::warn!(permit.seq = seq, "no supervisor to give a permit to");
            }
        });
    }

    /// Any call but `Run`.
    pub async fn call(&self, request: Request) -> Result<Answer, CallError> {
        let (_, answer) = self.send(request, None, false)?;
        match answer.await.map_err(|_| CallError::Detached)?.0 {
            Answer::Refused { kind, message } => Err(CallError::Refused { kind, message }),
            answer => Ok(answer),
        }
    }

    /// A call that is answered by `Ok` alone.
    pub async fn done(&self, request: Request) -> Result<(), CallError> {
        match self.call(request).await? {
            Answer::Ok => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The text of a file below the volume; none: there is no such file.
    pub async fn read(&self, path: PathBuf) -> Result<Option<String>, CallError> {
        match self.call(Request::File(FileOp::Read { path })).await? {
            Answer::Content { content } => Ok(content),
            other => Err(unexpected(&other)),
        }
    }

    /// The names in a folder below the volume; none: there is no such folder.
    pub async fn list(&self, path: PathBuf) -> Result<Option<Vec<String>>, CallError> {
        match self.call(Request::File(FileOp::List { path })).await? {
            Answer::Names { names } => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    /// A file operation that is answered by `Ok`.
    pub async fn file(&self, op: FileOp) -> Result<(), CallError> {
        self.done(Request::File(op)).await
    }

    /// Whole content of a file, atomically.
    pub async fn write(&self, path: PathBuf, content: String, mode: u32) -> Result<(), CallError> {
        self.file(FileOp::Write { path, content, mode }).await
    }

    /// Starts the postmaster; tells its pid.
    pub async fn start(&self, start: Start) -> Result<u32, CallError> {
        match self.call(Request::Start(start)).await? {
            Answer::Started { postmaster } => Ok(postmaster.pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops the postmaster and all its processes.
    pub async fn stop(&self, mode: StopMode, timeout_ms: u64) -> Result<(), CallError> {
        self.done(Request::Stop { mode, timeout_ms }).await
    }

    /// Tells the supervisor that all is to end, as a kubelet does; what has to be done before is the core's to say. False: no
    /// supervisor is connected.
    pub fn terminate(&self) -> bool {
        let pid = self.shared.state().pid.and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok())
    }

    /// There is nothing left to do in this pod.
    pub async fn finish(&self) -> Result<(), CallError> {
        self.done(Request::Finish).await
    }

    /// Queues a call.
    fn send(
        &self,
        request: Request,
        output: Option<Output>,
        urgent: bool,
    ) -> Result<(u64, oneshot::Receiver<(Answer, Output)>), CallError> {
        let mut state = self.shared.state();
        let Some(line) = &state.line else { return Err(CallError::Detached) };
        let id = state.next_id;
        let frame = matriarch_supervisor::frame::encode(&Call { id, request })
            .map_err(|error| CallError::Refused { kind: Refusal::Invalid, message: error.to_string() })?;
        let queue = if urgent { &line.urgent } else { &line.calls };
        queue.send(frame).map_err(|_| CallError::Detached)?;
        let (answer, receiver) = oneshot::channel();
        state.next_id += 1;
        let counts = output.is_some();
        state.pending.insert(id, Pending { answer, output, counts });
        Ok((id, receiver))
    }
}

fn unexpected(answer: &Answer) -> CallError {
    CallError::Unexpected(format!("{answer:?}"))
}
