//! A containerd root with all images imported and unpacked: every node gets a copy made of hard links, in a third of a
//! second instead of ten. Safe, for snapshots and blobs are never written again; only the databases are, and are copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Image;
use crate::deps::cache::{Cache, short_hash};
use crate::host::child::Running;
use crate::host::mounts::unmount_below;
use crate::host::progress::step;
use crate::host::run::{find_program, run};

/// The template for these images, built when the cache lacks it.
pub fn ensure(cache: &Cache, images: &[Image]) -> Result<PathBuf> {
    let parts: Vec<String> = images.iter().map(|image| image.archive.display().to_string()).collect();
    let folder = cache.entry(&format!("images/containerd-{}", short_hash(&parts)), |out| {
        let socket = out.join("containerd.sock").display().to_string();
        let containerd = start(out, &socket)?;
        let filled = fill(&socket, images);
        drop(containerd);
        unmount_below(out)?;
        fs::remove_dir_all(out.join("state"))?;
        filled
    })?;
    Ok(folder.join("root"))
}

/// Makes `target` a containerd root like the template.
pub fn copy(template: &Path, target: &Path) -> Result<()> {
    let (from, to) = (template.display().to_string(), target.display().to_string());
    if run(&["cp", "-al", &from, &to]).is_err() {
        let _ = fs::remove_dir_all(target); // what it began; the cache is on another file system
        run(&["cp", "-a", &from, &to])?;
    }
    for database in ["io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"] {
        fs::remove_file(target.join(database))?;
        fs::copy(template.join(database), target.join(database)).with_context(|| database.to_owned())?;
    }
    Ok(())
}

/// A containerd for this alone; the kernel kills it if this process dies first.
fn start(out: &Path, socket: &str) -> Result<Running> {
    let folder = out.display();
    let config = out.join("config.toml");
    fs::write(
        &config,
        format!(
            "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/state\"\ndisabled_plugins = \
             [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\n  address = \"{socket}\"\n"
        ),
    )?;
    let program = find_program("containerd").context("containerd is not installed")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program).arg("--config").arg(config);
    let containerd = Running::start(&mut command, &out.join("containerd.log"))?;
    let begin = Instant::now();
    while run(&["ctr", "--address", socket, "version"]).is_err() {
        if begin.elapsed() > Duration::from_secs(30) {
            bail!("containerd does not answer after 30 s, see {}", out.join("containerd.log").display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(containerd)
}

fn fill(socket: &str, images: &[Image]) -> Result<()> {
    for image in images {
        let archive = image.archive.display().to_string();
        step(&format!("unpacking {}", image.reference), || {
            run(&["ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", &archive])
        })?;
    }
    Ok(())
}
