//! What the supervisor asks of its own children: each is this very program again, with one job on its standard input.
//!
//! A job may wait for a disk that hangs; the supervisor does not. The child reads one frame with a [`Job`] from its
//! standard input, which is a socket, and answers there with [`Outcome`]s. For a launch it then becomes the program:
//! the socket closes with that, and the supervisor knows that the program runs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use matriarch_supervisor::frame::{self, Decoder};
use matriarch_supervisor::protocol::{Answer, FileOp, Refusal, StartRole};
use serde::{Deserialize, Serialize};

use crate::{files, launch, sys};

/// The first argument of a child.
pub const COMMAND: &str = "job";

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// Become a program.
    Launch(Launch),
    /// Touch files.
    File {
        /// Nothing outside of it.
        volume: PathBuf,
        /// But single files right in there.
        config_dir: Option<PathBuf>,
        /// What to do.
        op: FileOp,
    },
    /// Leave the file that tells PostgreSQL to promote, as `pg_ctl` does.
    AskPromotion {
        /// Nothing outside of it.
        volume: PathBuf,
        /// Where.
        data_dir: PathBuf,
    },
}

/// Which program to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Whole path.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Standard input.
    pub stdin: String,
    /// The data volume.
    pub volume: PathBuf,
    /// The data directory to lock, and to hold locked as long as the program or a child of it lives.
    pub lock: Option<PathBuf>,
    /// It is a postmaster: the data directory is checked and made ready.
    pub role: Option<StartRole>,
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// All is ready: the program is executed next. The end of the stream then says that it runs.
    Executing,
    /// It came to this.
    Answer(Box<Answer>),
}

/// The child's whole life. The exit code tells nothing; the answer does.
pub fn main(parent: Option<&str>) -> u8 {
    // Kept over execve, not over fork: the postmaster dies with the supervisor, and its children with the postmaster; a
    // file operation does not go on behind the back of the next supervisor. As process 1 of a container this changes
    // nothing, as the kernel kills all; elsewhere PostgreSQL must not live on without a fence.
    let dies_along = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_ok();
    if !dies_along || parent != Some(&std::os::unix::process::parent_id().to_string()) {
        return 1;
    }
    // The supervisor's are blocked: a child that hangs must be able to be cancelled.
    if sys::unblock_signals().is_err() {
        return 1;
    }
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return 1 };
    // This copy closes when the program is executed, the original when its own standard input takes its place.
    let mut socket = UnixStream::from(stdin);
    let outcome = match receive(&mut socket) {
        Some(Job::Launch(launch)) => launch::become_program(&launch, &mut socket),
        Some(Job::File { volume, config_dir, op }) => {
            files::run(&volume, config_dir.as_deref(), &op).unwrap_or_else(|error| error.answer())
        }
        Some(Job::AskPromotion { volume, data_dir }) => launch::ask_promotion(&volume, &data_dir),
        None => return 1,
    };
    u8::from(!tell(&mut socket, &Outcome::Answer(Box::new(outcome))))
}

fn receive(socket: &mut UnixStream) -> Option<Job> {
    let mut decoder = Decoder::new();
    let mut buffer = [0; 8192];
    loop {
        if let Some(job) = decoder.next().ok()? {
            return Some(job);
        }
        match socket.read(&mut buffer).ok()? {
            0 => return None,
            length => decoder.push(buffer.get(..length)?),
        }
    }
}

/// Sends one outcome.
pub fn tell(socket: &mut UnixStream, outcome: &Outcome) -> bool {
    let frame = frame::encode(outcome).or_else(|error| {
        frame::encode(&Outcome::Answer(Box::new(Answer::Refused { kind: Refusal::Io, message: error.to_string() })))
    });
    frame.is_ok_and(|frame| socket.write_all(&frame).is_ok())
}
