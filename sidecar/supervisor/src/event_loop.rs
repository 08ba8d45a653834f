//! The poll loop: who is asked, in which order, and for how long.
//!
//! Order within a turn: permits that have arrived, then the fence, then all the rest. A container that thaws with a
//! newer permit in its socket goes on; one without is fenced before anything else happens.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

use crate::connection::Connection;
use crate::supervisor::{Options, Supervisor};
use crate::sys::{self, Signal, Timer};

/// Connections that have not said Hello. More than one agent is a mistake anyway.
const MAX_CONNECTIONS: usize = 8;

/// Why the supervisor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// At the start.
    #[error("cannot {what}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The socket's path.
    #[error("cannot listen on {path}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It would take over the socket of one that watches over a server.
    #[error("another supervisor has {socket}")]
    Another {
        /// Where.
        socket: PathBuf,
    },
    /// The kernel refuses to say what happens: nothing can be fenced any more, so nothing may go on.
    #[error("cannot wait for events")]
    Poll(#[source] io::Error),
}

fn setup(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Setup { what, source }
}

/// Whose descriptor was polled.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Timer,
    Listener,
    Connection(u64),
    Channel(i32),
    Output(i32, usize),
}

/// Until nothing is left to do.
pub fn run(options: Options) -> Result<(), RunError> {
    // Signals first: one that comes now waits in the descriptor.
    let signals = sys::signals().map_err(setup("receive signals"))?;
    sys::heed_stops().map_err(setup("receive signals"))?;
    let _alone = if options.detached { Some(detach(&options.socket)?) } else { None };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| setup("become a subreaper")(errno.into()))?;
    let timer = Timer::new().map_err(setup("make a timer"))?;
    let listener = listen(&options.socket)?;
    let supervisor = Supervisor::new(options).map_err(setup("learn about this machine"))?;
    Loop { signals, timer, listener, supervisor, next_connection: 1 }.run()
}

/// Leaves the session of whoever started us, and takes the lock that belongs to the socket: it lives as long as we do.
fn detach(socket: &Path) -> Result<File, RunError> {
    // Refused where we lead a process group already, which is as good.
    let _ = rustix::process::setsid();
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let lock = sys::lock(Path::new(&path), true).map_err(setup("lock the socket"))?;
    lock.ok_or_else(|| RunError::Another { socket: socket.to_owned() })
}

fn listen(path: &PathBuf) -> Result<UnixListener, RunError> {
    let failed = |source| RunError::Listen { path: path.clone(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The agent is another user, of the same group; who connects is checked as well.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

struct Loop {
    signals: SignalFd,
    timer: Timer,
    listener: UnixListener,
    supervisor: Supervisor,
    next_connection: u64,
}

impl Loop {
    fn run(mut self) -> Result<(), RunError> {
        loop {
            let ready = self.wait()?;
            // What has come in, permits first, then time, then the rest.
            for (source, _) in &ready {
                if let Source::Connection(id) = source {
                    self.supervisor.receive(*id);
                }
            }
            self.timer.take();
            self.supervisor.on_time(sys::now_us());
            self.supervisor.on_calls(sys::now_us());
            for (source, flags) in ready {
                self.serve(source, flags);
            }
            self.supervisor.reap(sys::now_us());
            self.supervisor.tidy();
            if self.supervisor.finished() {
                return Ok(());
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> Result<Vec<(Source, PollFlags)>, RunError> {
        self.timer.arm(self.supervisor.next_timer()).map_err(RunError::Poll)?;
        let mut sources = vec![Source::Signals, Source::Timer, Source::Listener];
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(self.timer.fd(), PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for connection in self.supervisor.connections() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, connection.wants_input());
            flags.set(PollFlags::OUT, connection.wants_output());
            sources.push(Source::Connection(connection.id));
            fds.push(PollFd::new(connection.stream(), flags));
        }
        let room = self.supervisor.has_room();
        for child in self.supervisor.children() {
            if let Some(channel) = &child.channel {
                let mut flags = PollFlags::IN;
                flags.set(PollFlags::OUT, child.wants_output());
                sources.push(Source::Channel(child.pid));
                fds.push(PollFd::new(&channel.socket, flags));
            }
            for (index, output) in child.outputs.iter().enumerate() {
                if let Some(output) = output.as_ref().filter(|_| room) {
                    sources.push(Source::Output(child.pid, index));
                    fds.push(PollFd::new(&output.pipe, PollFlags::IN));
                }
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(RunError::Poll(errno.into())),
        }
        let ready = fds.iter().map(PollFd::revents);
        Ok(sources.into_iter().zip(ready).filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn serve(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Signals => {
                // Children are reaped in every turn, whatever this says.
                while let Ok(Some(info)) = self.signals.read_signal() {
                    if info.ssi_signo != Signal::SIGCHLD as u32 {
                        self.supervisor.terminate(sys::now_us());
                    }
                }
            }
            Source::Timer => {}
            Source::Listener => self.accept(),
            Source::Connection(id) => {
                if flags.contains(PollFlags::OUT) {
                    self.supervisor.flush(id);
                }
            }
            Source::Channel(pid) => self.supervisor.talk(pid, sys::now_us()),
            Source::Output(pid, index) => self.supervisor.output(pid, index),
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let connection = Connection::new(self.next_connection, stream);
        self.next_connection += 1;
        if let Ok(connection) = connection {
            self.supervisor.connected(connection, MAX_CONNECTIONS);
        }
    }
}
