//! `kubectl matriarch`: what patronictl does and more, through the API server, with the rights of the user's kubeconfig.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod access;
mod ask;
#[cfg(test)]
mod calls;
mod completion;
mod config;
mod ctl;
mod edit;
mod error;
#[cfg(test)]
mod fake;
mod fence;
mod findings;
mod flush;
#[cfg(test)]
mod golden;
mod hibernate;
mod history;
mod list;
mod live;
mod logs;
mod members;
mod output;
mod pause;
mod psql;
mod report;
mod restart;
#[cfg(test)]
mod rights;
mod status;
mod store;
mod style;
mod switchover;
mod table;
mod version;
mod view;
mod when;

use access::{Access, Session};
use error::Error;

/// Looks at PostgreSQL clusters of Matriarch and steers them.
///
/// Exit codes: 0 done; 1 refused or failed; 2 wrong command line; 3 no such thing; 4 a right is missing; 5 not confirmed; 6 not
/// known in time; 7 not reachable.
#[derive(Parser)]
#[command(name = "kubectl-matriarch", bin_name = "kubectl matriarch", version)]
struct Cli {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the members of clusters.
    List(list::Args),
    /// Shows on one screen who leads, how well, and what is waited for and why.
    Status(status::Args),
    /// Shows who follows whom.
    Topology(list::TopologyArgs),
    /// Shows the status again and again.
    Watch(status::WatchArgs),
    /// Shows when which timeline ended and who led the next one.
    History(history::Args),
    /// Makes another member the primary, now or later, without losing a commit.
    Switchover(switchover::Args),
    /// Makes a named member the primary, also when there is none.
    Failover(switchover::FailoverArgs),
    /// Restarts PostgreSQL, now or later: standbys first.
    Restart(restart::RestartArgs),
    /// Lets agents and PostgreSQL read their configuration again.
    Reload(restart::ReloadArgs),
    /// Throws the data directory of a standby away and copies it anew.
    Reinit(restart::ReinitArgs),
    /// Calls off a scheduled restart or switchover.
    #[command(subcommand)]
    Flush(flush::What),
    /// Begins maintenance: nobody fails over, nobody starts or stops PostgreSQL by itself.
    Pause(pause::Args),
    /// Ends maintenance.
    Resume(pause::Args),
    /// Stops PostgreSQL of members and keeps it stopped; their pods stay.
    Fence(fence::Args),
    /// Lets fenced members join again.
    Unfence(fence::Args),
    /// Stops all pods of a cluster and keeps its volumes.
    Hibernate(hibernate::Args),
    /// Starts a hibernated cluster again.
    Wake(hibernate::Args),
    /// Shows the dynamic configuration.
    ShowConfig(edit::ShowArgs),
    /// Changes the dynamic configuration: shows the difference, and asks.
    EditConfig(edit::Args),
    /// Opens psql on the leader, or on a standby.
    Psql(psql::Args),
    /// Shows what agents and PostgreSQL write.
    Logs(logs::Args),
    /// Collects what support needs, without secrets, into a tar file.
    Report(report::Args),
    /// Shows versions.
    Version(version::Args),
    /// Prints a completion script.
    Completion(completion::Args),
    /// What kubectl asks for completion.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).bin("kubectl-matriarch").complete();
    let cli = Cli::parse();
    let done = match cli.command {
        // Outside of the runtime: the names that are offered are asked for by one of their own.
        Command::Complete { words } => completion::offer(&mut Cli::command(), &words),
        Command::Completion(args) => completion::run(&args),
        command => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(cli.access, command)),
            Err(error) => Err(Error::output(error)),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Code(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(error.code())
        }
    }
}

async fn run(access: Access, command: Command) -> Result<(), Error> {
    let session = Session::open(access).await;
    if let Command::Version(args) = &command {
        return version::run(session, args).await;
    }
    run_with(&session?, &command).await
}

async fn run_with(session: &Session, command: &Command) -> Result<(), Error> {
    match command {
        Command::List(args) => list::run(session, args).await,
        Command::Status(args) => status::run(session, args).await,
        Command::Topology(args) => list::run_topology(session, args).await,
        Command::Watch(args) => status::watch(session, args).await,
        Command::History(args) => history::run(session, args).await,
        Command::Switchover(args) => switchover::run(session, args).await,
        Command::Failover(args) => switchover::failover(session, args).await,
        Command::Restart(args) => restart::restart(session, args).await,
        Command::Reload(args) => restart::reload(session, args).await,
        Command::Reinit(args) => restart::reinit(session, args).await,
        Command::Flush(what) => flush::run(session, what).await,
        Command::Pause(args) => pause::run(session, args, true).await,
        Command::Resume(args) => pause::run(session, args, false).await,
        Command::Fence(args) => fence::run(session, args, true).await,
        Command::Unfence(args) => fence::run(session, args, false).await,
        Command::Hibernate(args) => hibernate::run(session, args, true).await,
        Command::Wake(args) => hibernate::run(session, args, false).await,
        Command::ShowConfig(args) => edit::show(session, args).await,
        Command::EditConfig(args) => edit::run(session, args).await,
        Command::Psql(args) => psql::run(session, args).await,
        Command::Logs(args) => logs::run(session, args).await,
        Command::Report(args) => report::run(session, args).await,
        Command::Version(_) | Command::Completion(_) | Command::Complete { .. } => Ok(()),
    }
}
