//! What a platform team does with the packages, on a real cluster: the quick start word by word; Helm install, upgrade and
//! uninstall beside a running PostgreSQL; applying twice; two operators side by side, one of them without cluster-wide rights.

mod gitops;
mod helm;
mod quick_start;
mod release;
mod side_by_side;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};

use crate::cluster::{self, Cluster, Namespace, dump_folder};
use crate::host::process::Process;
use crate::host::run::run;
use crate::images::own::OwnImages;
use crate::scenarios::{Herd, Wanted};
use helm::Helm;

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Kubernetes: one of this name that is up, or a new one, which is removed afterwards.
    pub cluster: cluster::Options,
    /// The major version of PostgreSQL.
    pub major: String,
    /// The folder of our programs.
    pub binaries: PathBuf,
    /// Leave everything up for a look.
    pub keep: bool,
}

/// Namespaces of operators and clusters.
const SYSTEM: &str = "matriarch-system";
const SHOP: &str = "shop";

const A_MINUTE: Duration = Duration::from_mins(1);

/// What all stages use.
struct Stage {
    cluster: Cluster,
    images: OwnImages,
    major: String,
    helm: Helm,
}

/// Runs all stages, one after the other, each on what the one before left.
pub async fn test(options: &Options) -> Result<()> {
    let existed = Cluster::attach(&options.cluster.name).await.is_ok();
    let outcome = Box::pin(stages(options)).await;
    if let Err(error) = &outcome {
        eprintln!("packaging failed: {error:#}");
        dump(options).await;
    }
    if !options.keep && !existed {
        let name = options.cluster.name.clone();
        tokio::task::spawn_blocking(move || Cluster::down(&name)).await??;
    }
    outcome
}

async fn stages(options: &Options) -> Result<()> {
    let cluster = Cluster::attach_or_up(&options.cluster).await?;
    let images = {
        let (cluster, binaries) = (cluster.clone(), options.binaries.clone());
        tokio::task::spawn_blocking(move || cluster.load_own_images(&binaries)).await??
    };
    let helm = Helm::new(&cluster)?;
    let stage = Stage { cluster, images, major: options.major.clone(), helm };
    told("the quick start, word by word", Box::pin(quick_start::run(&stage))).await?;
    let running = told("helm install, and a PostgresCluster", Box::pin(release::install(&stage))).await?;
    let again = gitops::nothing_drifts(&stage, &running.herd);
    told("applying twice, and labels of others", Box::pin(again)).await?;
    told("ready by the rules of kstatus", Box::pin(gitops::ready_for_kstatus(&stage))).await?;
    told("helm upgrade restarts no PostgreSQL", Box::pin(release::upgrade(&stage, &running))).await?;
    let two = side_by_side::two(&stage, &running);
    told("two operators, one without cluster-wide rights", Box::pin(two)).await?;
    let gone = release::uninstall(&stage, &running);
    told("helm uninstall leaves definition and PostgreSQL", Box::pin(gone)).await
}

/// Says what is done and how long it took.
async fn told<T>(what: &str, work: Pin<Box<impl Future<Output = Result<T>>>>) -> Result<T> {
    let begin = Instant::now();
    eprintln!("  {what} …");
    let done = work.await.with_context(|| what.to_owned())?;
    eprintln!("  {what}: {:.1} s", begin.elapsed().as_secs_f32());
    Ok(done)
}

async fn dump(options: &Options) {
    let Ok(cluster) = Cluster::attach(&options.cluster.name).await else { return };
    for namespace in [SYSTEM, SHOP, "default", side_by_side::SYSTEM, side_by_side::BANK] {
        let folder = dump_folder(&format!("packaging-{namespace}"));
        match cluster.dump(namespace, &folder).await {
            Ok(()) => eprintln!("  see {}", folder.display()),
            Err(error) => eprintln!("  no dump of {namespace}: {error:#}"),
        }
    }
}

impl Stage {
    /// A namespace, made if it is not there.
    async fn namespace(&self, name: &str) -> Result<Namespace> {
        self.cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
        Ok(Namespace { cluster: self.cluster.clone(), name: name.to_owned() })
    }

    /// What to ask for.
    fn wanted(&self, name: &'static str, instances: i32) -> Wanted {
        Wanted { name, instances, endpoints: false, major: self.major.clone() }
    }

    /// kubectl, with all rights.
    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let program = crate::deps::cache::Cache::open()?.program("kubectl");
        let kubeconfig = self.cluster.layout().kubeconfig("admin").display().to_string();
        let words: Vec<String> =
            [&program, "--kubeconfig", &kubeconfig].iter().chain(args).map(|word| (*word).to_owned()).collect();
        tokio::task::spawn_blocking(move || run(&words)).await?
    }

    /// All objects of a kind that carry a label; of all namespaces.
    async fn labelled(&self, gvk: (&str, &str, &str), label: &str) -> Result<Vec<DynamicObject>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(gvk.0, gvk.1, gvk.2));
        let api: Api<DynamicObject> = Api::all_with(self.cluster.client(), &resource);
        Ok(api.list(&ListParams::default().labels(label)).await?.items)
    }
}

/// A cluster that runs, and the processes that must go on running.
struct Running {
    herd: Herd,
    /// Pod, its uid, its postmaster.
    members: Vec<(String, String, Process)>,
}

impl Running {
    /// As it is now.
    async fn of(herd: Herd) -> Result<Self> {
        let mut members = Vec::new();
        for member in herd.members().await? {
            members.push((member.name.clone(), member.uid, herd.postmaster(&member.name).await?));
        }
        Ok(Self { herd, members })
    }

    /// Same pods, same postmasters.
    async fn untouched(&self) -> Result<()> {
        let now = self.herd.members().await?;
        for (name, uid, postmaster) in &self.members {
            if !now.iter().any(|one| one.name == *name && one.uid == *uid && !one.deleting) {
                bail!("the pod {name} was replaced");
            }
            if !postmaster.is_alive() {
                bail!("PostgreSQL of {name} was restarted");
            }
        }
        Ok(())
    }
}
