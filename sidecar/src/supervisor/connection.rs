//! One connection after the other: the handshake, the writer that lets permits overtake, the reader that makes events.

use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use matriarch_ha::event::{Attached, Event};
use matriarch_ha::types::Boot;
use matriarch_supervisor::frame::{Decoder, FrameError, encode};
use matriarch_supervisor::protocol::{Answer, Call, Exited, Hello, Message, Notice, PROTOCOL, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Line, Shared};
use crate::driver::clock;

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(50);
/// The supervisor answers `Hello` without any I/O.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// While the pod is being stopped the supervisor hears of us this often (it waits 5 s).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Reads of `CLOCK_BOOTTIME` on one machine agree to microseconds; more than this is another clock.
const CLOCK_TOLERANCE_US: u64 = 5_000;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no connection to {path}: {source}")]
    Connect { path: PathBuf, source: std::io::Error },
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the supervisor did not answer the handshake in {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    #[error("the supervisor closed the connection")]
    Closed,
    #[error("the supervisor refused the handshake: {0}")]
    Refused(String),
    #[error(
        "the supervisor runs under another kernel (boot id {theirs}, ours {ours}): deadlines cannot be compared, so it is not used"
    )]
    BootId { ours: String, theirs: String },
    #[error(
        "the supervisor's boot-time clock differs from ours by {off_us} microseconds: deadlines cannot be compared, so it is not used"
    )]
    Clock { off_us: u64 },
}

impl Error {
    /// Nobody listens: there is no supervisor, rather than one that hangs.
    fn is_absent(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Connect { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
    }
}

/// Keeps a connection until every [`super::Supervisor`] is dropped.
pub(super) async fn keep(socket: PathBuf, shared: Weak<Shared>) {
    let mut said = String::new();
    while shared.strong_count() > 0 {
        match open(&socket).await {
            Ok((hello, reader, writer, decoder)) => {
                said.clear();
                if let Some(shared) = shared.upgrade() {
                    let peer = reader.as_ref().peer_cred().ok().and_then(|peer| peer.pid());
                    shared.state().pid = peer.filter(|&pid| pid > 0);
                }
                let why = serve(&shared, &hello, reader, writer, decoder).await;
                tracing::warn!("the connection to the supervisor ended: {why}");
            }
            Err(error) => {
                if error.is_absent()
                    && let Some(shared) = shared.upgrade()
                    && let Some(launcher) = &shared.launcher
                    && let Err(error) = launcher.launch()
                {
                    tracing::error!("{error}");
                }
                // Once for each cause, not twenty times a second.
                let text = error.to_string();
                if text != said {
                    tracing::warn!("waiting for the supervisor: {text}");
                    said = text;
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// Connects and shakes hands.
async fn open(socket: &Path) -> Result<(Hello, OwnedReadHalf, OwnedWriteHalf, Decoder), Error> {
    let stream =
        UnixStream::connect(socket).await.map_err(|source| Error::Connect { path: socket.to_owned(), source })?;
    let (mut reader, mut writer) = stream.into_split();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let before = clock::boot();
    let request = Request::Hello { protocol: PROTOCOL, boot_id: boot_id.clone(), now_us: before.0 };
    writer.write_all(&encode(&Call { id: 0, request })?).await?;
    let mut decoder = Decoder::new();
    let message = timeout(HELLO_TIMEOUT, read(&mut reader, &mut decoder)).await.map_err(|_| Error::Silent)??;
    let after = clock::boot();
    let hello = match message {
        Message::Reply { answer: Answer::Hello(hello), .. } => hello,
        Message::Reply { answer: Answer::Refused { message, .. }, .. } => return Err(Error::Refused(message)),
        other => return Err(Error::Refused(format!("unexpected answer {other:?}"))),
    };
    if hello.boot_id.trim() != boot_id {
        return Err(Error::BootId { ours: boot_id, theirs: hello.boot_id });
    }
    let off_us = before.0.saturating_sub(hello.now_us).max(hello.now_us.saturating_sub(after.0));
    if off_us > CLOCK_TOLERANCE_US {
        return Err(Error::Clock { off_us });
    }
    Ok((hello, reader, writer, decoder))
}

/// The next message.
async fn read(reader: &mut OwnedReadHalf, decoder: &mut Decoder) -> Result<Message, Error> {
    let mut buffer = [0; 8192];
    loop {
        match decoder.next::<Message>() {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => {}
            // From a newer supervisor: not for us.
            Err(error @ FrameError::Decode { .. }) => {
                tracing::warn!("the supervisor said something unknown: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Err(Error::Closed);
        }
        decoder.push(&buffer[..count]);
    }
}

/// Serves one connection to its end.
async fn serve(
    shared: &Weak<Shared>,
    hello: &Hello,
    mut reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    mut decoder: Decoder,
) -> Error {
    let (urgent, urgent_out) = unbounded_channel();
    let (calls, calls_out) = unbounded_channel();
    // Weak, so that the writer ends when the last `Supervisor` is dropped.
    let heartbeat = calls.downgrade();
    {
        let Some(shared) = shared.upgrade() else { return Error::Closed };
        // Nobody waits for what an agent before us left running, and it keeps its directory locked. Ids of heartbeats and of
        // these are 0: their answers are not waited for.
        for tool in &hello.status.tools {
            tracing::warn!(program = %tool.program, "ending a program that an agent before this one left running");
            if let Ok(frame) = encode(&Call { id: 0, request: Request::Cancel { call: tool.call } }) {
                let _ = calls.send(frame);
            }
        }
        let mut state = shared.state();
        state.next_id = state.next_id.max(1);
        state.major = hello.version.as_deref().and_then(version).as_deref().and_then(major);
        state.line = Some(Line { urgent, calls });
        drop(state);
        let _ = shared.events.send(Event::Attached(attached(hello)));
    }
    let mut write = std::pin::pin!(write(writer, urgent_out, calls_out));
    let mut terminating = hello.status.terminating;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let why = loop {
        tokio::select! {
            biased;
            error = &mut write => break error,
            message = read(&mut reader, &mut decoder) => match message {
                Ok(message) => {
                    let Some(shared) = shared.upgrade() else { break Error::Closed };
                    terminating |= matches!(message, Message::Notice(Notice::Terminating));
                    receive(&shared, message);
                }
                Err(error) => break error,
            },
            _ = beat.tick(), if terminating => {
                // Id 0 is never waited for.
                if let (Some(queue), Ok(frame)) = (heartbeat.upgrade(), encode(&Call { id: 0, request: Request::Status })) {
                    let _ = queue.send(frame);
                }
            }
        }
    };
    if let Some(shared) = shared.upgrade() {
        let pending = {
            let mut state = shared.state();
            state.line = None;
            state.pid = None;
            std::mem::take(&mut state.pending)
        };
        // First the event, then the callers, so that the core hears of the cause before it hears of the effects.
        let _ = shared.events.send(Event::Detached);
        drop(pending);
        shared.ended.notify_waiters();
    }
    why
}

/// Writes frames, urgent ones first, until it cannot.
async fn write(
    mut writer: OwnedWriteHalf,
    mut urgent: UnboundedReceiver<Vec<u8>>,
    mut calls: UnboundedReceiver<Vec<u8>>,
) -> Error {
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = urgent.recv() => frame,
            Some(frame) = calls.recv() => frame,
            else => return Error::Closed,
        };
        if let Err(error) = writer.write_all(&frame).await {
            return error.into();
        }
    }
}

fn receive(shared: &Shared, message: Message) {
    match message {
        Message::Reply { id, answer } => {
            if let Answer::Started { postmaster } = &answer {
                // Here, where no `Exited` can overtake it.
                let _ = shared.events.send(Event::Started { pid: postmaster.pid });
            }
            let pending = shared.state().pending.remove(&id);
            if let Some(pending) = pending {
                let was_run = pending.output.is_some();
                // Nobody waits any more: fine.
                let _ = pending.answer.send((answer, pending.output.unwrap_or_default()));
                if was_run {
                    shared.ended.notify_waiters();
                }
            }
        }
        Message::Output { id, stream, text } => {
            if let Some(output) = shared.state().pending.get_mut(&id).and_then(|pending| pending.output.as_mut()) {
                output.push(stream, &text);
            }
        }
        Message::Notice(notice) => {
            let event = match notice {
                Notice::Exited(exited) => self::exited(&exited),
                Notice::Adopted(postmaster) => {
                    tracing::warn!(postmaster.pid, "somebody else started PostgreSQL");
                    Event::Started { pid: postmaster.pid }
                }
                Notice::Fencing { deadline_us } => {
                    tracing::error!(deadline_us, "the fence closed: the supervisor stops PostgreSQL");
                    Event::Fencing
                }
                Notice::Terminating => Event::Terminating,
            };
            let _ = shared.events.send(event);
        }
    }
}

fn exited(exited: &Exited) -> Event {
    let how = match (exited.code, exited.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    };
    Event::Exited { pid: exited.postmaster.pid, how, clean: exited.code == Some(0), fenced: exited.fenced }
}

fn attached(hello: &Hello) -> Attached {
    let status = &hello.status;
    Attached {
        instance: hello.instance.clone(),
        postmaster: status.postmaster.as_ref().map(|postmaster| postmaster.pid),
        latched: status.latched,
        deadline: status.deadline_us.map(Boot),
        permit_seq: status.permit_seq,
        terminating: status.terminating,
        version: hello.version.as_deref().and_then(version),
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)` → `15.18`.
fn version(text: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(ToOwned::to_owned)
}

/// `15.18`, `18beta1` → 15, 18.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{major, version};

    #[test]
    fn versions_are_found_in_what_postgres_says() {
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-1.pgdg13+1)").as_deref(), Some("15.18"));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18beta1"));
        assert_eq!(version("postgres: not found"), None);
        assert_eq!((major("15.18"), major("18beta1"), major("")), (Some(15), Some(18), None));
    }
}
