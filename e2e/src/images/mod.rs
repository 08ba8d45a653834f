//! Container images without a registry: layers and docker archives written by hand, kept in the cache.

pub mod archive;
pub mod debian;
pub mod layer;
pub mod own;
pub mod pause;
pub mod postgres;
pub mod template;

use std::path::PathBuf;

use anyhow::Result;

use crate::deps::cache::Cache;

/// Bump to rebuild all images although nothing they are made from changed.
const GENERATION: &str = "1";

/// The image of a pod's sandbox: one program that sleeps.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// Debian without PostgreSQL, for tests of bad input.
pub const NO_POSTGRES: &str = "matriarch.dev/no-postgres:1";

/// An image reference and its archive.
#[derive(Debug, Clone)]
pub struct Image {
    /// What pods write in `image:`.
    pub reference: String,
    /// The docker archive to import.
    pub archive: PathBuf,
}

/// Builds what the cache lacks; returns a containerd root with every image a node needs before pods can run.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let mut images = vec![pause::ensure(cache)?];
    images.extend(postgres::ensure(cache)?);
    template::ensure(cache, &images)
}
