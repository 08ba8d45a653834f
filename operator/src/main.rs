//! The operator's command line: `run` it, or print the `manifests` that install it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use matriarch_operator::controller::{self, Settings};
use matriarch_operator::lease::{self, Ended, Leadership};
use matriarch_operator::manifests::{self, Install};
use matriarch_operator::metrics::{self, Metrics};
use tokio::signal::unix::{SignalKind, signal};
use tower::layer::layer_fn;
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
    /// Looks at clusters of these namespaces only, separated by commas; all when empty.
    #[arg(long, env = "MATRIARCH_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "MATRIARCH_LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// Name of the Lease that the operators of one installation share.
    #[arg(long, env = "MATRIARCH_LEASE", default_value = "matriarch-operator")]
    lease: String,
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
    /// Looks at clusters of these namespaces only, separated by commas; all when empty.
    #[arg(long, value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Rights in the watched namespaces only (the operator's own if none is named): nothing but the definition of
    /// PostgresCluster is cluster-wide then.
    #[arg(long)]
    namespaced: bool,
    /// Without the definition of PostgresCluster and the namespace: what the admin of a namespace may apply.
    #[arg(long)]
    skip_crds: bool,
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
        replicas: args.replicas,
        watch_namespaces: named(args.watch_namespaces),
        namespaced: args.namespaced,
        ..Install::default()
    };
    let mut objects = manifests::objects(&install);
    if !args.skip_crds {
        objects.insert(0, manifests::namespace(&install));
    }
    let text = match manifests::yaml(&objects) {
        Ok(text) if args.skip_crds => text,
        Ok(text) => format!("---\n{}{text}", matriarch_crds::generated::CRD_YAML),
        Err(error) => return failed(&error),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// An empty variable of the environment is one empty word.
fn named(namespaces: Vec<String>) -> Vec<String> {
    namespaces.into_iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// As the environment says, and counted.
async fn client(metrics: &Metrics) -> Result<Client, Box<dyn std::error::Error>> {
    let builder = ClientBuilder::try_from(Config::infer().await?)?;
    Ok(builder.with_layer(&layer_fn(|inner| metrics.count_requests(inner))).build())
}

async fn run(run: Run) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let metrics = Arc::new(Metrics::default());
    let client = match client(&metrics).await {
        Ok(client) => client,
        Err(error) => {
            error!(%error, "no API server: run in a pod, or set KUBECONFIG");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = metrics::serve(run.listen, metrics.clone()).await {
        error!(%error, "cannot start");
        return ExitCode::FAILURE;
    }
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        error!("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let stop = async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        info!("stopping");
    };
    let identity = if run.identity.is_empty() { format!("process-{}", std::process::id()) } else { run.identity };
    let mut stop = std::pin::pin!(stop);
    let mut leadership = None;
    if !run.no_lease {
        let leads = leadership.insert(Leadership::new(client.clone(), &run.lease_namespace, &run.lease, &identity));
        tokio::select! {
            () = leads.acquire(|| metrics.set_ready()) => {}
            () = &mut stop => return ExitCode::SUCCESS,
        }
    }
    metrics.lead(true);
    let (stopped, stopping) = tokio::sync::oneshot::channel();
    let settings = Settings {
        namespaces: named(run.watch_namespaces),
        sidecar_image: run.sidecar_image,
        metrics: metrics.clone(),
    };
    let work = controller::run(client, settings, async { drop(stopping.await) });
    let tell = || {
        let _ = stopped.send(()); // an error only says that the work has ended already
    };
    match Box::pin(lease::work(leadership, work, stop, tell)).await {
        Ended::Released => return ExitCode::SUCCESS,
        Ended::Dropped => error!("what is under way does not end: it is dropped, and the lease runs out by itself"),
        Ended::Lost => error!("the lease is lost: somebody else may work now"),
        Ended::ByItself => error!("the controller ended by itself"),
    }
    ExitCode::FAILURE
}
