//! The arguments of the command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use matriarch_e2e::deps::{self, cache::Cache};
use matriarch_e2e::images::own::{self, Profile};

/// A real Kubernetes on this machine, for tests of Matriarch. Run as root.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    /// The sandbox's own folder: this is the program that a sandbox was made for.
    #[arg(long, global = true, hide = true)]
    pub root: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Install packages, build Kubernetes and the images: 15 minutes on 2 cores the first time, nothing later.
    Deps,
    /// Show in plain words what Matriarch does, and leave it up for a look.
    Demo {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        major: Major,
    },
    /// Run the scenarios: faults on a real cluster, each with clients that write and a checker.
    Test(Test),
    /// Install, upgrade and uninstall by Helm, run the quick start, put two operators side by side: on a real cluster.
    Packaging(Packaging),
    /// Run the scenarios of members outside of pods: real agents, supervisors, PostgreSQL and API server, no kubelets.
    Bare(Bare),
    /// Measure the operator with many clusters on one API server; their pods are objects only.
    Scale(Scale),
    /// Run a command beside an API server of its own, with `KUBECONFIG` set.
    WithApi(WithApi),
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
pub struct Test {
    /// The cluster: one that is up, or else a new one, which is removed afterwards.
    #[arg(long, default_value = "test")]
    pub name: String,
    /// How many nodes a new cluster gets.
    #[arg(long, default_value_t = 2)]
    pub nodes: u8,
    /// Only scenarios whose names contain one of these, separated by commas.
    #[arg(long)]
    pub filter: Option<String>,
    #[command(flatten)]
    pub major: Major,
    /// Write the table to this file as well.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Leave everything up for a look.
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub programs: Programs,
}

#[derive(clap::Args)]
pub struct Packaging {
    /// The cluster: one that is up, or else a new one, which is removed afterwards.
    #[arg(long, default_value = "packaging")]
    pub name: String,
    #[command(flatten)]
    pub major: Major,
    /// Leave everything up for a look.
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub programs: Programs,
}

#[derive(clap::Args)]
pub struct Bare {
    /// Only scenarios whose names contain one of these, separated by commas.
    #[arg(long)]
    pub filter: Option<String>,
    /// Only the quick ones.
    #[arg(long)]
    pub quick: bool,
    #[command(flatten)]
    pub major: Major,
    /// Write the table to this file as well.
    #[arg(long)]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub programs: Programs,
}

#[derive(clap::Args)]
pub struct Scale {
    /// How many clusters of three members.
    #[arg(long, default_value_t = 100)]
    pub clusters: usize,
    /// For how many seconds the requests of an idle operator are counted.
    #[arg(long, default_value_t = 30)]
    pub quiet: u64,
    /// Write the table to this file as well.
    #[arg(long)]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub programs: Programs,
}

#[derive(clap::Args)]
pub struct WithApi {
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Our programs: built, or there already.
#[derive(clap::Args)]
pub struct Programs {
    /// Unoptimized binaries: much quicker to build, not for measurements.
    #[arg(long)]
    pub dev: bool,
    /// A folder with static binaries that are there already.
    #[arg(long)]
    pub binaries: Option<PathBuf>,
}

/// Which PostgreSQL.
#[derive(clap::Args)]
pub struct Major {
    /// The major version of PostgreSQL: 15, 16 or 18.
    #[arg(long, default_value = "15", env = "MATRIARCH_POSTGRES")]
    pub postgres: String,
}

#[derive(clap::Args)]
pub struct Name {
    /// The cluster's name; several can be up at once.
    #[arg(long, default_value = "dev", env = "MATRIARCH_CLUSTER")]
    pub name: String,
}

#[derive(Subcommand)]
pub enum ClusterCommand {
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
        #[command(flatten)]
        programs: Programs,
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

impl Programs {
    /// Their folder; they are built if no other is named.
    pub fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.binaries {
            return Ok(std::path::absolute(folder)?);
        }
        deps::ensure(&Cache::open()?)?; // the compiler needs some of it
        own::compile(if self.dev { Profile::Dev } else { Profile::Release })
    }
}
