//! Mistakes made on purpose: each kept plan still shows its own, and keeps every promise without it.

#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, missing_docs)] // a test may panic: that is how it fails

use std::path::Path;

use matriarch_sim::mutants::{replay, table};

#[test]
fn every_mistake_is_noticed_by_the_promise_that_it_names() {
    let keep = Path::new(env!("CARGO_MANIFEST_DIR")).join("killers");
    assert_eq!(replay(&keep).unwrap(), Vec::<String>::new());
}

#[test]
fn the_table_says_what_is_kept() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stored = std::fs::read_to_string(root.join("../../docs/mutants.md")).unwrap();
    assert_eq!(stored, table(&root.join("killers")).unwrap());
}
