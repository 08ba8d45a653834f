//! The kubelet changes settings of the whole machine. Kept before the first cluster, put back after the last.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::process::{read_record, write_record};

/// What a kubelet sets without being asked.
const CHANGED: &[&str] = &["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];

/// Writes today's values to `record`, unless it exists.
pub fn save(record: &Path) -> Result<()> {
    if record.exists() {
        return Ok(());
    }
    let values: BTreeMap<&str, String> = CHANGED
        .iter()
        .filter_map(|name| Some((*name, fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?)))
        .collect();
    write_record(record, &values)
}

/// Puts the values of `record` back and removes it; fine when there is none.
pub fn restore(record: &Path) -> Result<()> {
    if !record.exists() {
        return Ok(());
    }
    for (name, value) in read_record::<BTreeMap<String, String>>(record)? {
        fs::write(Path::new("/proc/sys").join(&name), value.trim()).with_context(|| name)?;
    }
    fs::remove_file(record)?;
    Ok(())
}
