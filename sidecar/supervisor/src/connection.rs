//! One connection of an agent: whole frames in, bounded frames out, and never a wait.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use matriarch_supervisor::frame::{self, Decoder, FrameError};
use matriarch_supervisor::protocol::{Answer, Call, Message, Refusal};

/// Above this, programs have to wait with their output.
const ENOUGH: usize = 256 * 1024;
/// Above this the agent is taken for hanging, and loses its connection: nothing else is at stake.
const TOO_MUCH: usize = 2 * 1024 * 1024;
/// Bytes taken from a connection in one turn of the loop.
const TURN: usize = 64 * 1024;

/// An agent's connection.
#[derive(Debug)]
pub struct Connection {
    /// Never used twice.
    pub id: u64,
    /// Its Hello was accepted.
    pub greeted: bool,
    stream: UnixStream,
    decoder: Decoder,
    out: VecDeque<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing is read any more, and it ends when all is written.
    Closing,
    Dead,
}

/// A frame that came in.
#[derive(Debug)]
pub enum Incoming {
    /// A call.
    Call(Call),
    /// Something that is none, with the id where it had one.
    Bad(Option<u64>, String),
}

impl Connection {
    /// Takes over a stream.
    pub fn new(id: u64, stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (decoder, out) = (Decoder::new(), VecDeque::new());
        Ok(Self { id, greeted: false, stream, decoder, out, state: State::Open })
    }

    /// What to poll.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether calls are taken.
    pub fn wants_input(&self) -> bool {
        self.state == State::Open
    }

    /// Whether something waits to be written.
    pub fn wants_output(&self) -> bool {
        self.state != State::Dead && !self.out.is_empty()
    }

    /// Whether more output of programs is welcome.
    pub fn has_room(&self) -> bool {
        self.out.len() < ENOUGH
    }

    /// Whether it is over.
    pub fn ended(&self) -> bool {
        self.state == State::Dead || (self.state == State::Closing && self.out.is_empty())
    }

    /// Takes what has arrived.
    pub fn receive(&mut self) -> Vec<Incoming> {
        let mut calls = Vec::new();
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while self.state == State::Open && taken < TURN {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.state = State::Dead,
                Ok(length) => {
                    taken += length;
                    self.decoder.push(buffer.get(..length).unwrap_or(&[]));
                    self.decode(&mut calls);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.state = State::Dead,
            }
        }
        calls
    }

    fn decode(&mut self, calls: &mut Vec<Incoming>) {
        loop {
            match self.decoder.next::<Call>() {
                Ok(Some(call)) => calls.push(Incoming::Call(call)),
                Ok(None) => return,
                Err(error @ FrameError::Decode { id, .. }) => calls.push(Incoming::Bad(id, crate::chain(&error))),
                Err(_) => {
                    self.state = State::Dead;
                    return;
                }
            }
        }
    }

    /// Queues a message and writes what the socket takes now.
    pub fn send(&mut self, message: &Message) {
        if self.state == State::Dead {
            return;
        }
        let frame = frame::encode(message).or_else(|error| match message {
            Message::Reply { id, .. } => {
                let answer =
                    Answer::Refused { kind: Refusal::Io, message: format!("the answer cannot be sent: {error}") };
                frame::encode(&Message::Reply { id: *id, answer })
            }
            Message::Output { .. } | Message::Notice(_) => Err(error),
        });
        if let Ok(frame) = frame {
            self.out.extend(frame);
        }
        self.flush();
        if self.out.len() > TOO_MUCH {
            self.state = State::Dead;
        }
    }

    /// Writes what the socket takes now.
    pub fn flush(&mut self) {
        while self.state != State::Dead && !self.out.is_empty() {
            match self.stream.write(self.out.as_slices().0) {
                Ok(0) => self.state = State::Dead,
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.state = State::Dead,
            }
        }
        if self.out.capacity() > ENOUGH && self.out.is_empty() {
            self.out = VecDeque::new();
        }
    }

    /// Ends it once all is written.
    pub fn close(&mut self) {
        if self.state == State::Open {
            self.state = State::Closing;
        }
    }
}
