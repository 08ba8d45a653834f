//! The agent's log: level, format and place, by command line, file and environment; all but the command line's may change later.

mod file;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::log::{Log, LogFile};
use file::Rotating;

/// Filtered by level.
type Levels = reload::Layer<EnvFilter, Registry>;
/// What writes: another one for each format and place.
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
    log: Mutex<Log>,
}

impl Logging {
    /// Begins to log, to standard error.
    pub fn start(asked: Asked) -> Self {
        let log = Log::default();
        let (levels, levels_handle) = reload::Layer::new(filter(&asked, &log));
        let (output, output_handle) = reload::Layer::new(output(&asked, &log));
        tracing_subscriber::registry().with(levels).with(output).init();
        Self(Some(Arc::new(Inner { asked, levels: levels_handle, output: output_handle, log: Mutex::new(log) })))
    }

    /// As the section `log` says now. What cannot be done is said, in the log as it was.
    pub fn configure(&self, log: &Log) {
        let Some(inner) = &self.0 else { return };
        let mut former = inner.log.lock().unwrap_or_else(PoisonError::into_inner);
        if *former == *log {
            return;
        }
        for ignored in log.ignored.iter().filter(|one| !former.ignored.contains(one)) {
            tracing::info!("{ignored}");
        }
        // Fails only when the subscriber is gone.
        let _ = inner.levels.reload(filter(&inner.asked, log));
        if former.json != log.json || former.file != log.file {
            let _ = inner.output.reload(output(&inner.asked, log));
        }
        *former = log.clone();
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

/// Format and place.
fn output<S>(asked: &Asked, log: &Log) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal() && log.file.is_none();
    let json = asked.json.or(log.json).unwrap_or(!terminal && log.file.is_none());
    let layer = tracing_subscriber::fmt::layer().with_writer(writer(log.file.as_ref())).with_ansi(terminal);
    if json {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        layer.boxed()
    }
}

fn writer(file: Option<&LogFile>) -> BoxMakeWriter {
    let Some(file) = file else { return BoxMakeWriter::new(std::io::stderr) };
    match Rotating::open(file) {
        Ok(rotating) => BoxMakeWriter::new(Mutex::new(rotating)),
        Err(error) => {
            eprintln!("log.dir: {}: {error}: the log goes to standard error", file.dir.display());
            BoxMakeWriter::new(std::io::stderr)
        }
    }
}
