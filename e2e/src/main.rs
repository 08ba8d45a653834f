//! The command line of the test cluster.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use jiff::{Timestamp, ToSpan as _};
use matriarch_e2e::cluster::{self, Cluster, Layout, Options};
use matriarch_e2e::deps::{self, cache::Cache};
use matriarch_e2e::host::progress::step;
use matriarch_e2e::images::own::Profile;
use matriarch_e2e::{demo, packaging, scale, scenarios};

/// A real Kubernetes on this machine, for tests of Matriarch. Run as root.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install packages, build Kubernetes and the images: 15 minutes on 2 cores the first time, nothing later.
    Deps,
    /// Show in plain words what Matriarch does, and leave it up for a look.
    Demo {
        #[command(flatten)]
        name: Name,
        /// The major version of PostgreSQL: 15, 16 or 18.
        #[arg(long, default_value = "15", env = "MATRIARCH_POSTGRES")]
        postgres: String,
    },
    /// Run the scenarios: faults on a real cluster, each with clients that write and a checker.
    Test(Test),
    /// Install, upgrade and uninstall by Helm, run the quick start, put two operators side by side: on a real cluster.
    Packaging(Packaging),
    /// Run the scenarios of members outside of pods: real agents, supervisors, PostgreSQL and API server, no kubelets.
    Bare(Bare),
    /// The same from inside of its sandbox.
    #[command(hide = true)]
    BareInside(Bare),
    /// Measure the operator with many clusters on one API server; their pods are objects only.
    Scale(Scale),
    /// The same from inside of its sandbox.
    #[command(hide = true)]
    ScaleInside(Scale),
    /// Run a command beside an API server of its own, with `KUBECONFIG` set.
    WithApi(WithApi),
    /// The same from inside of its sandbox.
    #[command(hide = true)]
    WithApiInside(WithApi),
    /// Print the folder of PostgreSQL's programs, for tests that are to use another major.
    Programs {
        /// The major version of PostgreSQL: 15, 16 or 18.
        #[arg(long)]
        postgres: String,
    },
    /// Make, look at and remove test clusters.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
}

#[derive(clap::Args)]
struct Test {
    /// The cluster: one that is up, or else a new one, which is removed afterwards.
    #[arg(long, default_value = "test")]
    name: String,
    /// How many nodes a new cluster gets.
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// Only scenarios whose names contain one of these, separated by commas.
    #[arg(long)]
    filter: Option<String>,
    /// The major version of PostgreSQL: 15, 16 or 18.
    #[arg(long, default_value = "15", env = "MATRIARCH_POSTGRES")]
    postgres: String,
    /// Write the table to this file as well.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Leave everything up for a look.
    #[arg(long)]
    keep: bool,
    /// Unoptimized binaries: quicker to build, not for measurements.
    #[arg(long)]
    dev: bool,
}

#[derive(clap::Args)]
struct Packaging {
    /// The cluster: one that is up, or else a new one, which is removed afterwards.
    #[arg(long, default_value = "packaging")]
    name: String,
    /// The major version of PostgreSQL: 15, 16 or 18.
    #[arg(long, default_value = "15", env = "MATRIARCH_POSTGRES")]
    postgres: String,
    /// Leave everything up for a look.
    #[arg(long)]
    keep: bool,
    /// Unoptimized binaries: quicker to build.
    #[arg(long)]
    dev: bool,
}

#[derive(clap::Args)]
struct Bare {
    /// Only scenarios whose names contain one of these, separated by commas.
    #[arg(long)]
    filter: Option<String>,
    /// Only the quick ones.
    #[arg(long)]
    quick: bool,
    /// The major version of PostgreSQL: 15, 16 or 18.
    #[arg(long, default_value = "15", env = "MATRIARCH_POSTGRES")]
    postgres: String,
    /// Write the table to this file as well.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Unoptimized binaries: quicker to build.
    #[arg(long)]
    dev: bool,
    /// A folder with binaries that are there already.
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// The sandbox's own folder.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Scale {
    /// How many clusters of three members.
    #[arg(long, default_value_t = 100)]
    clusters: usize,
    /// For how many seconds the requests of an idle operator are counted.
    #[arg(long, default_value_t = 30)]
    quiet: u64,
    /// Write the table to this file as well.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Unoptimized binaries: quicker to build, not for measurements.
    #[arg(long)]
    dev: bool,
    /// A folder with binaries that are there already.
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// The sandbox's own folder.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
}

#[derive(clap::Args)]
struct WithApi {
    /// The sandbox's own folder.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
struct Name {
    /// The cluster's name; several can be up at once.
    #[arg(long, default_value = "dev", env = "MATRIARCH_CLUSTER")]
    name: String,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Make a cluster and leave it running.
    Up {
        #[command(flatten)]
        name: Name,
        /// How many nodes.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
        /// How many volumes for each node.
        #[arg(long, default_value_t = 12)]
        volumes: u16,
        /// The size of each volume.
        #[arg(long, default_value_t = 1024)]
        volume_mib: u32,
    },
    /// Remove a cluster with all it made, also a crashed one.
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Print the lines that point kubectl at a cluster.
    Kubeconfig {
        #[command(flatten)]
        name: Name,
    },
    /// Build the operator and the sidecar and make them known to all nodes; prints the images' names.
    LoadImages {
        #[command(flatten)]
        name: Name,
        /// Build without optimization: much faster, for the work on a scenario.
        #[arg(long)]
        dev: bool,
    },
    /// Wipe volumes whose claims are gone, and offer them again.
    Recycle {
        #[command(flatten)]
        name: Name,
    },
    /// Count the API requests of the last minutes, by user, verb and resource.
    Requests {
        #[command(flatten)]
        name: Name,
        /// How far to look back.
        #[arg(long, default_value_t = 1)]
        minutes: i64,
    },
    /// List the clusters of this machine.
    List,
}

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Command::Deps => deps::ensure(&Cache::open()?),
        Command::Demo { name: Name { name }, postgres } => {
            runtime.block_on(demo::demo(Options { name, ..Options::default() }, &postgres))
        }
        Command::Test(test) => runtime.block_on(run_scenarios(test)),
        Command::Packaging(packaging) => runtime.block_on(run_packaging(packaging)),
        Command::Bare(bare) => run_bare(bare),
        Command::Programs { postgres } => {
            println!("{}", matriarch_e2e::bare::programs(&postgres)?.display());
            Ok(())
        }
        Command::BareInside(bare) => {
            let binaries = bare.binaries.context("no --binaries")?;
            let root = bare.root.context("no --root")?;
            let Bare { filter, quick, postgres: major, report, .. } = bare;
            let options = matriarch_e2e::bare::Options { filter, quick, major, report, binaries, root };
            if !runtime.block_on(matriarch_e2e::bare::inside(&options))? {
                bail!("not all scenarios passed");
            }
            Ok(())
        }
        Command::Scale(scale) => run_scale(scale),
        Command::ScaleInside(scale) => {
            let (binaries, root) = (scale.binaries.context("no --binaries")?, scale.root.context("no --root")?);
            let quiet = Duration::from_secs(scale.quiet);
            let options = scale::Options { clusters: scale.clusters, quiet, report: scale.report, binaries, root };
            runtime.block_on(scale::inside(&options))
        }
        Command::WithApi(WithApi { command, .. }) => {
            deps::require_root()?;
            inside(&["with-api-inside".to_owned()], &command, "the command failed")
        }
        Command::WithApiInside(WithApi { root, command }) => {
            if !runtime.block_on(scale::with_api(&root.context("no --root")?, &command))? {
                bail!("the command failed");
            }
            Ok(())
        }
        Command::Cluster { command } => runtime.block_on(run(command)),
    }
}

/// Goes on in the sandbox.
fn inside(arguments: &[String], last: &[String], failure: &str) -> Result<()> {
    if !matriarch_e2e::bare::enter(arguments, last)? {
        bail!("{failure}");
    }
    Ok(())
}

/// The binaries in a folder, or new ones.
fn binaries(folder: Option<PathBuf>, dev: bool) -> Result<String> {
    let folder = if let Some(folder) = folder {
        std::path::absolute(folder)?
    } else {
        let profile = if dev { Profile::Dev } else { Profile::Release };
        step("building our programs (static)", || matriarch_e2e::images::own::compile(profile))?
    };
    Ok(folder.display().to_string())
}

fn run_scale(scale: Scale) -> Result<()> {
    deps::require_root()?;
    let mut arguments = vec!["scale-inside".to_owned()];
    arguments.extend(["--clusters".to_owned(), scale.clusters.to_string()]);
    arguments.extend(["--quiet".to_owned(), scale.quiet.to_string()]);
    arguments.extend(["--binaries".to_owned(), binaries(scale.binaries, scale.dev)?]);
    if let Some(path) = scale.report {
        arguments.extend(["--report".to_owned(), std::path::absolute(path)?.display().to_string()]);
    }
    inside(&arguments, &[], "the measurement failed")
}

/// Builds, and goes on in the sandbox.
fn run_bare(bare: Bare) -> Result<()> {
    deps::require_root()?;
    let mut arguments = vec!["bare-inside".to_owned(), "--postgres".to_owned(), bare.postgres];
    arguments.extend(["--binaries".to_owned(), binaries(bare.binaries, bare.dev)?]);
    if bare.quick {
        arguments.push("--quick".to_owned());
    }
    for (name, value) in [("--filter", bare.filter), ("--report", bare.report.map(|path| path.display().to_string()))] {
        if let Some(value) = value {
            arguments.extend([name.to_owned(), value]);
        }
    }
    inside(&arguments, &[], "not all scenarios passed")
}

async fn run_scenarios(test: Test) -> Result<()> {
    let options = scenarios::Options {
        cluster: Options { name: test.name, nodes: test.nodes, ..Options::default() },
        filter: test.filter,
        major: test.postgres,
        report: test.report,
        keep: test.keep,
        profile: if test.dev { Profile::Dev } else { Profile::Release },
    };
    if !scenarios::test(&options).await? {
        bail!("not all scenarios passed");
    }
    Ok(())
}

async fn run_packaging(with: Packaging) -> Result<()> {
    let options = packaging::Options {
        cluster: Options { name: with.name, ..Options::default() },
        major: with.postgres,
        profile: if with.dev { Profile::Dev } else { Profile::Release },
        keep: with.keep,
    };
    packaging::test(&options).await
}

async fn run(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Up { name: Name { name }, nodes, volumes, volume_mib } => {
            let begin = std::time::Instant::now();
            let cluster = Cluster::up(&Options { name, nodes, volumes, volume_mib }).await?;
            eprintln!("cluster {} is up after {:.1} s", cluster.layout().name, begin.elapsed().as_secs_f32());
            print_environment(cluster.layout())?;
        }
        ClusterCommand::Down { name: Name { name } } => {
            step(&format!("removing cluster {name}"), || Cluster::down(&name))?;
            for left in cluster::leftovers(&name)? {
                eprintln!("  left over: {left}");
            }
        }
        ClusterCommand::Kubeconfig { name: Name { name } } => print_environment(&Layout::load(&name)?)?,
        ClusterCommand::LoadImages { name: Name { name }, dev } => {
            let profile = if dev { Profile::Dev } else { Profile::Release };
            let images = Cluster::attach(&name).await?.load_own_images(profile)?;
            println!("{}\n{}", images.operator.reference, images.sidecar.reference);
        }
        ClusterCommand::Recycle { name: Name { name } } => {
            println!("{} volumes recycled", Cluster::attach(&name).await?.recycle_volumes().await?);
        }
        ClusterCommand::Requests { name: Name { name }, minutes } => {
            let until = Timestamp::now();
            let counts = Cluster::attach(&name).await?.api_requests(until - minutes.minutes(), until)?;
            for (request, count) in counts {
                println!("{count:6}  {}  {} {} {}", request.user, request.verb, request.resource, request.namespace);
            }
        }
        ClusterCommand::List => {
            for name in cluster::existing() {
                println!("{name}");
            }
        }
    }
    Ok(())
}

/// To be evaluated by a shell: `eval "$(matriarch-e2e cluster kubeconfig)"`.
fn print_environment(layout: &Layout) -> Result<()> {
    println!("export KUBECONFIG={}", layout.kubeconfig("admin").display());
    println!("export PATH={}:$PATH", Cache::open()?.bin().display());
    Ok(())
}
