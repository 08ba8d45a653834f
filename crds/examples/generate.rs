//! Writes `crds/postgresclusters.yaml` and `docs/reference.md`: `cargo run -p matriarch-crds --example generate`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let yaml = serde_saphyr::to_string(&matriarch_crds::generated::crd())?;
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/postgresclusters.yaml"), yaml)?;
    let page = matriarch_crds::reference::reference();
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md"), page)?;
    Ok(())
}
