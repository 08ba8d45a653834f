//! The agent's log: level, format and place, by command line, file and environment; all but the command line's may change later.

mod file;
mod lines;
mod queue;
mod record;

use std::backtrace::Backtrace;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::log::{Log, LogFile};
use file::Rotating;
use lines::Lines;
use queue::{Queue, Sink};

/// At the end the log is waited for, but not for ever.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Filtered by level.
type Levels = reload::Layer<EnvFilter, Registry>;
/// What makes lines: another one for each format.
type Output = Box<dyn Layer<tracing_subscriber::layer::Layered<Levels, Registry>> + Send + Sync>;

/// What the command line or its variables say: it wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// In tracing's words.
    pub level: Option<String>,
    /// One JSON object a line.
    pub json: Option<bool>,
}

/// The log, to be changed later. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logging(Option<Arc<Inner>>);

struct Inner {
    asked: Asked,
    levels: reload::Handle<EnvFilter, Registry>,
    output: reload::Handle<Output, tracing_subscriber::layer::Layered<Levels, Registry>>,
    queue: Queue,
    log: Mutex<Log>,
}

impl Logging {
    /// Begins to log, to standard error.
    pub fn start(asked: Asked) -> std::io::Result<Self> {
        let (logging, subscriber) = Self::make(asked, Box::new(std::io::stderr()))?;
        subscriber.init();
        let panics = logging.clone();
        std::panic::set_hook(Box::new(move |panic| panics.panicked(panic)));
        Ok(logging)
    }

    fn make(asked: Asked, sink: Sink) -> std::io::Result<(Self, impl tracing::Subscriber + Send + Sync)> {
        let log = Log::default();
        let queue = Queue::start(log.queue, sink, |lost| {
            tracing::warn!("QueueHandler has lost {lost} log records");
        })?;
        let (levels, levels_handle) = reload::Layer::new(filter(&asked, &log));
        let (output, output_handle) = reload::Layer::new(output(&asked, &log, queue.clone()));
        let subscriber = tracing_subscriber::registry().with(levels).with(output);
        let inner = Inner { asked, levels: levels_handle, output: output_handle, queue, log: Mutex::new(log) };
        Ok((Self(Some(Arc::new(inner))), subscriber))
    }

    /// As the section `log` says now. What cannot be done is said, in the log as it was.
    pub fn configure(&self, log: &Log) {
        let Some(inner) = &self.0 else { return };
        let mut former = inner.log.lock().unwrap_or_else(PoisonError::into_inner);
        if *former == *log {
            return;
        }
        let mut log = log.clone();
        if former.file != log.file {
            match sink(log.file.as_ref()) {
                Ok(sink) => inner.queue.set_sink(sink),
                Err(error) => {
                    let dir = log.file.as_ref().map(|file| file.dir.display().to_string()).unwrap_or_default();
                    tracing::error!("log.dir: {dir}: {error}: the log goes where it went before");
                    log.file.clone_from(&former.file);
                }
            }
        }
        inner.queue.set_longest(log.queue);
        // Both fail only when the subscriber is gone.
        let _ = inner.levels.reload(filter(&inner.asked, &log));
        let _ = inner.output.reload(output(&inner.asked, &log, inner.queue.clone()));
        *former = log;
    }

    /// Waits for the last lines.
    pub fn finish(&self) {
        if let Some(inner) = &self.0 {
            inner.queue.flush(LAST_LINES);
        }
    }

    /// A panic is told in the log, as Patroni tells an exception.
    fn panicked(&self, panic: &PanicHookInfo<'_>) {
        let at_debug = self.0.as_ref().is_some_and(|inner| match inner.log.try_lock() {
            Ok(log) => log.traces_at_debug,
            Err(_) => false,
        });
        let what = panic.payload_as_str().unwrap_or("a panic");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if at_debug && !tracing::enabled!(tracing::Level::DEBUG) {
            tracing::error!(place, "a part of the agent has failed: {what}");
        } else {
            let trace = Backtrace::force_capture().to_string();
            tracing::error!(place, trace, "a part of the agent has failed: {what}");
        }
    }
}

/// The levels.
fn filter(asked: &Asked, log: &Log) -> EnvFilter {
    let default = || {
        let mut all = log.level.clone().unwrap_or_else(|| "info".to_owned());
        for (name, level) in &log.loggers {
            all.push_str(&format!(",{name}={level}"));
        }
        all
    };
    let wanted = asked.level.clone().unwrap_or_else(default);
    EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
        // Before the log is there, or while it is changed: the one place where nothing else is left.
        eprintln!("the levels {wanted:?} of the log cannot be used: {error}");
        EnvFilter::new("info")
    })
}

/// The format: Patroni's where the configuration says something of it, else tracing's own.
fn output<S>(asked: &Asked, log: &Log, queue: Queue) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let patronis = log.json.is_some() || log.format.is_some() || log.dateformat.is_some() || log.file.is_some();
    let terminal = std::io::stderr().is_terminal() && !patronis;
    let json = asked.json.or(log.json).unwrap_or(!terminal && !patronis);
    let layer = tracing_subscriber::fmt::layer().with_writer(queue).with_ansi(terminal);
    if patronis {
        layer.event_format(Lines::new(log, json)).boxed()
    } else if json {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        layer.boxed()
    }
}

fn sink(file: Option<&LogFile>) -> std::io::Result<Sink> {
    Ok(match file {
        Some(file) => Box::new(Rotating::open(file)?),
        None => Box::new(std::io::stderr()),
    })
}

#[cfg(test)]
mod tests;
