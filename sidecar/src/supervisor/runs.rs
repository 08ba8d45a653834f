//! PostgreSQL's programs, run by the supervisor: their output, their end, and killing them when nobody waits any more.

use matriarch_supervisor::protocol::{Answer, Request, Run, Stream, UserCommand};

use tokio::sync::oneshot;

use super::{CallError, Supervisor};

/// So much of the standard output is kept, from its start.
const STDOUT: usize = 1 << 18;
/// So much of the error output is kept, from its end.
const STDERR: usize = 1 << 14;

/// A program that runs: its name, the call, and where its end comes.
type Begun = (String, u64, oneshot::Receiver<(Answer, Output)>);

/// What a program has written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Output {
    program: String,
    /// Its standard output, cut after 256 KiB.
    pub stdout: String,
    /// The last 16 KiB of its error output.
    pub stderr: String,
    /// The last line of the error output, while it has no end.
    partial: String,
}

impl Output {
    fn of(program: &str) -> Self {
        Self { program: program.to_owned(), ..Self::default() }
    }

    /// Takes a piece; whole lines of the error output are logged.
    pub(super) fn push(&mut self, stream: Stream, text: &str) {
        match stream {
            Stream::Stdout => {
                let room = STDOUT.saturating_sub(self.stdout.len());
                self.stdout.push_str(&text[..text.floor_char_boundary(room)]);
            }
            Stream::Stderr => {
                self.stderr.push_str(text);
                if self.stderr.len() > STDERR {
                    let start = self.stderr.ceil_char_boundary(self.stderr.len() - STDERR);
                    self.stderr.drain(..start);
                }
                self.partial.push_str(text);
                while let Some(end) = self.partial.find('\n') {
                    let line: String = self.partial.drain(..=end).collect();
                    tracing::info!(program = %self.program, "{}", line.trim_end());
                }
                if self.partial.len() > STDERR {
                    self.partial.clear(); // progress without line ends
                }
            }
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its name.
    pub program: String,
    /// Its exit code, none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote.
    pub output: Output,
}

impl Finished {
    /// It ended with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Why it failed, for people: the first line of its error output that names an error, else the last line.
    pub fn reason(&self) -> String {
        let lines = || self.output.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let named = lines().find(|line| {
            let lower = line.to_ascii_lowercase();
            ["error:", "fatal:", "panic:", "could not", "failed"].iter().any(|word| lower.contains(word))
        });
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("{} ended with code {code}", self.program),
            (None, Some(signal)) => format!("{} was ended by signal {signal}", self.program),
            (None, None) => format!("{} ended", self.program),
        };
        match named.or_else(|| lines().next_back()) {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }
}

impl Supervisor {
    /// Runs a program to its end, whatever that is. Dropping the future kills it ([`Supervisor::runs_ended`]).
    pub async fn run(&self, run: Run) -> Result<Finished, CallError> {
        let program = run.program.clone();
        self.to_its_end(program, Request::Run(run)).await
    }

    /// Runs a command of the user's to its end, whatever that is. Dropping the future kills it.
    pub async fn command(&self, command: UserCommand) -> Result<Finished, CallError> {
        let program = command.argv.first().cloned().unwrap_or_default();
        self.to_its_end(program, Request::Command(command)).await
    }

    /// The same for a callback: no task waits for its end.
    pub async fn callback(&self, command: UserCommand) -> Result<Finished, CallError> {
        let program = command.argv.first().cloned().unwrap_or_default();
        let run = self.begin(program, Request::Command(command))?;
        if let Some(pending) = self.shared.state().pending.get_mut(&run.1) {
            pending.counts = false;
        }
        self.end(run).await
    }

    async fn to_its_end(&self, program: String, request: Request) -> Result<Finished, CallError> {
        let run = self.begin(program, request)?;
        self.end(run).await
    }

    fn begin(&self, program: String, request: Request) -> Result<Begun, CallError> {
        let (id, answer) = self.send(request, Some(Output::of(&program)), false)?;
        Ok((program, id, answer))
    }

    async fn end(&self, (program, id, answer): Begun) -> Result<Finished, CallError> {
        let mut kill = KillOnDrop { supervisor: self, id: Some(id) };
        let (answer, output) = answer.await.map_err(|_| CallError::Detached)?;
        kill.id = None;
        match answer {
            Answer::Done { code, signal } => Ok(Finished { program, code, signal, output }),
            Answer::Refused { kind, message } => Err(CallError::Refused { kind, message }),
            other => Err(super::unexpected(&other)),
        }
    }

    /// Waits until no program runs any more (or the supervisor is away, which kills them).
    pub async fn runs_ended(&self) {
        loop {
            let ended = self.shared.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.shared.state().pending.values().any(|pending| pending.counts) {
                return;
            }
            ended.await;
        }
    }
}

/// Sends `Cancel` for a run that nobody waits for any more.
struct KillOnDrop<'a> {
    supervisor: &'a Supervisor,
    id: Option<u64>,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.id {
            // Without a connection there is nothing to cancel.
            let _ = self.supervisor.send(Request::Cancel { call }, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_first_line_that_names_an_error() {
        let mut output = Output::of("pg_rewind");
        output.push(Stream::Stderr, "pg_rewind: connected to server\npg_rewind: err");
        output.push(Stream::Stderr, "or: could not find common ancestor\npg_rewind: detail: more\n");
        let finished = Finished { program: "pg_rewind".into(), code: Some(1), signal: None, output };
        assert_eq!(finished.reason(), "pg_rewind ended with code 1: pg_rewind: error: could not find common ancestor");
    }

    #[test]
    fn output_is_bounded() {
        let mut output = Output::of("x");
        for _ in 0..40 {
            output.push(Stream::Stdout, &"ä".repeat(10_000));
            output.push(Stream::Stderr, &"ä".repeat(10_000));
        }
        assert_eq!(output.stdout.len(), STDOUT);
        assert!(output.stderr.len() <= STDERR);
    }
}
