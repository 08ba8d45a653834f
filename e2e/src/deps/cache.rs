//! The cache: built once, kept outside the work tree, every entry named after a hash of what it was made from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The cache folder: `MATRIARCH_CACHE`, else `$XDG_CACHE_HOME/matriarch`, else `~/.cache/matriarch`.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Finds and creates the folder.
    pub fn open() -> Result<Self> {
        let folder = match (std::env::var_os("MATRIARCH_CACHE"), std::env::var_os("XDG_CACHE_HOME")) {
            (Some(own), _) => PathBuf::from(own),
            (None, Some(xdg)) => PathBuf::from(xdg).join("matriarch"),
            (None, None) => {
                let home = std::env::var_os("HOME").context("neither MATRIARCH_CACHE nor HOME is set")?;
                PathBuf::from(home).join(".cache/matriarch")
            }
        };
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder })
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Links to the current Go-built programs.
    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// One program, as an absolute path.
    pub fn program(&self, name: &str) -> String {
        self.bin().join(name).display().to_string()
    }

    /// An entry that exists only when it is complete: `build` fills a temporary folder, which is then renamed.
    pub fn entry(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let finished = self.folder.join(name);
        if finished.is_dir() {
            return Ok(finished);
        }
        let unfinished = self.folder.join(format!("{name}.unfinished"));
        if unfinished.exists() {
            crate::host::mounts::unmount_below(&unfinished)?;
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        crate::host::progress::step(&format!("making {name} in the cache"), || build(&unfinished))?;
        fs::rename(&unfinished, &finished)?;
        Ok(finished)
    }
}

/// The first 12 hex digits of a SHA-256 over `parts`, each with its length.
pub fn short_hash<B: AsRef<[u8]>>(parts: &[B]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_le_bytes());
        hash.update(part.as_ref());
    }
    hex(&hash.finalize())[..12].to_owned()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
        text
    })
}

/// The folder of this crate in the work tree: where the pinned Go modules and requirements are.
pub fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
