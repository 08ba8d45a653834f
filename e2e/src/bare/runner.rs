//! Runs the scenarios one after the other: each on a cluster of its own, all on one API server; a dump for each failure.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};

use super::list::{ALL, Scenario};
use super::sandbox;
use super::stage::Stage;
use crate::cluster::dump_folder;
use crate::scenarios::{Report, Row};

/// How long a scenario may take in all.
const ALTOGETHER: Duration = Duration::from_mins(3);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only scenarios whose names contain one of these, separated by commas.
    pub filter: Option<String>,
    /// Only those of the quick set.
    pub quick: bool,
    /// The major version of PostgreSQL.
    pub major: String,
    /// Where the table goes, beside the terminal.
    pub report: Option<PathBuf>,
    /// The folder of our programs.
    pub binaries: PathBuf,
    /// The sandbox's own folder.
    pub root: PathBuf,
}

/// Inside of the sandbox: runs all that match. Ok(false) says that a scenario failed.
pub async fn inside(options: &Options) -> Result<bool> {
    let matches = |parts: &String, name: &str| parts.split(',').any(|part| name.contains(part));
    let wanted = |one: &&Scenario| match &options.filter {
        Some(parts) => matches(parts, one.name),
        None => !options.quick || one.quick,
    };
    let chosen: Vec<&Scenario> = ALL.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|one| one.name).collect();
        bail!("no scenario is called so; there are {}", names.join(", "));
    }
    let begin = Instant::now();
    sandbox::prepare(&options.root)?;
    let stage = Stage::prepare(&options.root, &options.binaries, &options.major).await?;
    eprintln!("the API server is ready after {:.1} s", begin.elapsed().as_secs_f32());
    let mut report = Report::default();
    for scenario in chosen {
        let row = guarded(&stage, scenario).await;
        eprintln!("{}", row.line());
        report.rows.push(row);
    }
    report.conclude(options.report.as_deref(), &head(options), begin)
}

fn head(options: &Options) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "# Members outside of pods\n\nPostgreSQL {}, three agents on one machine of {cores} cores, ttl 6. The gap is the longest time that \
         a client waited from one acknowledgement to the next.",
        options.major
    )
}

async fn guarded(stage: &Stage, scenario: &Scenario) -> Row {
    let mut row = Row { name: scenario.name.to_owned(), ..Row::default() };
    eprintln!("--- {}", scenario.name);
    let begin = Instant::now();
    let outcome = match tokio::time::timeout(ALTOGETHER, (scenario.body)(stage, &mut row)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("not done after {} s", ALTOGETHER.as_secs())),
    };
    row.took = begin.elapsed();
    let folder = stage.root.join(scenario.name);
    if let Err(error) = outcome {
        row.failure = Some(format!("{error:#}"));
        eprintln!("    {} FAILED: {error:#}", scenario.name);
        let target = dump_folder("bare").join(scenario.name);
        match dump(stage, scenario.name, &target).await {
            Ok(()) => eprintln!("    logs and objects are in {}", target.display()),
            Err(error) => eprintln!("    the dump failed: {error:#}"),
        }
    }
    // Every scenario starts from the same: an API server that answers.
    let served = match stage.plane.start_api_server() {
        Ok(()) => stage.plane.ready().await,
        error => error,
    };
    if let Err(error) = served {
        eprintln!("    {error:#}");
    }
    let _ = std::fs::remove_dir_all(folder);
    row
}

/// Logs, configurations and PostgreSQL's own files of every member, and the objects.
async fn dump(stage: &Stage, name: &str, target: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(target);
    std::fs::create_dir_all(target)?;
    for entry in std::fs::read_dir(&stage.root)?.flatten() {
        // A scenario may have more than one cluster: their names begin with its own.
        let team = entry.file_name().to_string_lossy().into_owned();
        if !team.starts_with(name) {
            continue;
        }
        for member in std::fs::read_dir(entry.path())?.flatten().filter(|member| member.path().is_dir()) {
            let to = target.join(member.file_name());
            std::fs::create_dir_all(&to)?;
            for file in ["log", "patroni.yml", "pgdata/postgresql.conf", "pgdata/pg_hba.conf", "pgdata/postmaster.pid"]
            {
                let from = member.path().join(file);
                if let Some(name) = from.file_name().filter(|_| from.is_file()) {
                    std::fs::copy(&from, to.join(name))?;
                }
            }
        }
        let client = stage.plane.client.clone();
        let maps = Api::<ConfigMap>::namespaced(client.clone(), &team).list(&ListParams::default()).await?;
        let pods = Api::<Pod>::namespaced(client, &team).list(&ListParams::default()).await?;
        let text = serde_json::to_string_pretty(&(maps.items, pods.items))?;
        std::fs::write(target.join(format!("{team}.json")), text)?;
    }
    let _ = std::fs::copy(stage.root.join("control-plane/kube-apiserver.log"), target.join("kube-apiserver.log"));
    Ok(())
}
