//! Kubernetes, etcd, `CoreDNS`, Helm and a storage driver, built from the pinned Go modules in `binaries/`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache::{Cache, crate_folder, short_hash};
use crate::host::run::{find_program, run_command};

/// One module and the programs that are built from it.
struct Module {
    /// Folder below `binaries/`.
    name: &'static str,
    /// Package path and the name of its program.
    programs: &'static [(&'static str, &'static str)],
    /// The module whose version becomes Kubernetes' version label, which clients and the kubelet look at.
    labelled: Option<&'static str>,
}

const MODULES: &[Module] = &[
    Module { name: "etcd", programs: &[("go.etcd.io/etcd/server/v3", "etcd")], labelled: None },
    Module {
        name: "kubernetes",
        programs: &[
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
            ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
            ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
        ],
        labelled: Some("k8s.io/kubernetes"),
    },
    Module { name: "coredns", programs: &[("github.com/coredns/coredns", "coredns")], labelled: None },
    Module {
        name: "csi",
        programs: &[
            ("./driver", "csi-driver"),
            ("github.com/kubernetes-csi/external-resizer/cmd/csi-resizer", "csi-resizer"),
        ],
        labelled: None,
    },
    Module { name: "helm", programs: &[("helm.sh/helm/v4/cmd/helm", "helm")], labelled: None },
];

/// Builds what the cache lacks and points the links in its `bin` there.
pub fn ensure(cache: &Cache) -> Result<()> {
    fs::create_dir_all(cache.bin())?;
    for module in MODULES {
        let source = crate_folder().join("binaries").join(module.name);
        let go_mod = fs::read_to_string(source.join("go.mod")).context("the Go modules are read from the work tree")?;
        let go_sum = fs::read_to_string(source.join("go.sum"))?;
        let flags = linker_flags(module, &go_mod)?;
        let mut parts = vec![go_mod, go_sum, flags.clone()];
        parts.extend(own_packages(module, &source)?);
        let key = short_hash(&parts);
        let folder = cache.entry(&format!("go/{}-{key}", module.name), |out| build(module, &source, &flags, out))?;
        for (_, program) in module.programs {
            let link = cache.bin().join(program);
            let target = folder.join(program);
            if fs::read_link(&link).ok().as_ref() != Some(&target) {
                let _ = fs::remove_file(&link); // absent the first time
                symlink(&target, &link)?;
            }
        }
    }
    Ok(())
}

/// The sources of the packages that are the module's own.
fn own_packages(module: &Module, source: &Path) -> Result<Vec<String>> {
    let own = module.programs.iter().filter_map(|(package, _)| package.strip_prefix("./"));
    let read = |package: &str| {
        let file = source.join(package).join("main.go");
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    own.map(read).collect()
}

fn build(module: &Module, source: &Path, flags: &str, out: &Path) -> Result<()> {
    let Some(go) = find_program("go") else {
        bail!("Go is needed once, to build Kubernetes: install it so that `go` is in PATH (`apt-get install golang`)")
    };
    for (package, program) in module.programs {
        let mut command = Command::new(&go);
        command.current_dir(source).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").args(["build", "-ldflags"]);
        command.arg(flags).arg("-o").arg(out.join(program)).arg(package);
        crate::host::progress::step(&format!("building {program}"), || run_command(&mut command))?;
    }
    Ok(())
}

fn linker_flags(module: &Module, go_mod: &str) -> Result<String> {
    let Some(labelled) = module.labelled else { return Ok("-s -w".to_owned()) };
    let version = go_mod
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(labelled))
        .find_map(|rest| rest.trim().split(' ').next().filter(|word| word.starts_with('v')))
        .with_context(|| format!("no version of {labelled} in go.mod"))?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
    let label = "-X k8s.io/component-base/version.git";
    Ok(format!("-s -w {label}Version={version} {label}Major={major} {label}Minor={minor}"))
}
