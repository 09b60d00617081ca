//! The ledger seen from outside: what stands in it before anything happens, what becomes of whoever
//! changes it, and what happens when it cannot be written.

mod crash;
mod disk;
mod faults;
mod order;
mod tampering;

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;

/// The segments of a ledger's folder, oldest first.
fn segments(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut segments: Vec<_> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    segments.sort();
    anyhow::ensure!(!segments.is_empty(), "no segment in {}", folder.display());
    Ok(segments)
}

/// Copies the files of a folder into a new one, rights included.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?;
        std::fs::copy(&path, to.join(name))?;
    }
    Ok(())
}
