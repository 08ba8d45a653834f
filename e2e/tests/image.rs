//! The Containerfile, built by buildah without any network: only our binaries are in the images, and nobody is root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use matriarch_e2e::host::run::{find_program, run};
use serde_json::{Value, json};

/// Removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0)); // what is left says what went wrong
    }
}

/// buildah with storage of its own and without a network.
fn buildah(folder: &Path, words: &[&str]) -> String {
    let [root, state] = ["root", "run"].map(|name| folder.join(name).display().to_string());
    let own = ["unshare", "--net", "buildah", "--root", &root, "--runroot", &state, "--storage-driver", "vfs"];
    run(&[&own, words].concat()).unwrap()
}

#[test]
fn images_hold_our_binaries_and_nothing_else() {
    if find_program("buildah").is_none() || !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("MATRIARCH_REQUIRE_POSTGRES").is_none(), "needs root and buildah: run `make deps`");
        eprintln!("\n*** SKIPPED: needs root and buildah: run `make deps`\n");
        return;
    }
    let folder = Folder(std::env::temp_dir().join(format!("matriarch-image-{}", std::process::id())));
    let binaries = folder.0.join("binaries");
    fs::create_dir_all(&binaries).unwrap();
    // What is in them does not matter here: scenarios run the true ones. A stray file must not get in.
    for name in ["matriarch-operator", "matriarch-sidecar", "matriarch-supervisor", "kubectl-matriarch"] {
        fs::write(binaries.join(name), name).unwrap();
        fs::set_permissions(binaries.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../Containerfile");
    for (target, programs) in
        [("operator", &["matriarch-operator"][..]), ("sidecar", &["matriarch-sidecar", "matriarch-supervisor"])]
    {
        let name = format!("localhost/{target}");
        let context = binaries.display().to_string();
        let build = ["bud", "--quiet", "--isolation", "chroot", "--pull-never", "--target", target, "--tag", &name];
        buildah(&folder.0, &[&build[..], &["-f", file, &context]].concat());
        let said: Value = serde_json::from_str(&buildah(&folder.0, &["inspect", "--type", "image", &name])).unwrap();
        let config = &said["OCIv1"]["config"];
        assert_eq!(config["User"], "65532:65532");
        assert_eq!(config["Entrypoint"], json!([format!("/{}", programs[0])]));
        let archive = folder.0.join(format!("{target}.tar")).display().to_string();
        buildah(&folder.0, &["push", "--quiet", &name, &format!("docker-archive:{archive}")]);
        let layers = said["OCIv1"]["rootfs"]["diff_ids"].as_array().unwrap().len();
        let manifest: Value = serde_json::from_str(&run(&["tar", "-xOf", &archive, "manifest.json"]).unwrap()).unwrap();
        let mut files = Vec::new();
        for layer in manifest[0]["Layers"].as_array().unwrap() {
            let into = folder.0.join("layer.tar").display().to_string();
            let layer = layer.as_str().unwrap();
            run(&["sh", "-c", &format!("tar -xOf {archive} {layer} > {into}")]).unwrap();
            files.extend(run(&["tar", "-tf", &into]).unwrap().lines().map(str::to_owned));
        }
        files.sort();
        assert_eq!(files, programs, "{layers} layers");
    }
}
