//! The command line of the test cluster.

mod cli;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser as _;
use jiff::{Timestamp, ToSpan as _};
use matriarch_e2e::cluster::{self, Cluster, Layout, Options};
use matriarch_e2e::deps::{self, cache::Cache};
use matriarch_e2e::host::progress::step;
use matriarch_e2e::{bare, demo, packaging, scale, scenarios};

use cli::{Bare, Cli, ClusterCommand, Command, Name, Packaging, Scale, Test, WithApi};

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
    let root = cli.root.as_deref();
    match cli.command {
        Command::Deps => deps::ensure(&Cache::open()?),
        Command::Demo { name: Name { name }, major } => {
            runtime.block_on(demo::demo(Options { name, ..Options::default() }, &major.postgres))
        }
        Command::Test(test) => runtime.block_on(run_scenarios(test)),
        Command::Packaging(packaging) => runtime.block_on(run_packaging(packaging)),
        Command::Bare(bare) => runtime.block_on(run_bare(bare, root)),
        Command::Scale(scale) => runtime.block_on(run_scale(scale, root)),
        Command::WithApi(with) => runtime.block_on(run_with_api(&with, root)),
        Command::Programs { postgres } => {
            println!("{}", bare::programs(&postgres)?.display());
            Ok(())
        }
        Command::Cluster { command } => runtime.block_on(run(command)),
    }
}

/// Runs this program once more, in a sandbox; `last` stands behind `--`.
fn sandboxed(arguments: &[String], last: &[String], failure: &str) -> Result<()> {
    succeeded(bare::enter(arguments, last)?, failure)
}

fn succeeded(all: bool, failure: &str) -> Result<()> {
    if !all {
        bail!("{failure}");
    }
    Ok(())
}

async fn run_bare(bare: Bare, root: Option<&Path>) -> Result<()> {
    const FAILURE: &str = "not all scenarios passed";
    deps::require_root()?;
    let binaries = bare.programs.folder()?;
    if let Some(root) = root {
        let Bare { filter, quick, major, report, .. } = bare;
        let options = bare::Options { filter, quick, major: major.postgres, report, binaries, root: root.to_owned() };
        return succeeded(bare::inside(&options).await?, FAILURE);
    }
    let binaries = binaries.display().to_string();
    let mut arguments = vec!["bare".to_owned(), "--postgres".to_owned(), bare.major.postgres];
    arguments.extend(["--binaries".to_owned(), binaries]);
    if bare.quick {
        arguments.push("--quick".to_owned());
    }
    for (name, value) in [("--filter", bare.filter), ("--report", bare.report.map(|path| path.display().to_string()))] {
        if let Some(value) = value {
            arguments.extend([name.to_owned(), value]);
        }
    }
    sandboxed(&arguments, &[], FAILURE)
}

async fn run_scale(scale: Scale, root: Option<&Path>) -> Result<()> {
    deps::require_root()?;
    let binaries = scale.programs.folder()?;
    if let Some(root) = root {
        let Scale { clusters, quiet, report, .. } = scale;
        let quiet = Duration::from_secs(quiet);
        return scale::inside(&scale::Options { clusters, quiet, report, binaries, root: root.to_owned() }).await;
    }
    let mut arguments = vec!["scale".to_owned()];
    arguments.extend(["--clusters".to_owned(), scale.clusters.to_string()]);
    arguments.extend(["--quiet".to_owned(), scale.quiet.to_string()]);
    arguments.extend(["--binaries".to_owned(), binaries.display().to_string()]);
    if let Some(path) = scale.report {
        arguments.extend(["--report".to_owned(), std::path::absolute(path)?.display().to_string()]);
    }
    sandboxed(&arguments, &[], "the measurement failed")
}

async fn run_with_api(with: &WithApi, root: Option<&Path>) -> Result<()> {
    const FAILURE: &str = "the command failed";
    deps::require_root()?;
    match root {
        Some(root) => succeeded(scale::with_api(root, &with.command).await?, FAILURE),
        None => sandboxed(&["with-api".to_owned()], &with.command, FAILURE),
    }
}

async fn run_scenarios(test: Test) -> Result<()> {
    let options = scenarios::Options {
        cluster: Options { name: test.name, nodes: test.nodes, ..Options::default() },
        filter: test.filter,
        major: test.major.postgres,
        report: test.report,
        keep: test.keep,
        binaries: test.programs.folder()?,
    };
    succeeded(scenarios::test(&options).await?, "not all scenarios passed")
}

async fn run_packaging(with: Packaging) -> Result<()> {
    let options = packaging::Options {
        cluster: Options { name: with.name, ..Options::default() },
        major: with.major.postgres,
        binaries: with.programs.folder()?,
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
        ClusterCommand::LoadImages { name: Name { name }, programs } => {
            let images = Cluster::attach(&name).await?.load_own_images(&programs.folder()?)?;
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
