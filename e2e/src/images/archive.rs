//! A docker archive: `manifest.json`, a config and the layers' tars, all in one tar.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::layer::Layer;
use crate::deps::cache::hex;

/// What an image runs by default.
#[derive(Debug, Default, Clone)]
pub struct Config {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// The default arguments.
    pub cmd: Vec<String>,
    /// `uid[:gid]`; empty means root.
    pub user: String,
}

/// Writes the archive of one image with one name.
pub fn write(path: &Path, reference: &str, config: &Config, layers: &[Layer]) -> Result<()> {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": config.env, "Entrypoint": config.entrypoint, "Cmd": config.cmd, "User": config.user},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>()},
    })
    .to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(config.as_bytes())));
    let layer_names: Vec<String> =
        layers.iter().map(|layer| format!("{}/layer.tar", layer.diff_id.trim_start_matches("sha256:"))).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [reference], "Layers": layer_names}]).to_string();

    let mut builder = tar::Builder::new(BufWriter::new(File::create(path)?));
    append_bytes(&mut builder, "manifest.json", manifest.as_bytes())?;
    append_bytes(&mut builder, &config_name, config.as_bytes())?;
    for (layer, name) in layers.iter().zip(&layer_names) {
        builder.append_path_with_name(&layer.file, name)?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

fn append_bytes<W: std::io::Write>(builder: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, name, bytes)?;
    Ok(())
}
