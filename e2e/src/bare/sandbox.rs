//! The sandbox: this program once more, in pid, network, mount and IPC namespaces of its own. When it ends, whatever it started ends.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::host::run::{run, run_with_input};

/// The API server's address.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 250);
/// Where clients connect.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
/// How many members can have an address.
const MEMBERS: u8 = 40;

/// The address of the `n`th member.
pub fn member(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n)
}

/// Runs this program with `arguments` and `--root FOLDER` in the sandbox, with `last` behind `--`; false: it failed.
pub fn enter(arguments: &[String], last: &[String]) -> Result<bool> {
    let program = std::env::current_exe()?;
    let root = std::env::temp_dir().join(format!("matriarch-{}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"])
        // Process 1 has to reap what agents leave behind.
        .args(["tini", "--"])
        .arg(program)
        .args(arguments)
        .arg("--root")
        .arg(&root)
        .args((!last.is_empty()).then_some("--"))
        .args(last)
        .status()
        .context("unable to run unshare")?;
    // Empty here: what was written lay on a mount of the sandbox's own.
    std::fs::remove_dir(&root)?;
    Ok(status.success())
}

/// Prepares the namespaces that [`enter`] made. Everything is written below `root`: memory, so that nothing waits for a disk and
/// nothing is left.
pub fn prepare(root: &Path) -> Result<()> {
    // A shell would have process ids below it: process 1 is tini.
    let init = std::fs::read_to_string("/proc/1/comm")?;
    if init.trim() != "tini" {
        bail!("this is not the sandbox: run `matriarch-e2e bare`");
    }
    let mut lines =
        vec!["link set lo up".to_owned(), format!("addr add {API}/32 dev lo"), format!("addr add {SERVICE}/32 dev lo")];
    lines.extend((1..=MEMBERS).map(|n| format!("addr add {}/32 dev lo", member(n))));
    run_with_input(&["ip", "-batch", "-"], &(lines.join("\n") + "\n"))?;
    run(&["mount", "-t", "tmpfs", "-o", "size=12g,mode=0755", "tmpfs", &root.display().to_string()])?;
    Ok(())
}
