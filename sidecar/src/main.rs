//! The agent's command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use matriarch_sidecar::logging::{Asked, Logging};
use matriarch_sidecar::{agent, commands, ctl, install};

/// Keeps the PostgreSQL of this pod highly available.
#[derive(Parser)]
#[command(name = "matriarch-sidecar", version)]
struct Arguments {
    /// What is logged, in tracing's words: `info`, `matriarch_sidecar=debug` …; wins over the configuration's `log.level`.
    #[arg(long, global = true, env = "MATRIARCH_LOG")]
    log: Option<String>,
    /// One JSON object a line, or text; wins over `log.type`. By default text on a terminal.
    #[arg(long, global = true, env = "MATRIARCH_LOG_FORMAT", value_enum)]
    log_format: Option<Format>,
    #[command(flatten)]
    patroni: Patroni,
    #[command(subcommand)]
    command: Option<Command>,
}

/// As Patroni's own command line has it: `matriarch-sidecar FILE` runs the agent.
#[derive(clap::Args)]
struct Patroni {
    /// The configuration: a file, or a folder with *.yml; without it `PATRONI_*` variables alone. For --generate-…: where to write.
    config: Option<PathBuf>,
    /// Says what is wrong with the configuration, and ends.
    #[arg(long, group = "instead")]
    validate_config: bool,
    /// With --validate-config: ports may be in use.
    #[arg(long, short, requires = "validate_config")]
    ignore_listen_port: bool,
    /// With --validate-config: prints the configuration of file and environment, if it can be used; passwords as well.
    #[arg(long, short, requires = "validate_config")]
    print: bool,
    /// Prints a configuration to begin with.
    #[arg(long, group = "instead")]
    generate_sample_config: bool,
    /// Prints a configuration for a PostgreSQL that runs.
    #[arg(long, group = "instead")]
    generate_config: bool,
    /// With --generate-config: how that is reached, as a superuser.
    #[arg(long, requires = "generate_config", default_value = "")]
    dsn: String,
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
    let asked = Asked {
        level: arguments.log.filter(|level| !level.is_empty()),
        json: arguments.log_format.map(|format| format == Format::Json),
    };
    let logging = match Logging::start(asked) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("matriarch-sidecar: the log cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = match arguments.command {
        Some(Command::Explain { snapshot }) => explain(&snapshot),
        Some(Command::Install { dir }) => install::install(&dir).map_err(anyhow::Error::from),
        Some(Command::Ctl(args)) => ask(&args),
        Some(Command::Run { config }) => run(config.as_deref(), logging.clone()),
        None => as_patroni(&arguments.patroni, logging.clone()),
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    };
    logging.finish();
    code
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

/// Without a command of ours.
fn as_patroni(asked: &Patroni, logging: Logging) -> anyhow::Result<()> {
    let path = asked.config.as_deref();
    if asked.validate_config {
        commands::validate::run(path, asked.ignore_listen_port, asked.print, &mut std::io::stdout())
    } else if asked.generate_sample_config {
        write(path, commands::SAMPLE)
    } else if asked.generate_config {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        write(path, &runtime.block_on(commands::generate::from_server(&asked.dsn))?)
    } else {
        run(path, logging)
    }
}

/// To a file, which must not be there, or to standard output.
fn write(path: Option<&std::path::Path>, text: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    match path {
        Some(path) => std::fs::File::create_new(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{} cannot be written", path.display())),
        None => Ok(std::io::stdout().write_all(text.as_bytes())?),
    }
}

/// One thread does it all: the work is waiting, and every thread would cost memory in every pod.
fn run(config: Option<&std::path::Path>, logging: Logging) -> anyhow::Result<()> {
    // Fails only if it was done already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    let done = runtime.block_on(agent::run(config, logging));
    // Nothing that still runs may keep us.
    runtime.shutdown_background();
    done
}
