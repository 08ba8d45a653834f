//! One image layer: a tar of a folder, with its digest.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::deps::cache::hex;

/// A layer on disk.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The uncompressed tar.
    pub file: PathBuf,
    /// `sha256:…` of the tar, as the image's config names it.
    pub diff_id: String,
}

/// Writes `folder`'s content as a layer, keeping owners, modes and links.
pub fn from_folder(folder: &Path, file: &Path) -> Result<Layer> {
    let mut builder = tar::Builder::new(BufWriter::new(File::create(file)?));
    builder.follow_symlinks(false);
    append_sorted(&mut builder, folder, Path::new(""))?;
    builder.into_inner()?.flush()?;
    read(file)
}

/// A layer that was written before.
pub fn read(file: &Path) -> Result<Layer> {
    let remembered = file.with_extension("sha256");
    let diff_id = if let Ok(text) = fs::read_to_string(&remembered) {
        text
    } else {
        let text = format!("sha256:{}", digest_of(file)?);
        fs::write(&remembered, &text)?;
        text
    };
    Ok(Layer { file: file.to_owned(), diff_id })
}

/// SHA-256 of a file, in hex.
pub fn digest_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

fn append_sorted<W: std::io::Write>(builder: &mut tar::Builder<W>, root: &Path, relative: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(root.join(relative))?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let inside = relative.join(entry.file_name());
        builder
            .append_path_with_name(entry.path(), &inside)
            .with_context(|| format!("unable to add {}", inside.display()))?;
        if entry.file_type()?.is_dir() {
            append_sorted(builder, root, &inside)?;
        }
    }
    Ok(())
}
