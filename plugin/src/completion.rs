//! `kubectl matriarch completion`, and the names that shells offer: clusters, members and namespaces that are there.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Command, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::access::{Access, Session};
use crate::error::Error;
use crate::output::say;
use crate::store::{Store, clusters as all_clusters};

/// Somebody waits at the keyboard: later nothing is offered.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whose script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// For `kubectl-matriarch`.
    Bash,
    /// For `kubectl-matriarch`.
    Zsh,
    /// For `kubectl-matriarch`.
    Fish,
    /// For `kubectl matriarch`: an executable `kubectl_complete-matriarch`, which kubectl looks for in PATH.
    Kubectl,
}

/// For which shell.
#[derive(clap::Args)]
pub struct Args {
    /// The shell, or kubectl itself.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script; asks nobody.
pub fn run(args: &Args) -> Result<(), Error> {
    let env = clap_complete::env::Shells::builtins();
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Kubectl => {
            return say(
                "#!/bin/sh\n# Put this as an executable file kubectl_complete-matriarch into a folder of PATH.\nexec kubectl-matriarch __complete \"$@\"",
            );
        }
    };
    let shell = env.completer(name).ok_or_else(|| Error::Output(format!("{name} is not known")))?;
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "kubectl-matriarch", "kubectl-matriarch", "kubectl-matriarch", &mut script)
        .map_err(Error::output)?;
    say(String::from_utf8_lossy(&script).trim_end())
}

/// What kubectl asks for: the words so far, the last one unfinished. One candidate a line, then cobra's directive.
pub fn offer(command: &mut Command, words: &[OsString]) -> Result<(), Error> {
    let mut line = vec![OsString::from("kubectl-matriarch")];
    line.extend(words.iter().cloned());
    let last = line.len() - 1;
    let found = clap_complete::engine::complete(command, line, last, None).map_err(Error::output)?;
    for one in found {
        let help = one.get_help().map(|help| format!("\t{help}")).unwrap_or_default();
        say(&format!("{}{help}", one.get_value().to_string_lossy()))?;
    }
    // ShellCompDirectiveNoFileComp
    say(":4")
}

/// Names of clusters.
pub fn clusters() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        names(current, async |session| {
            let all = all_clusters(&session, false, None).await?;
            Ok(all.iter().map(ResourceExt::name_any).collect())
        })
    })
}

/// Names of members: of the cluster that the command line names, or of all.
pub fn members() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        names(current, async |session| {
            let said: Vec<String> = std::env::args().collect();
            let mut found = Vec::new();
            let all = all_clusters(&session, false, None).await?;
            let named = all.iter().any(|c| said.contains(&c.name_any()));
            for cluster in all.into_iter().filter(|c| !named || said.contains(&c.name_any())) {
                found.extend(Store::of(&session, cluster).pods().await?.iter().map(ResourceExt::name_any));
            }
            Ok(found)
        })
    })
}

/// Names of namespaces.
pub fn namespaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        names(current, async |session| {
            let api: Api<Namespace> = Api::all(session.client);
            let list =
                api.list(&ListParams::default()).await.map_err(Error::call("list", "namespaces", "namespaces"))?;
            Ok(list.iter().map(ResourceExt::name_any).collect())
        })
    })
}

/// The options that say where to look are taken from the line that is being written; whatever fails offers nothing.
fn names(
    current: &OsStr,
    ask: impl AsyncFnOnce(Session) -> Result<Vec<String>, Error> + Send + 'static,
) -> Vec<CompletionCandidate> {
    let start = current.to_string_lossy().into_owned();
    let access = access(&std::env::args().collect::<Vec<_>>());
    // clap completes synchronously, perhaps from within our own runtime: a thread has none.
    let found = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
                let work = async { ask(Session::open(access).await?).await };
                runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await }).ok()?.ok()
            })
            .join()
            .ok()
            .flatten()
    });
    found
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.starts_with(&start))
        .map(CompletionCandidate::new)
        .collect()
}

/// Of a line that need not be finished.
fn access(words: &[String]) -> Access {
    let value = |names: &[&str]| {
        words.iter().enumerate().find_map(|(n, word)| {
            names.iter().find_map(|name| {
                if word == name {
                    return words.get(n + 1).cloned();
                }
                word.strip_prefix(&format!("{name}=")).map(str::to_owned)
            })
        })
    };
    Access {
        kubeconfig: value(&["--kubeconfig"]).map(Into::into),
        context: value(&["--context"]),
        namespace: value(&["--namespace", "-n"]),
        as_user: value(&["--as"]),
        as_group: value(&["--as-group"]).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_look_is_read_from_the_unfinished_line() {
        let words = ["kubectl-matriarch", "-n", "shop", "--context=prod", "status", ""].map(str::to_owned);
        let access = access(&words);
        assert_eq!((access.namespace.as_deref(), access.context.as_deref()), (Some("shop"), Some("prod")));
    }
}
