//! The Debian base: one debootstrap with PostgreSQL 15, cut into a base layer and a PostgreSQL layer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{GENERATION, layer};
use crate::deps::cache::{Cache, short_hash};
use crate::host::progress::step;
use crate::host::run::run;

/// The uid and gid of `postgres` in the stock image; Debian's package takes the next free system uid instead.
const POSTGRES_ID: u32 = 999;
/// What the wheels' programs link to are all dependencies of this one.
const PACKAGES: &str = "postgresql-15";
/// What PostgreSQL 15 is made of: moved out of the base, into its own layer.
const POSTGRES_FOLDERS: &[&str] = &["usr/lib/postgresql/15", "usr/share/postgresql/15"];
/// Not needed to run PostgreSQL, and half of the size. Without libLLVM PostgreSQL just does not JIT.
const DROPPED: &[&str] = &[
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
    "usr/lib/postgresql/15/lib/bitcode",
    "usr/lib/postgresql/15/lib/llvmjit.so",
    "usr/share/perl",
    "usr/share/perl5",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/bash-completion",
    "var/lib/apt/lists",
    "var/cache",
    "var/log",
    "var/lib/postgresql",
    "etc/postgresql",
];

/// The two layers' files: base, and PostgreSQL 15 to be put on it.
#[derive(Debug)]
pub struct Debian {
    /// Everything but PostgreSQL's own folders.
    pub base: PathBuf,
    /// PostgreSQL 15 alone.
    pub postgres: PathBuf,
}

/// The layers, built when the cache lacks them.
pub fn ensure(cache: &Cache) -> Result<Debian> {
    let key = short_hash(&[GENERATION, PACKAGES, &DROPPED.join(" ")]);
    let folder = cache.entry(&format!("images/debian-{key}"), |out| {
        let root = out.join("root");
        let target = root.display().to_string();
        let include = format!("--include={PACKAGES}");
        step("debootstrap of Debian with PostgreSQL 15", || {
            run(&["debootstrap", "--variant=minbase", &include, "bookworm", &target])
        })?;
        crate::host::mounts::unmount_below(&root)?;
        prepare(&root)?;
        let postgres = out.join("postgres-root");
        for folder in POSTGRES_FOLDERS {
            let target = postgres.join(folder);
            fs::create_dir_all(target.parent().context("a relative folder")?)?;
            fs::rename(root.join(folder), target).with_context(|| (*folder).to_owned())?;
        }
        layer::from_folder(&root, &out.join("base.tar"))?;
        layer::from_folder(&postgres, &out.join("postgres.tar"))?;
        fs::remove_dir_all(&root)?;
        fs::remove_dir_all(&postgres)?;
        Ok(())
    })?;
    Ok(Debian { base: folder.join("base.tar"), postgres: folder.join("postgres.tar") })
}

/// Turns a fresh debootstrap into what the stock image looks like to PostgreSQL.
fn prepare(root: &Path) -> Result<()> {
    for name in DROPPED {
        let path = root.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.exists() {
            fs::remove_file(&path)?;
        }
    }
    run(&["find", &root.join("dev").display().to_string(), "-mindepth", "1", "-delete"])?; // the runtime fills it
    remove_perl_wrappers(&root.join("usr/bin"))?;
    set_postgres_id(root)?;
    for (folder, mode) in [
        ("var/lib/postgresql", 0o755),
        ("var/lib/postgresql/data", 0o1777),
        ("run/postgresql", 0o3777),
        ("var/cache", 0o755),
        ("var/log", 0o755),
        ("var/log/postgresql", 0o755),
    ] {
        let path = root.join(folder);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if folder.contains("postgresql") {
            chown(&path, Some(POSTGRES_ID), Some(POSTGRES_ID))?;
        }
    }
    Ok(())
}

/// `/usr/bin/psql` and its like are Perl scripts that look for clusters of Debian's own making.
fn remove_perl_wrappers(bin: &Path) -> Result<()> {
    for entry in fs::read_dir(bin)? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains("postgresql-common")) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn set_postgres_id(root: &Path) -> Result<()> {
    for (file, own_fields) in [("etc/passwd", 2), ("etc/group", 1)] {
        let path = root.join(file);
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().map(|line| {
            let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
            if fields.first().is_some_and(|name| name == "postgres") {
                for field in fields.iter_mut().skip(2).take(own_fields) {
                    *field = POSTGRES_ID.to_string();
                }
            }
            fields.join(":") + "\n"
        });
        fs::write(&path, lines.collect::<String>())?;
    }
    Ok(())
}
