//! The operator's command line: `run` it, or print the `manifests` that install it.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use kube::Client;
use matriarch_operator::controller;
use matriarch_operator::lease::Leadership;
use matriarch_operator::manifests::{self, Install};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Turns `PostgresCluster` resources into running, highly available PostgreSQL.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator, in a pod or with the kubeconfig of the environment.
    Run(Run),
    /// Prints CRD, rights and Deployment, for `kubectl apply --server-side -f -`.
    Manifests(Manifests),
}

#[derive(Args)]
struct Run {
    /// Image of agent and supervisor in the clusters' pods.
    #[arg(long, env = "MATRIARCH_SIDECAR_IMAGE")]
    sidecar_image: String,
    /// Looks at clusters of this namespace only; all when empty.
    #[arg(long, env = "MATRIARCH_WATCH_NAMESPACE", default_value = "")]
    watch_namespace: String,
    /// Name of this process among the operators that wait for the Lease.
    #[arg(long, env = "POD_NAME", default_value = "")]
    identity: String,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Works at once, without the Lease: only where no other operator runs.
    #[arg(long)]
    no_lease: bool,
}

#[derive(Args)]
struct Manifests {
    /// Image of the operator.
    #[arg(long)]
    operator_image: String,
    /// Image of agent and supervisor.
    #[arg(long)]
    sidecar_image: String,
    /// Namespace of the operator.
    #[arg(long, default_value = "matriarch-system")]
    namespace: String,
    /// How many operators; one works, the others wait.
    #[arg(long, default_value_t = 1)]
    replicas: u8,
    /// Looks at clusters of this namespace only.
    #[arg(long, default_value = "")]
    watch_namespace: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => self::run(run).await,
        Command::Manifests(args) => print(args),
    }
}

fn print(args: Manifests) -> ExitCode {
    let install = Install {
        namespace: args.namespace,
        operator_image: args.operator_image,
        sidecar_image: args.sidecar_image,
        replicas: args.replicas.into(),
        watch_namespace: args.watch_namespace,
        ..Install::default()
    };
    let text = match manifests::yaml(&manifests::objects(&install)) {
        Ok(text) => format!("---\n{}{text}", matriarch_crds::generated::CRD_YAML),
        Err(error) => return failed(&error),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(run: Run) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let client = match Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            error!(%error, "no API server: run in a pod, or set KUBECONFIG");
            return ExitCode::FAILURE;
        }
    };
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        error!("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let stop = async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        info!("stopping");
    };
    let identity = if run.identity.is_empty() { format!("process-{}", std::process::id()) } else { run.identity };
    let mut leadership = Leadership::new(client.clone(), &run.lease_namespace, manifests::LEASE, &identity);
    let namespace = (!run.watch_namespace.is_empty()).then_some(run.watch_namespace);
    let (stopped, stopping) = tokio::sync::oneshot::channel();
    let mut stop = std::pin::pin!(stop);
    if !run.no_lease {
        tokio::select! {
            () = leadership.acquire() => {}
            () = &mut stop => return ExitCode::SUCCESS,
        }
    }
    let hold = async { if run.no_lease { std::future::pending().await } else { leadership.hold().await } };
    let work = controller::run(client, namespace, run.sidecar_image, async { drop(stopping.await) });
    let mut work = std::pin::pin!(work);
    tokio::select! {
        () = &mut work => {
            error!("the controller ended by itself");
            ExitCode::FAILURE
        }
        () = hold => {
            error!("the lease is lost: somebody else may work now");
            ExitCode::FAILURE
        }
        () = stop => {
            let _ = stopped.send(()); // an error only says that it has ended already
            work.await;
            ExitCode::SUCCESS
        }
    }
}
