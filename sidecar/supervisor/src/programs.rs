//! Where PostgreSQL's programs are, which of them may be run, and which of them write into a data directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use matriarch_supervisor::protocol::{self, Run};

/// Debian keeps every major version here, outside of PATH.
pub const DEBIAN: &str = "/usr/lib/postgresql";

/// Where PostgreSQL's programs are, and what they are called there.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The folder.
    pub dir: PathBuf,
    /// Names that differ from PostgreSQL's own.
    pub names: BTreeMap<String, String>,
}

impl Programs {
    /// In the folder that is given, or where they are found.
    pub fn find(dir: Option<&Path>, names: &BTreeMap<String, String>, versions: &Path) -> Option<Self> {
        let at = |dir: PathBuf| Self { dir, names: names.clone() };
        match dir {
            Some(dir) => Some(at(dir.to_owned())).filter(|programs| programs.path("postgres").is_file()),
            None => bin_dir(std::env::var_os("PATH").as_deref(), versions).map(at),
        }
    }

    /// The file of a program.
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(self.names.get(program).map_or(program, String::as_str))
    }
}

/// The folder of `postgres`: the first of PATH that has it, else that of the newest version in `versions`.
fn bin_dir(path: Option<&OsStr>, versions: &Path) -> Option<PathBuf> {
    let in_path = path.map(std::env::split_paths).into_iter().flatten().filter(|dir| dir.is_absolute());
    in_path.chain(version_dirs(versions)).find_map(|dir| {
        let postgres = dir.join("postgres");
        if !postgres.is_file() {
            return None;
        }
        // A link in /usr/bin to the real folder, which has the other programs.
        let real = postgres.canonicalize().ok().and_then(|real| real.parent().map(Path::to_owned));
        Some(real.filter(|real| real.join("initdb").is_file()).unwrap_or(dir))
    })
}

fn version_dirs(root: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| root.join(version.to_string()).join("bin")).collect()
}

/// What `postgres --version` prints.
pub fn version(programs: &Programs) -> Option<String> {
    let output = Command::new(programs.path("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .envs(environment(&BTreeMap::new()))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The environment of every program: what says where programs, the home and the language are, and what was asked for.
/// What Kubernetes injects about services and Matriarch about pods stays out.
pub fn environment(added: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = |name: &str| matches!(name, "PATH" | "HOME" | "LANG" | "TZ") || name.starts_with("LC_");
    let mut all: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| kept(name))
        .collect();
    all.extend(added.iter().map(|(name, value)| (name.clone(), value.clone())));
    all
}

/// The environment of a user's command: all of ours (cloud credentials, proxies), but for what Kubernetes, Patroni and Matriarch
/// put there, and with PostgreSQL's programs at the end of PATH.
pub fn command_environment(added: &BTreeMap<String, String>, bin_dir: Option<&Path>) -> BTreeMap<String, String> {
    let foreign = |name: &str| ["KUBERNETES_", "PATRONI_", "MATRIARCH_"].iter().any(|prefix| name.starts_with(prefix));
    let mut all: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !foreign(name))
        .collect();
    if let Some(bin_dir) = bin_dir {
        let path = all.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
        path.push(':');
        path.push_str(&bin_dir.to_string_lossy());
    }
    all.extend(added.iter().map(|(name, value)| (name.clone(), value.clone())));
    all
}

/// Why a command is not run, if so.
pub fn refused_command(command: &protocol::UserCommand) -> Option<String> {
    let zero = |text: &String| text.contains('\0');
    if command.argv.first().is_none_or(String::is_empty) {
        return Some("there is no command".to_owned());
    }
    let bad_name = |name: &String| name.is_empty() || name.contains('=');
    (command.argv.iter().any(zero) || command.env.iter().any(|(n, v)| bad_name(n) || zero(n) || zero(v)))
        .then(|| "an argument or a variable holds a zero byte or has a bad name".to_owned())
}

/// Why a program is not run, if so.
pub fn refused(run: &Run) -> Option<String> {
    let name = run.program.as_str();
    if name.is_empty() || name.contains('/') || name.contains('\0') || name.starts_with('.') {
        return Some(format!("{name:?} is not the name of a program"));
    }
    if run.args.iter().any(|arg| arg.contains('\0'))
        || run
            .env
            .iter()
            .any(|(name, value)| name.is_empty() || name.contains('=') || name.contains('\0') || value.contains('\0'))
    {
        return Some("an argument or a variable holds a zero byte or has a bad name".to_owned());
    }
    let first = run.args.first().map_or("", String::as_str);
    match name {
        "pg_ctl" | "postmaster" => {
            Some(format!("{name} would start or promote past the fence: use Start, Stop and Promote"))
        }
        "postgres" if !matches!(first, "--single" | "--version" | "-V" | "--describe-config" | "-C") => {
            Some("postgres runs as a tool only with --single, --version, --describe-config or -C first".to_owned())
        }
        _ if writes(run) && writes_into(run).is_none() && !asks(first) => {
            Some(format!("{name} writes into a data directory: name it by -D, so that it can be locked"))
        }
        _ => None,
    }
}

/// Asks a program about itself.
fn asks(arg: &str) -> bool {
    matches!(arg, "--version" | "-V" | "--help" | "-?")
}

/// Whether a program changes a data directory.
fn writes(run: &Run) -> bool {
    match run.program.as_str() {
        "initdb" | "pg_basebackup" | "pg_rewind" | "pg_resetwal" | "pg_checksums" | "pg_combinebackup" => true,
        "postgres" => run.args.first().is_some_and(|arg| arg == "--single"),
        _ => false,
    }
}

/// The data directory that a program writes into: its lock is needed for that.
pub fn writes_into(run: &Run) -> Option<PathBuf> {
    if !writes(run) {
        return None;
    }
    let mut args = run.args.iter();
    while let Some(arg) = args.next() {
        for long in ["--pgdata", "--target-pgdata"] {
            if arg == long {
                return args.next().map(PathBuf::from);
            }
            if let Some(value) = arg.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
                return Some(PathBuf::from(value));
            }
        }
        if arg == "-D" {
            return args.next().map(PathBuf::from);
        }
        if let Some(value) = arg.strip_prefix("-D") {
            return Some(PathBuf::from(value));
        }
    }
    run.env.get("PGDATA").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, args: &[&str]) -> Run {
        Run {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::new(),
            stdin: String::new(),
        }
    }

    #[test]
    fn nothing_starts_a_server_past_the_fence() {
        for (program, args) in [
            ("pg_ctl", vec!["start"]),
            ("postmaster", vec![]),
            ("postgres", vec![]),
            ("postgres", vec!["-D", "/v/pgdata"]),
            ("postgres", vec!["-D", "/v/pgdata", "--single"]),
            ("../initdb", vec![]),
            ("/bin/sh", vec![]),
            ("..", vec![]),
            ("", vec![]),
            ("initdb\0", vec![]),
            ("initdb", vec!["/v/pgdata"]),
        ] {
            assert!(refused(&run(program, &args)).is_some(), "{program} {args:?}");
        }
        for (program, args) in
            [("initdb", vec!["-D", "x"]), ("postgres", vec!["--single", "-D", "x"]), ("psql", vec![])]
        {
            assert!(refused(&run(program, &args)).is_none(), "{program} {args:?}");
        }
    }

    #[test]
    fn commands_have_an_argument_vector_and_postgresqls_programs() {
        let command = |argv: &[&str]| protocol::UserCommand {
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::new(),
            data_dir: None,
        };
        for argv in [&[][..], &[""], &["a", "b\0"]] {
            assert!(refused_command(&command(argv)).is_some(), "{argv:?}");
        }
        assert_eq!(refused_command(&command(&["/bin/sh", "-c", "exit 0"])), None);
        let added = BTreeMap::from([("PGPASSFILE".to_owned(), "/v/pgpass".to_owned())]);
        let env = command_environment(&added, Some(Path::new("/pg/bin")));
        assert_eq!(env["PGPASSFILE"], "/v/pgpass");
        assert!(env["PATH"].ends_with(":/pg/bin"));
        assert!(!env.keys().any(|name| name.starts_with("MATRIARCH_")));
    }

    #[test]
    fn programs_may_have_other_names() {
        let names = BTreeMap::from([("initdb".to_owned(), "initdb-17".to_owned())]);
        let programs = Programs { dir: "/pg/bin".into(), names };
        assert_eq!(programs.path("initdb"), Path::new("/pg/bin/initdb-17"));
        assert_eq!(programs.path("pg_rewind"), Path::new("/pg/bin/pg_rewind"));
    }

    #[test]
    fn finds_the_directory_that_a_tool_writes_into() {
        for args in [
            vec!["-D", "/v/pg"],
            vec!["-D/v/pg"],
            vec!["--pgdata", "/v/pg"],
            vec!["-k", "--pgdata=/v/pg"],
            vec!["--target-pgdata=/v/pg"],
            vec!["--target-pgdata", "/v/pg"],
        ] {
            assert_eq!(writes_into(&run("pg_rewind", &args)), Some(PathBuf::from("/v/pg")), "{args:?}");
        }
        assert_eq!(writes_into(&run("pg_controldata", &["-D", "/v/pg"])), None);
        assert_eq!(writes_into(&run("postgres", &["-C", "port", "-D", "/v/pg"])), None);
        let mut by_env = run("initdb", &[]);
        by_env.env.insert("PGDATA".to_owned(), "/v/pg".to_owned());
        assert_eq!(writes_into(&by_env), Some(PathBuf::from("/v/pg")));
    }
}
