//! `kubectl matriarch`: what patronictl does, through the API server, with the rights of the user's kubeconfig.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

mod error;
mod list;
mod switchover;
mod table;
mod view;

use error::Error;

/// Looks at PostgreSQL clusters of Matriarch and steers them.
#[derive(Parser)]
#[command(name = "kubectl-matriarch", bin_name = "kubectl matriarch", version)]
struct Cli {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Access {
    /// The kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config, then the pod's own account.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// The context in it. Default: its current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The clusters' namespace. Default: the context's.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the members of a cluster, or of all clusters.
    List(list::Args),
    /// Makes another member the primary, without losing a commit.
    Switchover(switchover::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Error> {
    let (client, namespace) = connect(cli.access).await?;
    match cli.command {
        Command::List(args) => list::run(&client, &namespace, &args).await,
        Command::Switchover(args) => switchover::run(&client, &namespace, &args).await,
    }
}

async fn connect(access: Access) -> Result<(Client, String), Error> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let config = match &access.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None if access.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer().await.map_err(Box::new)?,
    };
    let namespace = access.namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(Error::call("connect to", "the API server"))?;
    Ok((client, namespace))
}
