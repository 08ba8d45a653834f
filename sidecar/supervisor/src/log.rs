//! Lines for the container's log, without ever waiting for whoever reads it: a container runtime that hangs must not
//! hang the fence.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    /// Standard error opened once more, so that it does not block without changing what the postmaster inherits. Not
    /// possible where standard error is a socket, or belongs to another user.
    own: Option<File>,
}

impl Log {
    /// Opens it.
    pub fn new() -> Self {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let own = OpenOptions::new().append(true).custom_flags(flags).open("/proc/self/fd/2").ok();
        Self { own }
    }

    /// Writes one line, or loses it.
    pub fn line(&self, text: &str) {
        let mut line = format!("matriarch-supervisor: {text}");
        line.truncate(line.floor_char_boundary(4000));
        line.push('\n');
        if let Some(own) = &self.own {
            let _ = (&*own).write(line.as_bytes());
            return;
        }
        let stderr = std::io::stderr();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now));
        // A pipe that is ready takes 4096 bytes at once.
        if ready == Ok(1) {
            let _ = stderr.lock().write(line.as_bytes());
        }
    }
}
