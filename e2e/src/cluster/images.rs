//! Images of a running cluster.

use std::path::Path;

use anyhow::Result;

use super::{Cluster, node};
use crate::deps::cache::Cache;
use crate::host::progress::step;
use crate::images::{Image, own};

impl Cluster {
    /// Makes images of our programs known to every node.
    pub fn load_own_images(&self, binaries: &Path) -> Result<own::OwnImages> {
        let images = own::build(&Cache::open()?, binaries)?;
        self.load_image(&images.operator)?;
        self.load_image(&images.sidecar)?;
        Ok(images)
    }

    /// Makes an image known to every node that has not got it.
    pub fn load_image(&self, image: &Image) -> Result<()> {
        for one in self.layout().all_nodes() {
            if !node::has_image(&one, &image.reference)? {
                step(&format!("{} into {}", image.reference, one.name), || node::import(&one, image))?;
            }
        }
        Ok(())
    }

    /// Makes an image known by another name as well, on every node.
    pub fn tag_image(&self, from: &str, to: &str) -> Result<()> {
        self.layout().all_nodes().iter().try_for_each(|one| {
            node::ctr(one, &["images", "tag", "--force", from, to])?;
            Ok(())
        })
    }
}
