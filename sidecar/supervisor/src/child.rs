//! A child of the supervisor: how it is started, what it says and what it writes, never waiting for it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use matriarch_supervisor::frame::{self, Decoder};
use matriarch_supervisor::protocol::{Answer, Stream, Tool};

use crate::job::{COMMAND, Job, Outcome};

/// Text taken from a program in one turn of the loop; JSON makes at most six times as much of it.
const PIECE: usize = 16 * 1024;

/// Whose child it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The postmaster, or what is about to become it.
    Postmaster,
    /// A program of PostgreSQL's.
    Tool,
    /// A file operation.
    File,
    /// The file half of a promotion; the process to be signalled then.
    Promotion,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The connection.
    pub connection: u64,
    /// The call's id.
    pub id: u64,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    /// Its process.
    pub pid: i32,
    /// Whose.
    pub kind: Kind,
    /// Who waits for it.
    pub caller: Caller,
    /// What of a program the status shows.
    pub tool: Option<Tool>,
    /// It became the program.
    pub executed: bool,
    /// What it answered.
    pub answer: Option<Answer>,
    /// When it gets SIGKILL.
    pub kill_at: Option<u64>,
    /// The socket for its job; none once it is closed.
    pub channel: Option<Channel>,
    /// Its standard output and error.
    pub outputs: [Option<Output>; 2],
}

/// The supervisor's end of a child's socket.
#[derive(Debug)]
pub struct Channel {
    /// What to poll.
    pub socket: UnixStream,
    decoder: Decoder,
    job: Vec<u8>,
    sent: usize,
    executing: bool,
}

/// One standard stream of a tool.
#[derive(Debug)]
pub struct Output {
    /// What to poll.
    pub pipe: File,
    stream: Stream,
    /// The start of a character whose rest has not come yet.
    rest: Vec<u8>,
}

impl Child {
    /// Starts one. The output of a tool is wanted; others write where the supervisor does.
    pub fn spawn(kind: Kind, caller: Caller, job: &Job, tool: Option<Tool>) -> io::Result<Self> {
        let frame = frame::encode(job).map_err(io::Error::other)?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("matriarch-supervisor")
            .arg(COMMAND)
            .arg(std::process::id().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        if tool.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut spawned = command.spawn()?;
        let output = |fd: Option<OwnedFd>, stream| -> io::Result<Option<Output>> {
            let Some(fd) = fd else { return Ok(None) };
            rustix::io::ioctl_fionbio(&fd, true)?;
            Ok(Some(Output { pipe: File::from(fd), stream, rest: Vec::new() }))
        };
        let outputs = [
            output(spawned.stdout.take().map(OwnedFd::from), Stream::Stdout)?,
            output(spawned.stderr.take().map(OwnedFd::from), Stream::Stderr)?,
        ];
        let channel = Channel { socket: ours, decoder: Decoder::new(), job: frame, sent: 0, executing: false };
        let mut child = Self {
            pid: i32::try_from(spawned.id()).map_err(io::Error::other)?,
            kind,
            caller,
            tool,
            executed: false,
            answer: None,
            kill_at: None,
            channel: Some(channel),
            outputs,
        };
        child.talk();
        Ok(child)
    }

    /// Whether its job is not wholly sent.
    pub fn wants_output(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.sent < channel.job.len())
    }

    /// Sends what is left of the job and takes what it says.
    pub fn talk(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        while channel.sent < channel.job.len() {
            match channel.socket.write(channel.job.get(channel.sent..).unwrap_or(&[])) {
                Ok(length) => channel.sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // When it is gone, its end says the rest.
                Err(_) => break,
            }
        }
        if channel.sent == channel.job.len() {
            channel.job = Vec::new();
            channel.sent = 0;
        }
        let mut buffer = [0; 8192];
        loop {
            match channel.socket.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    channel.decoder.push(buffer.get(..length).unwrap_or(&[]));
                    while let Ok(Some(outcome)) = channel.decoder.next() {
                        match outcome {
                            Outcome::Executing => channel.executing = true,
                            Outcome::Answer(answer) => self.answer = Some(*answer),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => break,
            }
        }
        self.executed = channel.executing && self.answer.is_none();
        self.channel = None;
    }

    /// Takes the next piece of one stream; none: nothing now, or never again.
    pub fn read_output(&mut self, index: usize) -> Option<(Stream, String)> {
        let slot = self.outputs.get_mut(index)?;
        let output = slot.as_mut()?;
        let mut bytes = std::mem::take(&mut output.rest);
        let held = bytes.len();
        bytes.resize(held + PIECE, 0);
        let length = loop {
            match output.pipe.read(bytes.get_mut(held..).unwrap_or(&mut [])) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    bytes.truncate(held);
                    output.rest = bytes;
                    return None;
                }
                Ok(length) => break length,
                Err(_) => break 0,
            }
        };
        bytes.truncate(held + length);
        let stream = output.stream;
        if length == 0 {
            *slot = None;
        } else {
            output.rest = bytes.split_off(whole_characters(&bytes));
        }
        (!bytes.is_empty()).then(|| (stream, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// How many bytes do not end inside of a character.
fn whole_characters(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    let tail = bytes.get(start..).unwrap_or(&[]);
    let first = tail.iter().rposition(|byte| byte & 0xc0 != 0x80);
    match first.and_then(|at| Some((at, *tail.get(at)?))) {
        Some((at, lead)) => {
            let length = match lead {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf7 => 4,
                _ => 1,
            };
            if tail.len() - at < length { start + at } else { bytes.len() }
        }
        None => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole() {
        for text in ["", "a", "ä", "aä", "€", "a€", "🐘", "ab🐘"] {
            let bytes = text.as_bytes();
            assert_eq!(whole_characters(bytes), bytes.len(), "{text}");
            let last = text.chars().last().map_or(0, char::len_utf8);
            for cut in 1..last {
                assert_eq!(whole_characters(&bytes[..bytes.len() - cut]), bytes.len() - last, "{text} less {cut}");
            }
        }
        assert_eq!(whole_characters(&[0xff, 0x80, 0x80, 0x80, 0x80]), 5, "what is no text at all goes through");
    }
}
