//! Writes `crds/postgresclusters.yaml`: `cargo run -p matriarch-crds --example generate`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let yaml = serde_saphyr::to_string(&matriarch_crds::generated::crd())?;
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/postgresclusters.yaml"), yaml)?;
    Ok(())
}
