//! Debian packages the cluster needs: installs those whose program is missing, and starts no service for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::host::progress::step;
use crate::host::run::{find_program, run_command};

/// Program (or absolute file) and the package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("conntrack", "conntrack"),
    ("debootstrap", "debootstrap"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("losetup", "mount"),
    ("nsenter", "util-linux"),
    ("musl-gcc", "musl-tools"),
    ("tini", "tini"),
    ("/usr/bin/python3", "python3"),
    ("haproxy", "haproxy"),
    ("pgbackrest", "pgbackrest"),
    ("pgbouncer", "pgbouncer"),
    ("promtool", "prometheus"),
    ("buildah", "buildah"),
    ("openssl", "openssl"),
    ("lua5.4", "lua5.4"),
];

/// Installs what is missing.
pub fn ensure() -> Result<()> {
    let mut packages: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !exists(program)).map(|(_, name)| *name).collect();
    if run_command(Command::new("python3").args(["-m", "pip", "--version"])).is_err() {
        packages.push("python3-pip");
    }
    if run_command(Command::new(super::patroni::PYTHON).args(["-c", "import ensurepip"])).is_err() {
        packages.push("python3-venv");
    }
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    step(&format!("installing {}", packages.join(" ")), || without_services(|| install(&packages)))
}

fn exists(program: &str) -> bool {
    if program.starts_with('/') { Path::new(program).exists() } else { find_program(program).is_some() }
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |args: &[&str]| {
        run_command(
            Command::new("apt-get")
                .args(["-qq", "--yes", "-o", "DPkg::Lock::Timeout=120"])
                .args(args)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update"]).context("unable to refresh the package lists")?;
    apt(&[&["install", "--no-install-recommends"], packages].concat())?;
    Ok(())
}

/// The containerd package would start a daemon of its own; Debian's hook against that is policy-rc.d.
fn without_services<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
    }
    let result = work();
    if ours {
        fs::remove_file(policy)?;
    }
    result
}
