//! The project's own images: `FROM scratch` and static binaries, tagged with a hash of the binaries.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Image, archive, layer};
use crate::deps::cache::{Cache, crate_folder, short_hash};
use crate::host::progress::step;
use crate::host::run::run_command;

const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";
/// Image name, its programs (the first is the entrypoint).
const IMAGES: &[(&str, &[&str])] =
    &[("operator", &["matriarch-operator"]), ("sidecar", &["matriarch-sidecar", "matriarch-supervisor"])];

/// References to our images.
#[derive(Debug, Clone)]
pub struct OwnImages {
    /// `matriarch.dev/operator:<hash>`.
    pub operator: Image,
    /// `matriarch.dev/sidecar:<hash>`: agent and supervisor.
    pub sidecar: Image,
    /// The folder of all binaries; the plugin `kubectl-matriarch`, which is in no image, among them.
    pub binaries: PathBuf,
}

/// How the binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As users get them: small, and minutes of build time for each change.
    Release,
    /// Unoptimized: seconds of build time, for the work on a scenario. Not for measurements.
    Dev,
}

/// Writes the archives of the images with the binaries of a folder.
pub fn build(cache: &Cache, binaries: &Path) -> Result<OwnImages> {
    let mut images = Vec::new();
    for (name, programs) in IMAGES {
        images.push(image(cache, name, programs, binaries)?);
    }
    let mut images = images.into_iter();
    let (operator, sidecar) = (images.next().context("no operator image")?, images.next().context("no sidecar image")?);
    Ok(OwnImages { operator, sidecar, binaries: binaries.to_owned() })
}

fn image(cache: &Cache, name: &str, programs: &[&str], binaries: &Path) -> Result<Image> {
    let bytes: Vec<Vec<u8>> = programs
        .iter()
        .map(|program| fs::read(binaries.join(program)).with_context(|| format!("{program} was not built")))
        .collect::<Result<_>>()?;
    let tag = short_hash(&bytes);
    let reference = format!("matriarch.dev/{name}:{tag}");
    let folder = cache.entry(&format!("images/own/{name}-{tag}"), |out| {
        let root = out.join("root");
        fs::create_dir_all(&root)?;
        for (program, bytes) in programs.iter().zip(&bytes) {
            fs::write(root.join(program), bytes)?;
            fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755))?;
        }
        let layer = layer::from_folder(&root, &out.join("layer.tar"))?;
        let entrypoint = programs.iter().take(1).map(|program| format!("/{program}")).collect();
        archive::write(
            &out.join("image.tar"),
            &reference,
            &archive::Config { entrypoint, ..Default::default() },
            &[layer],
        )
    })?;
    Ok(Image { reference, archive: folder.join("image.tar") })
}

/// Builds for musl where that target is, else a static glibc; returns the folder of the binaries.
pub fn compile(profile: Profile) -> Result<PathBuf> {
    step(&format!("building operator, sidecar, supervisor and plugin ({profile:?}, static)"), || compile_all(profile))
}

fn compile_all(profile: Profile) -> Result<PathBuf> {
    let workspace = crate_folder().parent().context("the crate lies in the workspace")?;
    let target = if has_musl() { MUSL } else { GNU };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--quiet", "--target", target]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    command.args(["--package", "kubectl-matriarch"]);
    for (_, programs) in IMAGES {
        for program in *programs {
            command.args(["--package", program]);
        }
    }
    if target == GNU {
        // A static glibc cannot load NSS modules, which is why none of the three resolves names through it.
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    }
    run_command(&mut command)?;
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    Ok(folder.join(target).join(if profile == Profile::Release { "release" } else { "debug" }))
}

/// Whether the musl target is installed, or can be.
fn has_musl() -> bool {
    let has = || {
        Command::new("rustc")
            .args(["--print", "target-libdir", "--target", MUSL])
            .output()
            .is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir())
    };
    has() || (run_command(Command::new("rustup").args(["target", "add", MUSL])).is_ok() && has())
}
