//! The agent's command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use matriarch_sidecar::{agent, ctl, install};
use tracing_subscriber::EnvFilter;

/// Keeps the PostgreSQL of this pod highly available.
#[derive(Parser)]
#[command(name = "matriarch-sidecar", version)]
struct Arguments {
    /// What is logged, in tracing's words: `info`, `matriarch_sidecar=debug` …
    #[arg(long, global = true, env = "MATRIARCH_LOG", default_value = "info")]
    log: String,
    /// One JSON object a line, or text; by default text on a terminal.
    #[arg(long, global = true, env = "MATRIARCH_LOG_FORMAT", value_enum)]
    log_format: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Text,
}

#[derive(Subcommand)]
enum Command {
    /// Copies this program and the supervisor into a folder.
    Install {
        /// The folder.
        dir: PathBuf,
    },
    /// Runs the agent.
    Run {
        /// Its configuration: Patroni's YAML, or a folder with *.yml; without it `PATRONI_*` variables alone.
        config: Option<PathBuf>,
    },
    /// Asks the agent of this pod over its REST API, with its own certificate: what `kubectl matriarch` runs here.
    Ctl(ctl::Args),
    /// Says what the rules make of a recorded snapshot (`GET /snapshot`, or the log at debug), and why.
    Explain {
        /// The file; `-`: standard input.
        snapshot: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log(&arguments);
    let done = match arguments.command {
        Command::Explain { snapshot } => explain(&snapshot),
        Command::Install { dir } => install::install(&dir).map_err(anyhow::Error::from),
        Command::Ctl(args) => ask(&args),
        Command::Run { config } => run(config.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn explain(path: &std::path::Path) -> anyhow::Result<()> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(path)?
    };
    std::io::stdout().write_all(matriarch_sidecar::explain::explain(&text)?.as_bytes())?;
    Ok(())
}

fn ask(args: &ctl::Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ctl::run(args))?;
    Ok(writeln!(std::io::stdout(), "{answer}")?)
}

/// One thread does it all: the work is waiting, and every thread would cost memory in every pod.
fn run(config: Option<&std::path::Path>) -> anyhow::Result<()> {
    // Fails only if it was done already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    let done = runtime.block_on(agent::run(config));
    // Nothing that still runs may keep us.
    runtime.shutdown_background();
    done
}

fn log(arguments: &Arguments) {
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let format = arguments.log_format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Json => subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        Format::Text => subscriber.with_ansi(terminal).init(),
    }
}
