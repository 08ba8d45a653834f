//! Runs a command to its end. A failure says the command line and what it wrote.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `argv` and returns its stdout; on a non-zero exit the error holds both outputs.
pub fn run<S: AsRef<str>>(argv: &[S]) -> Result<String> {
    run_with_input(argv, "")
}

/// As [`run`], with `input` on stdin.
pub fn run_with_input<S: AsRef<str>>(argv: &[S], input: &str) -> Result<String> {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let (program, rest) = words.split_first().context("an empty command line")?;
    finish(Command::new(program).args(rest), input).with_context(|| words.join(" "))
}

/// As [`run`], for a command that was prepared with a folder or environment of its own.
pub fn run_command(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    finish(command, "").context(line)
}

fn finish(command: &mut Command, input: &str) -> Result<String> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child =
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("unable to start")?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).context("unable to write its input")?;
    }
    let output = child.wait_with_output().context("unable to wait for it")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}: {}{}", output.status, stdout, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}

/// The full path of a program in PATH or in the folders that only root has in PATH.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"])
        .map(|folder| std::path::Path::new(folder).join(name))
        .find(|file| file.is_file())
}
